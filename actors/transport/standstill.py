"""Standstill: whether this process was stopped, or its host asleep, for so long that others may have given it up.

Whoever stands still for half a minute is taken for gone by those who call it. What they sent before may lie in its
sockets all the while, and must not begin once it goes on: so links from before a standstill are read no more. A caller
that still waits dials again and goes on with its session; for one that does not, nothing starts.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

STANDSTILL_SECONDS = 20.0  # a caller waits for 30 s
TICK_SECONDS = 4.0
# It goes on while the host sleeps, unlike Python's own on Linux and macOS.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Standstill:
    """Counts the standstills of a process, from its first use on the I/O loop. `age` may be asked on any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._count = 0
        self._seen = time.clock_gettime(_CLOCK)
        self._timer: asyncio.Handle = loop.call_soon_threadsafe(self._tick)

    def _tick(self) -> None:
        self.age()
        self._seen = time.clock_gettime(_CLOCK)
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def age(self) -> int:
        """Returns how many standstills there were, one included that has just ended."""
        if time.clock_gettime(_CLOCK) - self._seen > STANDSTILL_SECONDS:
            self._count += 1
            self._seen = time.clock_gettime(_CLOCK)
        return self._count

    def close(self) -> None:
        """Counts no more."""
        self._timer.cancel()
