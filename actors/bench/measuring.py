"""Measures this cluster, and fits the model by which collectives choose their way."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import actors
from actors.costs import Costs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20
SIZES = (4, 64 * 1024, MIB, 16 * MIB)
PATIENCE = 120.0
_CALLS = 300


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured: ``seconds`` for one, and how many bytes that moved, 0 where that says nothing."""

    what: str
    where: str
    seconds: float
    nbytes: int = 0


class Rank:
    """Is called, and one of two ranks."""

    def echo(self, value: Any) -> Any:
        """Returns what it gets."""
        return value

    def weigh(self, value: Any) -> int:
        """Takes an array."""
        return len(value)

    def times(self, what: str, nbytes: int, repeats: int) -> list[float]:
        """Returns the seconds that each of some collectives took here."""
        import numpy as np

        from actors import collective

        x = np.zeros(nbytes // 4, np.float32)
        calls: dict[str, Callable[[], Any]] = {
            "allreduce": lambda: collective.allreduce(x),
            "barrier": collective.barrier,
            "broadcast": lambda: collective.broadcast(x),
        }
        found = []
        for _ in range(repeats + 2):
            collective.barrier()
            start = time.perf_counter()
            calls[what]()
            found.append(time.perf_counter() - start)
        return found[2:]

    def reduce_rate(self) -> float:
        """Returns the bytes a second at which two arrays are added up."""
        import numpy as np

        x, y = np.zeros(4 * MIB, np.float32), np.zeros(4 * MIB, np.float32)
        found = []
        for _ in range(5):
            start = time.perf_counter()
            np.add(x, y, out=x)
            found.append(time.perf_counter() - start)
        return x.nbytes / statistics.median(found)


def measured() -> Iterator[Figure | Costs]:
    """Yields the figures of this cluster as they are taken, and in the end the costs that fit them.

    Calls and shared memory are measured on this node, streams to another node where there is one.
    """
    alive = [node for node in actors.nodes() if node.alive]
    home, other = alive[0], alive[1] if len(alive) > 1 else None
    rank = actors.remote(Rank)
    near = [rank.options(node=home.id, num_cpus=0).remote() for _ in range(2)]
    far = [near[0], rank.options(node=other.id, num_cpus=0).remote()] if other is not None else near
    yield from _calls(near[0], home.name)
    if other is not None:
        yield from _calls(far[1], other.name)
    within = yield from _collectives(near, "auto", f"inside {home.name}")
    where = f"between {home.name} and {other.name}" if other is not None else f"streams inside {home.name}"
    between = yield from _collectives(far, "grpc", where)
    rate: float = actors.get(near[0].reduce_rate.remote(), timeout=PATIENCE)
    yield fitted(within, between, rate)


def fitted(near: dict[tuple[str, int], float], far: dict[tuple[str, int], float], reduce_rate: float) -> Costs:
    """Returns the costs that fit the times of two ranks that share memory, and of two that do not."""
    crowd = max(1.0, 2 / (os.cpu_count() or 1))
    large = SIZES[-1]
    stages = large / (2 * MIB) + 2
    latency, far_latency = near["barrier", 0], far["barrier", 0]
    # What is left once the messages are taken off; at least a tenth, since they were measured on their own.
    moving = max(near["allreduce", large] - stages * latency, near["allreduce", large] / 10)
    streaming = max(far["broadcast", large] - far_latency, far["broadcast", large] / 10)
    return Costs(latency, crowd * large / moving, far_latency, large / streaming, reduce_rate)


def _calls(handle: Any, where: str) -> Iterator[Figure]:
    import numpy as np

    actors.get(handle.echo.remote(1), timeout=PATIENCE)
    yield Figure("call", where, _median(lambda: actors.get(handle.echo.remote(1), timeout=PATIENCE), _CALLS))
    start = time.perf_counter()
    actors.get(handle.echo.map(range(_CALLS * 10)), timeout=PATIENCE)
    yield Figure("call, of many at once", where, (time.perf_counter() - start) / (_CALLS * 10))
    x = np.zeros(16 * MIB, np.uint8)
    seconds = _median(lambda: actors.get(handle.weigh.remote(x), timeout=PATIENCE), 5)
    yield Figure("array as an argument", where, seconds, x.nbytes)


def _collectives(members: list[Any], backend: str, where: str) -> Any:
    """Yields the figures of a group, and returns them by call and size."""
    group = actors.collective.create_group(members, backend)
    found: dict[tuple[str, int], float] = {}
    try:
        for what, nbytes in (("barrier", 0), *(("allreduce", size) for size in SIZES), ("broadcast", SIZES[-1])):
            repeats = 100 if nbytes <= SIZES[1] else 8
            times = actors.get(group.times.remote(what, nbytes, repeats), timeout=PATIENCE)
            found[what, nbytes] = statistics.median(map(max, zip(*times, strict=True)))
            yield Figure(what, where, found[what, nbytes], nbytes)
    finally:
        actors.collective.destroy_group(group)
    return found


def _median(step: Callable[[], Any], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return statistics.median(found)
