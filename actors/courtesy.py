"""Courtesy: what takes long gives its core up between two pieces, where this process's small messages have need of it.

The system itself lets a thread that copies go on until its next tick, up to 4 ms, before one that has just been woken.
"""

from __future__ import annotations

import os
import time

MOST_TIMES = 4
_give_up_core = getattr(os, "sched_yield", None)  # which not every system has


class Bustle:
    """How much is going on here beside what takes long.

    Attributes:
        messages: that have come to this process, about; only that they become more is of use.
    """

    __slots__ = ("messages",)

    def __init__(self) -> None:
        self.messages = 0


bustle = Bustle()


class Courtesy:
    """Of one piece of work. It takes at most so many times as long as without: other programs want cores too."""

    def __init__(self) -> None:
        self._seen = bustle.messages
        self._begun = time.monotonic()
        self._given = 0.0

    def give_way(self) -> None:
        """Lets others have the core, if anything has come since the last time. Call it every few 100 µs."""
        if bustle.messages == self._seen or _give_up_core is None:
            return
        self._seen = bustle.messages
        now = time.monotonic()
        if self._given <= (MOST_TIMES - 1) / MOST_TIMES * (now - self._begun):
            _give_up_core()
            self._given += time.monotonic() - now
