"""Courtesy: what takes long gives its core up between two pieces, where this process's small messages have need of it.

The system itself lets a thread that copies go on until its next tick, up to 4 ms, before one that has just been woken
and that has had its share of the time.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from actors.slices import computing_for_long

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_TIMES = 4
BUSTLE_SECONDS = 0.25  # since the last message came: the next one may wait unread, and for this very core
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
        self._until = self._begun  # messages come, as far as is known
        self._given = 0.0

    def give_way(self) -> None:
        """Lets others have the core, if messages come. Call it every few 100 µs."""
        if _give_up_core is None:
            return
        now = time.monotonic()
        if bustle.messages != self._seen:
            self._seen, self._until = bustle.messages, now + BUSTLE_SECONDS
        if now >= self._until:
            return
        if self._given <= (MOST_TIMES - 1) / MOST_TIMES * (now - self._begun):
            _give_up_core()
            self._given += time.monotonic() - now


@contextmanager
def courteous() -> Iterator[Courtesy]:
    """Gives the courtesy of a large piece of work, which is done in the block."""
    with computing_for_long():
        yield Courtesy()
