"""Who looks after a model's nodes while answers are under way: one that has gone silent is not waited for.

A call waits half a minute for a device whose cable was pulled, since it may come back and the call may run once only.
A model need not wait: what its stages do can be done again by others.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from actors.api import nodes
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from collections.abc import Callable

_EVERY: Final = 0.5  # seconds between two looks; a node must be silent in two of them
_LOOKS: Final = 2


class Watch:
    """Looks while there is something to look after, on a thread of its own.

    Args:
        needed: names of the nodes that are needed now; None while nothing is under way.
        lost: told the names of those that have gone silent.
    """

    def __init__(self, needed: Callable[[], set[str] | None], lost: Callable[[set[str]], None]) -> None:
        self._needed, self._lost = needed, lost
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def look(self) -> None:
        """Begin to look, if this is not done already."""
        with self._guard:
            if self._thread is None and not self._ended.is_set():
                self._thread = threading.Thread(target=self._run, name="model-watch", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        silent: dict[str, int] = {}
        while not self._ended.wait(_EVERY):
            with self._guard:
                needed = self._needed()
                if needed is None:
                    self._thread = None
                    return
            try:
                there = {node.name for node in nodes() if node.alive}
            except ActorsError:  # the cluster was left
                continue
            silent = {name: silent.get(name, 0) + 1 for name in needed - there}
            lost = {name for name, looks in silent.items() if looks >= _LOOKS}
            if lost:
                self._lost(lost)
