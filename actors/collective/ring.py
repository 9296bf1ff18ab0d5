"""The ring: each rank talks to its two neighbours only, and sends no byte twice. For large arrays.

Reduce-scatter followed by all-gather moves 2 (n - 1) / n of the array through each rank, which is the least
possible: P. Patarasuk and X. Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations",
JPDC 69(2), 2009. Segments are cut into chunks, so that a chunk is reduced while the next is on its way, as in
gloo's ring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import pages
from .flow import WINDOW, chunk_count, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

    from .channel import Channel


def all_reduce(channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any]:
    """Returns the reduction of all ranks' flat arrays, the same bits on every rank."""
    result = pages.empty(flat.size, flat.dtype)
    segments = cut(result, channel.size)
    reduce_scatter(channel, cut(flat, channel.size), reduction, segments[channel.rank])
    all_gather(channel, segments)
    return result


def reduce_scatter(
    channel: Channel, segments: Sequence[npt.NDArray[Any]], reduction: Reduction, into: npt.NDArray[Any]
) -> None:
    """Reduces segment ``i`` of all ranks into the array ``into`` of rank ``i``.

    Args:
        channel: the ranks.
        segments: one flat array for each rank, of the same sizes everywhere.
        reduction: how two values become one.
        into: takes this rank's segment.
    """
    rank, size = channel.rank, channel.size
    count = _chunks_of_longest(segments)
    pieces = [cut(segment, count) for segment in segments]
    # Step by step the partial result of another segment, in the reduction's own precision.
    partial = [reduction.start(piece) for piece in pieces[(rank - 1) % size]]

    targets = cut(into, count)

    def incoming(step: int, chunk: int, received: npt.NDArray[Any]) -> None:
        value = pieces[(rank - step - 2) % size][chunk]
        if step == size - 2:
            reduction.conclude(received, value, targets[chunk])
        else:
            partial[chunk] = reduction.combine(received, value)

    _turn(channel, "reduce", count, lambda _, chunk: partial[chunk], incoming)
    if size == 1:
        for target, value in zip(targets, partial, strict=True):
            np.copyto(target, reduction.finish(value))


def all_gather(channel: Channel, segments: Sequence[npt.NDArray[Any]]) -> None:
    """Fills ``segments`` in place: segment ``i`` is rank ``i``'s; this rank's own is filled already."""
    rank, size = channel.rank, channel.size
    count = _chunks_of_longest(segments)
    pieces = [cut(segment, count) for segment in segments]

    def incoming(step: int, chunk: int, received: npt.NDArray[Any]) -> None:
        np.copyto(pieces[(rank - step - 1) % size][chunk], received)

    _turn(channel, "gather", count, lambda step, chunk: pieces[(rank - step) % size][chunk], incoming)


def _chunks_of_longest(segments: Sequence[npt.NDArray[Any]]) -> int:
    return max(1, *(chunk_count(segment.nbytes) for segment in segments))


def _turn(
    channel: Channel,
    phase: str,
    count: int,
    outgoing: Callable[[int, int], npt.NDArray[Any]],
    incoming: Callable[[int, int, npt.NDArray[Any]], None],
) -> None:
    """Runs ``size - 1`` steps of ``count`` chunks: what came in step s from the left goes right in step s + 1."""
    left, right = (channel.rank - 1) % channel.size, (channel.rank + 1) % channel.size
    total = (channel.size - 1) * count
    sent = 0
    for received in range(total):
        # A chunk can go once it came in the step before, that is ``count`` chunks earlier.
        while sent < min(total, received + min(WINDOW, count)):
            channel.send(right, f"{phase}.{sent}", outgoing(*divmod(sent, count)))
            sent += 1
        incoming(*divmod(received, count), channel.recv(left, f"{phase}.{received}"))
