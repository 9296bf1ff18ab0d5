"""Faults: what goes wrong in a run, and the fewest of them that break a promise."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAULTS = ("cut", "crash", "stall", "move")
SPAN_SECONDS = 10.0  # in which faults strike and calls are made


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    Attributes:
        at: when, in seconds.
        kind: ``"cut"``, a connection breaks and what is under way on it is lost; ``"crash"``, the actor's process dies;
            ``"stall"``, the actor stands still for a while; ``"move"``, it is moved to another process.
        whom: which of the connections.
        seconds: how long.
    """

    at: float
    kind: str
    whom: int
    seconds: float


def faults_of(seed: int, number: int, callers: int) -> tuple[Fault, ...]:
    """Returns what goes wrong by this seed."""
    chance = random.Random(f"faults/{seed}")  # noqa: S311 - to be the same again is what is wanted
    found = [
        Fault(
            chance.uniform(0, SPAN_SECONDS), chance.choice(FAULTS), chance.randrange(callers + 1), chance.expovariate(1)
        )
        for _ in range(number)
    ]
    return tuple(sorted(found, key=lambda fault: fault.at))


def fewest(
    run: Callable[[Sequence[Fault]], object], faults: list[Fault], error: AssertionError
) -> tuple[list[Fault], AssertionError]:
    """Leaves out fault after fault as long as something is broken still."""
    for fault in list(faults):
        rest = [other for other in faults if other is not fault]
        try:
            run(rest)
        except AssertionError as still:
            faults, error = rest, still
    return faults, error
