"""The journal: a node's events in their order, of which the latest are kept."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.events.event import Event

KEPT = 20_000
MOST_AT_ONCE = 2_000


class Journal:
    """Numbers events as they come, from 1. For one thread, which runs an event loop.

    Args:
        kept: how many of the latest are kept.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._events: deque[Event] = deque(maxlen=kept)
        self._waiting: set[asyncio.Future[None]] = set()
        self.last = 0

    def add(self, event: Event) -> None:
        """Takes an event in."""
        self._events.append(event)
        self.last += 1
        if self._waiting:
            for waiter in self._waiting:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiting.clear()

    def after(self, number: int, most: int = MOST_AT_ONCE) -> tuple[list[Event], int, int]:
        """Returns the events after the one with this number, the oldest first.

        Returns:
            The events, so many at most; the number of the last of them; how many are missing before the first, since
            they are not kept any more.
        """
        first = self.last - len(self._events)  # the number before the oldest one's
        begin = min(max(number, first), self.last)
        found = list(islice(self._events, begin - first, begin - first + most))
        return found, begin + len(found), max(0, begin - number)

    async def news(self, number: int, timeout: float) -> None:
        """Returns once there is an event after this one, or the time is over."""
        if self.last > number:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiter)
