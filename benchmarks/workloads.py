"""Workloads: what is done, how often, and in which unit it is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from samples import Count
from target import ARRAY_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

IN_FLIGHT = 800  # gRPC's server cancels unary calls from about a thousand on
BATCH = 2000
DRIVERS, TARGETS, EACH = 2, 4, 500
SPAWN_MANY = 4
BESIDE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of operation.

    Attributes:
        name: of the method of `side.Side` that does it.
        title: what is done.
        unit: of the figures.
        better: which way the figures shall go.
        figure: turns the seconds of an operation into a figure; memory comes in MB and stays so.
        full: how often in each round.
        quick: the same for a quick run.
    """

    name: str
    title: str
    unit: str
    better: Literal["lower", "higher"]
    figure: Callable[[float], float]
    full: Count
    quick: Count


def _microseconds(seconds: float) -> float:
    return seconds * 1e6


def _milliseconds(seconds: float) -> float:
    return seconds * 1e3


def _gigabytes(seconds: float) -> float:
    return ARRAY_BYTES / seconds / 1e9


def _calls(number: int) -> Callable[[float], float]:
    return lambda seconds: number / seconds


def _as_it_is(value: float) -> float:
    return value


WORKLOADS = (
    Workload(
        "sync_call", "round trip of a small argument, one call at a time", "µs", "lower",
        _microseconds, Count(50, 600), Count(10, 40),
    ),
    Workload(
        "in_flight", f"{IN_FLIGHT} calls in flight to one actor, then all answers", "calls/s", "higher",
        _calls(IN_FLIGHT), Count(1, 3), Count(1, 1),
    ),
    Workload(
        "argument", "numpy argument of 64 MiB, read at the callee", "GB/s", "higher",
        _gigabytes, Count(1, 2), Count(0, 1),
    ),
    Workload(
        "result", "numpy result of 64 MiB, read at the caller", "GB/s", "higher",
        _gigabytes, Count(1, 2), Count(0, 1),
    ),
    Workload(
        "put", "numpy array of 64 MiB put where other processes can read it", "GB/s", "higher",
        _gigabytes, Count(1, 3), Count(0, 1),
    ),
    Workload(
        "argument_mlx", "MLX argument of 64 MiB, read at the callee", "GB/s", "higher",
        _gigabytes, Count(1, 2), Count(0, 1),
    ),
    Workload(
        "result_mlx", "MLX result of 64 MiB, read at the caller", "GB/s", "higher",
        _gigabytes, Count(1, 2), Count(0, 1),
    ),
    Workload(
        "nested", "an actor that calls another actor and waits for it", "µs", "lower",
        _microseconds, Count(25, 200), Count(5, 20),
    ),
    Workload(
        "spawn", "an actor in a new process, to its first answer", "ms", "lower",
        _milliseconds, Count(0, 1), Count(0, 1),
    ),
    Workload(
        "spawn_many", f"{SPAWN_MANY} such actors at once, to the last first answer", "ms", "lower",
        _milliseconds, Count(0, 1), Count(0, 1),
    ),
    Workload(
        "batch", f"{BATCH} calls to one actor, by what the side has for many at once", "calls/s", "higher",
        _calls(BATCH), Count(1, 3), Count(0, 1),
    ),
    Workload(
        "many_to_many", f"{DRIVERS} processes make {EACH} calls to each of {TARGETS} actors", "calls/s", "higher",
        _calls(DRIVERS * TARGETS * EACH), Count(1, 3), Count(1, 1),
    ),
    Workload(
        "alone", "the round trip to an actor of two threads, of which the other has nothing to do", "µs", "lower",
        _microseconds, Count(50, 2000), Count(0, 20),
    ),
    Workload(
        "beside", "the round trip while 1 GiB arrives from the same actor's process", "µs", "lower",
        _microseconds, Count(0, 2000), Count(0, 20),
    ),
    Workload(
        "beside_argument", "the round trip while another caller here sends the same actor 1 GiB", "µs", "lower",
        _microseconds, Count(0, 2000), Count(0, 20),
    ),
    Workload(
        "light", "a light actor, to its first answer", "µs", "lower",
        _microseconds, Count(2, 20), Count(1, 2),
    ),
    Workload(
        "first_result", "a new program: from init to the first result of an actor", "ms", "lower",
        _milliseconds, Count(0, 1), Count(0, 1),
    ),
    Workload(
        "loading", "a new program: the import alone", "ms", "lower",
        _milliseconds, Count(0, 1), Count(0, 1),
    ),
    Workload(
        "idle", "memory of such a program and all its processes, proportional set size", "MB", "lower",
        _as_it_is, Count(0, 1), Count(0, 1),
    ),
)  # fmt: skip
