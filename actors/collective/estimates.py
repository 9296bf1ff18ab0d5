"""How long each way of an all-reduce would take, and which is taken: a small model of latencies and rates.

A way's time is that of its messages one after the other, and of the bytes that pass through one rank; R. Hockney, "The
communication challenge for MPP", Parallel Computing 20(3), 1994. It need not be right to choose well.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from . import doubling, ring, shared
from .window import BLOCK_BYTES

if TYPE_CHECKING:
    import numpy.typing as npt

    from actors.costs import Costs
    from actors.reduction import Reduction

    from .channel import Channel
    from .terrain import Islands, Terrain

RING, DOUBLING, SHARED, MIXED = "ring", "recursive doubling", "shared memory", "shared memory and then streams"
SHOWN = "shared memory at one look"


def estimates(nbytes: int, terrain: Terrain) -> dict[str, float]:
    """Returns the seconds that each possible way of an all-reduce would take, the quickest first."""
    islands, costs = terrain.islands, terrain.costs
    ranks = sum(map(len, islands))
    if terrain.shared:
        if shared.shows(terrain, nbytes):
            return {SHOWN: _shown(nbytes, ranks, costs)}
        return {SHARED: _shared(nbytes, ranks, costs)}
    found = _far(nbytes, ranks, costs, max(map(len, islands)))
    if terrain.mixed:
        found[MIXED] = _mixed(nbytes, islands, costs)
    return dict(sorted(found.items(), key=lambda item: item[1]))


def far_all_reduce(channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any]:
    """Returns the reduction of all ranks' flat arrays by the quicker of the ways that need no memory in common."""
    found = _far(flat.nbytes, channel.size, channel.fabric.terrain.costs)
    if found[RING] <= found[DOUBLING]:
        return ring.all_reduce(channel, flat, reduction)
    return doubling.all_reduce(channel, flat, reduction)


def _far(nbytes: int, ranks: int, costs: Costs, crowd: int = 1) -> dict[str, float]:
    """Returns the seconds of the ways over streams, of which ``crowd`` use one host's network at a time."""
    steps = 2 * (ranks - 1)
    rounds = (ranks - 1).bit_length() + (ranks & (ranks - 1) != 0)
    part = nbytes / ranks
    return {
        RING: steps * (costs.far_latency + part * crowd / costs.far_rate) + (ranks - 1) * part / costs.reduce_rate,
        DOUBLING: rounds * (costs.far_latency + nbytes * crowd / costs.far_rate + nbytes / costs.reduce_rate),
    }


def _shared(nbytes: int, ranks: int, costs: Costs) -> float:
    stages = math.ceil(nbytes / BLOCK_BYTES) + 2
    crowd = max(1.0, ranks / (os.cpu_count() or 1))
    return stages * (ranks - 1).bit_length() * costs.near_latency * crowd + crowd * nbytes / costs.near_rate


def _shown(nbytes: int, ranks: int, costs: Costs) -> float:
    # All meet once, and each reads what every rank has; the rate is that of two ranks.
    crowd = max(1.0, ranks / (os.cpu_count() or 1))
    return crowd * ((ranks - 1).bit_length() * costs.near_latency + ranks / 2 * nbytes / costs.near_rate)


def _mixed(nbytes: int, islands: Islands, costs: Costs) -> float:
    largest = max(map(len, islands))
    inside = 2 * _shared(nbytes, largest, costs)  # in, and out again
    return inside + min(_far(nbytes, len(islands), costs).values())
