"""Which layers go to which stage: a pure function."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SLACK = 1 + 1e-9  # sums of the same costs in another order differ by rounding


def partition(
    costs: Sequence[float],
    speeds: Sequence[float],
    *,
    first_cost: float = 0.0,
    last_cost: float = 0.0,
    nbytes: Sequence[float] | None = None,
    first_nbytes: float = 0.0,
    last_nbytes: float = 0.0,
    capacities: Sequence[float] | None = None,
) -> tuple[range, ...]:
    """Cut layers into one contiguous range a stage, none empty, the slowest stage as fast as can be.

    Among the cuts that are equally good in this, the one with the smallest sum of squared times is taken: even where
    the slowest stage leaves a choice.

    Args:
        costs: work of each layer, in any unit.
        speeds: work that each stage does in a unit of time, in the order of the stages.
        first_cost: work of the embedding, which the first stage does too.
        last_cost: work of the head, which the last stage does too.
        nbytes: memory of each layer; with `capacities`.
        first_nbytes: memory of what only the first stage holds.
        last_nbytes: memory of what only the last stage holds.
        capacities: memory of each stage.

    Returns:
        The layer numbers of each stage; together every layer exactly once.

    Raises:
        ValueError: more stages than layers, no stage, or numbers that make no sense.
        ModelError: the memory does not suffice.
    """
    sizes = [0.0] * len(costs) if nbytes is None else list(nbytes)
    rooms = [math.inf] * len(speeds) if capacities is None else list(capacities)
    _check(costs, speeds, sizes, rooms, (first_cost, last_cost, first_nbytes, last_nbytes))
    work = list(accumulate(_with_ends(costs, first_cost, last_cost), initial=0.0))
    memory = list(accumulate(_with_ends(sizes, first_nbytes, last_nbytes), initial=0.0))

    def seconds(stage: int, start: int, stop: int) -> float:
        if memory[stop] - memory[start] > rooms[stage] * _SLACK:
            return math.inf
        return (work[stop] - work[start]) / speeds[stage]

    slowest, _ = _best_cuts(len(costs), len(speeds), lambda so_far, *where: max(so_far, seconds(*where)))
    if math.isinf(slowest):
        raise ModelError(_too_big(memory[-1], rooms))

    def even(so_far: float, stage: int, start: int, stop: int) -> float:
        took = seconds(stage, start, stop)
        return math.inf if took > slowest * _SLACK else so_far + took * took

    _, cuts = _best_cuts(len(costs), len(speeds), even)
    return tuple(range(start, stop) for start, stop in pairwise(cuts))


def _best_cuts(
    layers: int, stages: int, extend: Callable[[float, int, int, int], float]
) -> tuple[float, tuple[int, ...]]:
    """Dynamic programming over (stage, layers given out); `extend` adds one stage's layers to a total."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, (0,))}
    for stage in range(stages):
        after: dict[int, tuple[float, tuple[int, ...]]] = {}
        for stop in range(stage + 1, layers - (stages - stage - 1) + 1):
            total, start = min((extend(best[start][0], stage, start, stop), start) for start in best if start < stop)
            after[stop] = (total, (*best[start][1], stop))
        best = after
    return best[layers]


def _with_ends(values: Sequence[float], first: float, last: float) -> list[float]:
    out = list(values)
    out[0] += first
    out[-1] += last
    return out


def _check(
    costs: Sequence[float],
    speeds: Sequence[float],
    sizes: Sequence[float],
    rooms: Sequence[float],
    ends: Sequence[float],
) -> None:
    if not costs or not speeds:
        raise ValueError(f"{len(costs)} layers cannot be cut into {len(speeds)} stages; both must be at least 1")
    if len(speeds) > len(costs):
        raise ValueError(f"{len(speeds)} stages for {len(costs)} layers: a stage needs at least one layer")
    if len(sizes) != len(costs) or len(rooms) != len(speeds):
        raise ValueError(
            f"memory is given for {len(sizes)} of {len(costs)} layers and {len(rooms)} of {len(speeds)} stages"
        )
    if not all(math.isfinite(each) and each > 0 for each in speeds):
        raise ValueError(f"speeds must be above 0, they are {list(speeds)}")
    if not all(math.isfinite(each) and each >= 0 for each in (*costs, *sizes, *ends)):
        raise ValueError("costs and bytes must be 0 or more")
    if not all(each >= 0 for each in rooms):
        raise ValueError(f"capacities must be 0 or more, they are {list(rooms)}")


def _too_big(need: float, rooms: Sequence[float]) -> str:
    there = sum(rooms)
    numbers = f"the model needs {_size(need)}, the {len(rooms)} devices have {_size(there)} free"
    if need > there:
        return f"{numbers}: {_size(need - there)} are missing. Add a device, free memory or use a smaller model"
    return f"{numbers}, but no way of cutting it by layers fits each of them. Give the larger devices the ends"


def _size(nbytes: float) -> str:
    return f"{nbytes / 2**20:,.0f} MiB" if nbytes >= 2**20 else f"{nbytes:,.0f} bytes"
