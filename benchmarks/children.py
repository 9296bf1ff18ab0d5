"""Children: processes of a side that has no way of its own to start one."""

from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT = multiprocessing.get_context("spawn")


class Child:
    """A process that runs ``main(connection, *args)``, and the other end of the connection."""

    def __init__(self, main: Callable[..., None], *args: Any) -> None:
        self._ours, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=main, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, value: Any) -> None:
        """Sends a value."""
        self._ours.send(value)

    def hear(self) -> Any:
        """Returns the next value it sends; raises EOFError where it has ended."""
        return self._ours.recv()

    def end(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.join()
        self._ours.close()


def ask_all(children: list[Child], value: Any) -> list[Any]:
    """Sends a value to each, then takes an answer of each."""
    for child in children:
        child.tell(value)
    return [child.hear() for child in children]
