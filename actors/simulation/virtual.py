"""An event loop whose time passes at once: where nothing is to be done, it is the moment of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class _Hasty(selectors.DefaultSelector):
    """Does not wait, but has the time go on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above."""

    def __init__(self) -> None:
        self._hasty = _Hasty()
        super().__init__(self._hasty)

    def time(self) -> float:
        """The time, in seconds from 0."""
        return self._hasty.now

    def work(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end."""
        asyncio.set_event_loop(self)
        return self.run_until_complete(what)

    def end(self) -> None:
        """Cancels what is still under way, and closes the loop."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        self.close()
