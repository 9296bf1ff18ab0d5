"""Recursive doubling: in round k ranks that differ in bit k swap what they have. For what is small, and many ranks.

A logarithmic number of rounds, each with the whole array: R. Thakur, R. Rabenseifner and W. Gropp, "Optimization of
Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, section 4.5. Ranks beyond the largest power of two
first give theirs to another, and get the result from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .direct import swap
from .flow import recv_array, send_array

if TYPE_CHECKING:
    import numpy.typing as npt

    from actors.reduction import Reduction

    from .channel import Channel


def all_reduce(channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any]:
    """Returns the reduction of all ranks' flat arrays, the same bits on every rank."""
    rank = channel.rank
    power = 1 << (channel.size.bit_length() - 1)
    partial = reduction.start(flat)
    if rank >= power:
        send_array(channel, rank - power, "double.in", partial)
        result = np.empty_like(partial)
        recv_array(channel, rank - power, "double.out", result)
        return reduction.finish(result)
    other = np.empty_like(partial)
    if rank + power < channel.size:
        recv_array(channel, rank + power, "double.in", other)
        partial = reduction.merge(partial, other)
    distance = 1
    while distance < power:
        peer = rank ^ distance
        swap(channel, peer, partial, peer, other, f"double.{distance}")
        # Both put the lower rank's first, and so have the same bits.
        partial = reduction.merge(partial, other) if rank < peer else reduction.merge(other, partial)
        distance *= 2
    if rank + power < channel.size:
        send_array(channel, rank + power, "double.out", partial)
    return reduction.finish(partial)
