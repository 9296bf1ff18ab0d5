"""The simulated clock: what is to happen, in the order of its time."""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_SECONDS = 600.0  # after which what is not over never will be


class Clock:
    """Lets things happen one after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = count()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Has something happen at that time."""
        heapq.heappush(self._heap, (when, next(self._order), what, args))

    def after(self, seconds: float, what: Callable[..., None], *args: Any) -> None:
        """Has something happen so many seconds from now."""
        self.at(self.now + seconds, what, *args)

    def run_out(self) -> int:
        """Lets all happen; returns how much that was."""
        events = 0
        while self._heap:
            self.now, _, what, args = heapq.heappop(self._heap)
            events += 1
            assert self.now < LONGEST_SECONDS, "it does not come to an end"
            what(*args)
        return events
