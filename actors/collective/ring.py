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
from .flow import CHUNK_BYTES, WINDOW, chunk_count, cut

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

    from .channel import Channel

LENT_BYTES = 4 * CHUNK_BYTES
"""Segments from this size on are sent from where they lie, and not copied first."""


def all_reduce(channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any]:
    """Returns the reduction of all ranks' flat arrays, the same bits on every rank."""
    result = pages.empty(flat.size, flat.dtype)
    segments = cut(result, channel.size)
    # What is lent in the first half has arrived when the second half is done: all segments are made of it.
    _reduce_scatter(channel, cut(flat, channel.size), reduction, segments[channel.rank])
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
    _reduce_scatter(channel, segments, reduction, into)
    _settle(channel, "reduce", segments)


def _reduce_scatter(
    channel: Channel, segments: Sequence[npt.NDArray[Any]], reduction: Reduction, into: npt.NDArray[Any]
) -> None:
    """Does it; what was sent may still be on its way."""
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

    _turn(channel, "reduce", count, lambda _, chunk: partial[chunk], incoming, lent=_lends(segments))
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

    _turn(
        channel, "gather", count, lambda step, chunk: pieces[(rank - step) % size][chunk], incoming,
        lent=_lends(segments),
    )  # fmt: skip
    _settle(channel, "gather", segments)


def _chunks_of_longest(segments: Sequence[npt.NDArray[Any]]) -> int:
    return max(1, *(chunk_count(segment.nbytes) for segment in segments))


def _lends(segments: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether chunks are large enough for a copy of each to cost more than one message at the end; alike on all."""
    return max(segment.nbytes for segment in segments) >= LENT_BYTES


def _settle(channel: Channel, phase: str, segments: Sequence[npt.NDArray[Any]]) -> None:
    """Waits until the neighbour has received what was lent to it."""
    if channel.size > 1 and _lends(segments):
        channel.send((channel.rank - 1) % channel.size, f"{phase}.received", None)
        channel.recv((channel.rank + 1) % channel.size, f"{phase}.received")


def _turn(
    channel: Channel,
    phase: str,
    count: int,
    outgoing: Callable[[int, int], npt.NDArray[Any]],
    incoming: Callable[[int, int, npt.NDArray[Any]], None],
    *,
    lent: bool,
) -> None:
    """Runs ``size - 1`` steps of ``count`` chunks: what came in step s from the left goes right in step s + 1."""
    left, right = (channel.rank - 1) % channel.size, (channel.rank + 1) % channel.size
    total = (channel.size - 1) * count
    sent = 0
    for received in range(total):
        # A chunk can go once it came in the step before, that is ``count`` chunks earlier.
        while sent < min(total, received + min(WINDOW, count)):
            channel.send(right, f"{phase}.{sent}", outgoing(*divmod(sent, count)), lent=lent)
            sent += 1
        incoming(*divmod(received, count), channel.recv(left, f"{phase}.{received}"))
