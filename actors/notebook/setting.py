"""Puts itself into the IPython that runs: formatters, the magic, and in a kernel the screen."""

from __future__ import annotations

import sys
from typing import Any

from actors import face
from actors.notebook.things import HTML

_enabled: Any = None


def enable() -> None:
    """Enables all this where IPython runs; elsewhere it does nothing. Once is enough."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None:
        load_ipython_extension(shell)


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext actors.notebook`` does; ``import actors`` in a notebook has done it already."""
    global _enabled  # noqa: PLW0603 - one IPython a process
    if _enabled is shell:
        return
    _enabled = shell
    html = shell.display_formatter.formatters["text/html"]
    for (module, name), picture in HTML.items():
        html.for_type_by_name(module, name, picture)
    from actors.notebook.magic import ActorsMagics

    shell.register_magics(ActorsMagics)
    if hasattr(shell, "kernel"):
        _enable_screen(shell)
    else:
        text = shell.display_formatter.formatters["text/plain"]
        text.for_type_by_name("actors.cluster", "Cluster", _print_cluster)


def _enable_screen(shell: Any) -> None:
    from actors.notebook.cells import Cells
    from actors.notebook.screen import Screen

    screen = Screen(Cells(shell.kernel))
    face.use(screen)
    shell.display_formatter.ipython_display_formatter.for_type_by_name("actors.cluster", "Cluster", screen.show)
    shell.events.register("pre_run_cell", screen.cell_begins)
    shell.events.register("post_run_cell", screen.cell_ends)


def _print_cluster(cluster: Any, printer: Any, cycle: bool) -> None:
    del cycle
    from actors.cluster import is_current
    from actors.notebook.pictures import of_cluster
    from actors.observer import Observer

    printer.text(of_cluster(Observer.here().view()).text if is_current(cluster) else repr(cluster))
