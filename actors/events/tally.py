"""Tallies: how many calls of each method there were, how they ended and how long they took."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUNDARIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""Upper ends of the buckets of durations, in seconds; one more bucket is for what took longer."""

MOST_METHODS = 500  # named ones; a label of unbounded values would fill the memory of whoever collects them
OTHERS = "(other)"


@dataclass(slots=True)
class Tally:
    """Calls of one method that ended in one way.

    Attributes:
        count: how many.
        queued: seconds they waited, all together.
        ran: seconds they ran, all together.
        buckets: how many took how long from their arrival, see `BOUNDARIES`.
    """

    count: int = 0
    queued: float = 0.0
    ran: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDARIES) + 1))

    def add(self, queued: float, ran: float) -> None:
        """Counts one call."""
        self.count += 1
        self.queued += queued
        self.ran += ran
        self.buckets[bisect_left(BOUNDARIES, queued + ran)] += 1

    def add_stretch(self, arrived: float, began: float, ends: Sequence[float]) -> None:
        """Counts calls that came together and ran one after the other.

        Args:
            arrived: when they came.
            began: when the first began to run.
            ends: when each ended, and the next began.
        """
        count = len(ends)
        self.count += count
        self.queued += max(0.0, began + sum(ends) - ends[-1] - count * arrived)
        self.ran += max(0.0, ends[-1] - began)
        for end in ends:
            self.buckets[bisect_left(BOUNDARIES, end - arrived)] += 1

    def merge(self, other: Tally) -> None:
        """Adds what another one has counted."""
        self.count += other.count
        self.queued += other.queued
        self.ran += other.ran
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]


Tallies = dict[tuple[str, str], Tally]
"""By method, such as ``"Counter.add"``, and outcome."""


def merge(into: Tallies, more: Tallies) -> None:
    """Adds tallies to others; of methods beyond `MOST_METHODS` all are counted as one."""
    for (method, outcome), tally in more.items():
        key = (method, outcome)
        if key not in into and len(into) >= MOST_METHODS:
            key = (OTHERS, outcome)
        into.setdefault(key, Tally()).merge(tally)
