"""What a small call is bound by: wall and processor time of a bare call, of one that loses nothing, and of ours.

    python benchmarks/floor.py [ROUNDS]

The sides ``socket``, ``session`` and ``handed`` of `calls.py` and ours take turns in three places: wherever the system
puts them, both ends on one core, each end on a core of its own (Linux, two cores; all threads of an end are pinned).
Then a light actor: what its caller does, step by step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import psutil
from raw_session import Handed, Session
from raw_socket import Socket
from samples import Count, check, timed

import actors
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = Count(200, 500)
LIGHT_WARM, LIGHT = 30, 200
ROUNDS = 5


class Echo:
    """What ours calls."""

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return value

    def pid(self) -> int:
        """Returns where it is."""
        return os.getpid()


@dataclass
class Pair:
    """A caller here and a callee elsewhere.

    Attributes:
        call: makes one call with a number and returns the answer.
        callee: process that is called.
        wall: seconds of each call, for each place.
        computed: seconds that both processes computed a call, of each round.
    """

    call: Callable[[int], Any]
    callee: int
    wall: dict[str, list[float]] = field(default_factory=dict)
    computed: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, place: str, cores: tuple[set[int], set[int]]) -> None:
        """Makes calls with each end on its cores."""
        for pid, where in zip((os.getpid(), self.callee), cores, strict=True):
            for thread in psutil.Process(pid).threads():
                os.sched_setaffinity(thread.id, where)
        timed(Count(CALLS.warm, 0), self._one)
        here, there = process_time(), self._there()
        self.wall.setdefault(place, []).extend(timed(Count(0, CALLS.measured), self._one))
        computed = process_time() - here + self._there() - there
        self.computed.setdefault(place, []).append(computed / CALLS.measured)

    def _one(self, stamp: int) -> None:
        check(self.call(stamp), stamp)

    def _there(self) -> float:
        """Seconds that the callee has computed: the system's own count, psutil's is of ticks of 10 ms."""
        threads = Path(f"/proc/{self.callee}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def calls(rounds: int, folder: Path) -> dict[str, Pair]:
    """Lets the sides take turns."""
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    both = {first, last}
    places = {"anywhere": (both, both), "one core": ({first}, {first}), "a core each": ({first}, {last})}
    pairs = {}
    with ExitStack() as stack:
        for name, cls in (("socket", Socket), ("session", Session), ("handed", Handed)):
            side = cls()
            stack.callback(side.stop)
            (folder / name).mkdir()
            side.start(folder / name)
            pairs[name] = Pair(lambda n, call=side.call: call("echo", n), side.pid)  # type: ignore[misc]
        echo: Any = actors.remote(Echo).remote()
        pairs["ours"] = Pair(lambda n: actors.get(echo.echo.remote(n)), actors.get(echo.pid.remote()))
        try:
            for _ in range(rounds):
                for place, cores in places.items():
                    for pair in pairs.values():
                        pair.measure(place, cores)
        finally:
            for thread in psutil.Process().threads():
                os.sched_setaffinity(thread.id, both)
    return pairs


LIGHT_STEPS = ("options", "remote(): what it takes to describe and post it", "the call posted", "get", "in all")
BESIDE = ("a call to it once it is there", "its class pickled", "and read, by itself")


def light() -> dict[str, list[float]]:
    """Makes light actors, each up to its first answer."""
    remote = actors.remote(Echo)
    found: dict[str, list[float]] = {name: [] for name in (*LIGHT_STEPS, *BESIDE)}
    kept: Any = remote.options(isolation="thread").remote()
    actors.get(kept.echo.remote(0))
    for number in range(LIGHT_WARM + LIGHT):
        marks = [perf_counter()]
        options = remote.options(isolation="thread")
        marks.append(perf_counter())
        actor: Any = options.remote()
        marks.append(perf_counter())
        ref = actor.echo.remote(number)
        marks.append(perf_counter())
        check(actors.get(ref), number)
        marks.append(perf_counter())
        steps = [later - earlier for earlier, later in pairwise(marks)]
        begun = perf_counter()
        actors.get(actor.echo.remote(number))
        called = perf_counter()
        data = dumps(Echo)
        pickled = perf_counter()
        loads(data)
        beside = (called - begun, pickled - called, perf_counter() - pickled)
        del actor, ref
        if number >= LIGHT_WARM:
            for name, value in zip(found, (*steps, marks[-1] - marks[0], *beside), strict=True):
                found[name].append(value)
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="floor.py", description="What a small call is bound by.")
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS, help=f"turns of each side, {ROUNDS} if not said")
    rounds: int = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"there is at least one round, not {rounds}")
    with tempfile.TemporaryDirectory(prefix="floor-", dir="/tmp") as home:
        os.environ["ACTORS_HOME"] = home
        with actors.init("local"):
            pairs = calls(rounds, Path(home))
            steps = light()
    print("a call, in µs: median / quickest tenth; p99 / median; both ends' processors")
    for place in pairs["ours"].wall:
        for name, pair in pairs.items():
            wall = sorted(pair.wall[place])
            median, quick, slow = (wall[int(len(wall) * part)] * 1e6 for part in (0.5, 0.1, 0.99))
            computed = statistics.median(pair.computed[place]) * 1e6
            print(f"  {place:12}{name:9}{median:7.0f} /{quick:5.0f}{slow / median:8.1f}{computed:8.0f}")
    print("a light actor, in µs: median / quickest tenth")
    for name, seconds in steps.items():
        tenth = statistics.quantiles(seconds, n=10)[0]
        print(f"  {statistics.median(seconds) * 1e6:6.0f} /{tenth * 1e6:5.0f}   {name}")


if __name__ == "__main__":
    main()
