"""A lull: the least time between two times that something is done, however often it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Lull:
    """Does work on the event loop at once, or so many seconds after the last work. Only on the loop.

    Args:
        loop: does it.
        seconds: see above.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._last = -seconds

    def do(self, work: Callable[[], None]) -> None:
        """Does ``work``, now or in a while."""
        left = self._last + self._seconds - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._do, work)
        else:
            self._do(work)

    def _do(self, work: Callable[[], None]) -> None:
        self._last = self._loop.time()
        work()
