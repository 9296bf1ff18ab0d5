"""``%%actors``: runs a cell on nodes of the cluster instead of here."""

from __future__ import annotations

import ast
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

import actors
from actors.cluster import current_cluster
from actors.notebook.place import Cell


@magics_class
class ActorsMagics(Magics):
    """The magic ``%%actors``."""

    shell: Any

    def __init__(self, shell: Any) -> None:
        super().__init__(shell)
        self._cluster: Any = None
        self._places: dict[str, Any] = {}

    @cell_magic
    @magic_arguments()  # type: ignore[untyped-decorator]
    @argument("nodes", nargs="*", help="names of nodes; none: all that are alive")  # type: ignore[untyped-decorator]
    @argument("--give", "-g", default="", help="names of variables of this notebook to send along, with commas")  # type: ignore[untyped-decorator]
    def actors(self, line: str, cell: str) -> Any:
        """Run a cell on nodes of the cluster, in a process on each, whose variables stay for the next such cell.

        The value is a dict: by node, the value of the cell's last line. What it prints is shown here.

            %%actors --give path vm vm-2
            import os
            os.path.exists(path)
        """
        arguments = parse_argstring(self.actors, line)
        cluster = current_cluster()
        if cluster is not self._cluster:
            self._cluster, self._places = cluster, {}
        alive = [node.name for node in actors.nodes() if node.alive]
        chosen = arguments.nodes or alive
        if unknown := [name for name in chosen if name not in alive]:
            raise UsageError(f"no node is called {', '.join(unknown)}; there are: {', '.join(alive)}")
        ast.parse(cell)  # a wrong cell is wrong here already
        given = self._given(arguments.give)
        refs = {name: self._place(name).run.remote(cell, given) for name in chosen}
        return dict(zip(refs, actors.get(list(refs.values())), strict=True))

    def _given(self, names: str) -> dict[str, Any]:
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        if missing := [name for name in wanted if name not in self.shell.user_ns]:
            raise UsageError(f"this notebook has no {', '.join(missing)}")
        return {name: self.shell.user_ns[name] for name in wanted}

    def _place(self, node: str) -> Any:
        place = self._places.get(node)
        if place is None:
            place = self._places[node] = actors.remote(Cell).options(node=node, num_cpus=0).remote()
        return place
