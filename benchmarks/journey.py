"""Where the time of one small call goes, step by step: ``python benchmarks/journey.py [CALLS]``.

Two processes of one host have one monotonic clock, so times of caller and actor can be compared. Each step is told as
the median and the quickest tenth of all calls; the watching itself adds a microsecond or two to a step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from bisect import bisect
from itertools import pairwise
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import actors
from actors.transport.local_link import LocalLink

if TYPE_CHECKING:
    from collections.abc import Callable

WARM = 2000
CALLS = 3000
LEAST = 100
STEPS = (
    "submit: handle, arguments pickled, call opened and numbered, frame written",
    "send: the caller's system call, in which it may lose its core to the actor",
    "wake: until the actor's thread has the bytes",
    "dispatch: frame read, mailbox, arguments unpickled",
    "run: the method",
    "reply: value pickled, frame written",
    "send: the actor's system call",
    "wake: until the caller's thread has the bytes",
    "settle: frame read, value settled and unpickled, get returns",
)


class Watch:
    """Notes when this process begins and ends to write to a socket, and has read from one."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.read: list[int] = []
        LocalLink.send_here = self._around_send(LocalLink.send_here)  # type: ignore[method-assign]
        LocalLink._cut = self._before_cut(LocalLink._cut)  # type: ignore[method-assign]

    def _around_send(self, send: Callable[..., bool]) -> Callable[..., bool]:
        def watched(link: LocalLink, data: bytes) -> bool:
            begun = perf_counter_ns()
            done = send(link, data)
            self.sent.append((begun, perf_counter_ns()))
            return done

        return watched

    def _before_cut(self, cut: Callable[..., None]) -> Callable[..., None]:
        def watched(link: LocalLink, data: bytes) -> None:
            self.read.append(perf_counter_ns())
            cut(link, data)

        return watched


class Watched:
    """An actor that watches its own process."""

    def __init__(self) -> None:
        self._watch = Watch()
        self._ran: list[tuple[int, int]] = []

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        begun = perf_counter_ns()
        self._ran.append((begun, perf_counter_ns()))
        return value

    def noted(self) -> tuple[list[tuple[int, int]], list[int], list[tuple[int, int]]]:
        """Returns what was noted: sent, read, ran."""
        return self._watch.sent, self._watch.read, self._ran


def measure(calls: int) -> list[list[int]]:
    """Makes calls and returns the nanoseconds of each step of each of them that went straight through."""
    with tempfile.TemporaryDirectory(prefix="journey-", dir="/tmp") as home:
        os.environ["ACTORS_HOME"] = home
        with actors.init("local"):
            actor = actors.remote(Watched).remote()
            for number in range(WARM):
                actors.get(actor.echo.remote(number))
            watch = Watch()
            spans = []
            for number in range(calls):
                begun = perf_counter_ns()
                actors.get(actor.echo.remote(number))
                spans.append((begun, perf_counter_ns()))
            theirs = actors.get(actor.noted.remote())
    return [
        steps for span, ran in zip(spans, theirs[2][WARM:], strict=True) if (steps := _steps(span, ran, watch, theirs))
    ]


def _steps(span: tuple[int, int], ran: tuple[int, int], watch: Watch, theirs: Any) -> list[int] | None:
    begun, ended = span
    out = _only(watch.sent, (begun,), (ended,))
    came = _only(theirs[1], begun, ran[0])
    back = _only(theirs[0], (ran[1],), (ended,))
    there = _only(watch.read, begun, ended)
    if out is None or came is None or back is None or there is None:
        return None  # something else passed at the same time
    # Either side may still be in its system call while the other reads what came by it.
    left, answered = min(out[1], came), min(back[1], there)
    marks = [begun, out[0], left, came, *ran, back[0], answered, there, ended]
    return [later - earlier for earlier, later in pairwise(marks)]


def _only(found: list[Any], after: Any, before: Any) -> Any:
    """Returns the one note between two times; None where there are several, or none."""
    first, last = bisect(found, after), bisect(found, before)
    return found[first] if last - first == 1 else None


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="journey.py", description="Where the time of one small call goes.")
    parser.add_argument("calls", nargs="?", type=int, default=CALLS, help=f"how many, {CALLS} if not said")
    calls: int = parser.parse_args().calls
    if calls < LEAST:
        parser.error(f"so few calls say nothing: {calls}")
    found = measure(calls)
    print(f"{len(found)} of {calls} calls, in µs\n\n  median   quick   step")
    for name, step in zip(STEPS, zip(*found, strict=True), strict=True):
        print(f"{statistics.median(step) / 1e3:8.1f}{statistics.quantiles(step, n=10)[0] / 1e3:8.1f}   {name}")
    whole = [sum(steps) for steps in found]
    print(f"{statistics.median(whole) / 1e3:8.1f}{statistics.quantiles(whole, n=10)[0] / 1e3:8.1f}   the whole call")


if __name__ == "__main__":
    main()
