"""Samples: how long single operations took, and what they come to."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_stamps = itertools.count(1)


class WrongResultError(Exception):
    """A side answered, and not what was asked."""


def check(found: Any, expected: Any) -> None:
    """Raises WrongResultError where a result is not the right one."""
    if found != expected:
        raise WrongResultError(f"expected {str(expected)[:80]}, got {str(found)[:80]}")


@dataclass(frozen=True, slots=True)
class Count:
    """How often an operation is done in one round: ``warm`` times unmeasured, then ``measured`` times."""

    warm: int
    measured: int


def timed(count: Count, operation: Callable[[int], None]) -> list[float]:
    """Returns the seconds that each operation took; each is given a number that none was given before."""
    for _ in range(count.warm):
        operation(next(_stamps))
    seconds = []
    for _ in range(count.measured):
        stamp = next(_stamps)
        start = perf_counter_ns()
        operation(stamp)
        seconds.append((perf_counter_ns() - start) / 1e9)
    return seconds


async def timed_async(count: Count, operation: Callable[[int], Awaitable[None]]) -> list[float]:
    """The same for operations of an event loop."""
    for _ in range(count.warm):
        await operation(next(_stamps))
    seconds = []
    for _ in range(count.measured):
        stamp = next(_stamps)
        start = perf_counter_ns()
        await operation(stamp)
        seconds.append((perf_counter_ns() - start) / 1e9)
    return seconds


@dataclass(frozen=True, slots=True)
class Summary:
    """What the samples of one side come to, in seconds an operation; ``rounds`` holds each round's median."""

    count: int
    median: float
    p99: float
    best: float
    worst: float
    rounds: tuple[float, ...]


def summarise(rounds: Sequence[Sequence[float]]) -> Summary:
    """Sums up the rounds of one side: median and tail over all samples, and a median for each round."""
    ordered = sorted(itertools.chain.from_iterable(rounds))
    return Summary(
        count=len(ordered),
        median=statistics.median(ordered),
        p99=ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        best=ordered[0],
        worst=ordered[-1],
        rounds=tuple(statistics.median(samples) for samples in rounds),
    )
