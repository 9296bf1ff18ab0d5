"""The ring: each rank talks to its two neighbours only, and sends no byte twice. For large arrays.

Reduce-scatter followed by all-gather moves 2 (n - 1) / n of the array through each rank, which is the least
possible: P. Patarasuk and X. Yuan, "Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations",
JPDC 69(2), 2009. Segments are cut into chunks, so that a chunk is reduced while the next is on its way, as in
gloo's ring; and a chunk that is reduced is handed round while others are still being reduced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from actors import pages

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
    reducing = _reducing(channel, cut(flat, channel.size), reduction, segments[channel.rank])
    # What is lent of ``flat`` has arrived once all is here: every segment is made of it.
    _turn(channel, "reduce", segments, (reducing, _gathering(channel, segments)))
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
    _turn(channel, "reduce", segments, (_reducing(channel, segments, reduction, into),))


def all_gather(channel: Channel, segments: Sequence[npt.NDArray[Any]]) -> None:
    """Fills ``segments`` in place: segment ``i`` is rank ``i``'s; this rank's own is filled already."""
    _turn(channel, "gather", segments, (_gathering(channel, segments),))


class _Stage(NamedTuple):
    """One time round the ring, in ``size - 1`` steps.

    Attributes:
        outgoing: what goes to the right, by step and chunk.
        incoming: takes what comes from the left.
    """

    outgoing: Callable[[int, int], npt.NDArray[Any]]
    incoming: Callable[[int, int, npt.NDArray[Any]], None]


def _reducing(
    channel: Channel, segments: Sequence[npt.NDArray[Any]], reduction: Reduction, into: npt.NDArray[Any]
) -> _Stage:
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

    if size == 1:
        for target, value in zip(targets, partial, strict=True):
            np.copyto(target, reduction.finish(value))
    return _Stage(lambda _, chunk: partial[chunk], incoming)


def _gathering(channel: Channel, segments: Sequence[npt.NDArray[Any]]) -> _Stage:
    rank, size = channel.rank, channel.size
    count = _chunks_of_longest(segments)
    pieces = [cut(segment, count) for segment in segments]

    def incoming(step: int, chunk: int, received: npt.NDArray[Any]) -> None:
        np.copyto(pieces[(rank - step - 1) % size][chunk], received)

    return _Stage(lambda step, chunk: pieces[(rank - step) % size][chunk], incoming)


def _chunks_of_longest(segments: Sequence[npt.NDArray[Any]]) -> int:
    return max(1, *(chunk_count(segment.nbytes) for segment in segments))


def _turn(channel: Channel, phase: str, segments: Sequence[npt.NDArray[Any]], stages: Sequence[_Stage]) -> None:
    """Goes round once for each stage: what came in step s from the left goes right in step s + 1."""
    left, right = (channel.rank - 1) % channel.size, (channel.rank + 1) % channel.size
    count, steps = _chunks_of_longest(segments), channel.size - 1
    lent = max(segment.nbytes for segment in segments) >= LENT_BYTES
    total = len(stages) * steps * count

    def at(index: int) -> tuple[_Stage, int, int]:
        step, chunk = divmod(index, count)
        return stages[step // steps], step % steps, chunk

    sent = 0
    for received in range(total):
        # A chunk can go once it came in the step before, that is ``count`` chunks earlier.
        while sent < min(total, received + min(WINDOW, count)):
            stage, step, chunk = at(sent)
            channel.send(right, f"{phase}.{sent}", stage.outgoing(step, chunk), lent=lent)
            sent += 1
        stage, step, chunk = at(received)
        stage.incoming(step, chunk, channel.recv(left, f"{phase}.{received}"))
    if lent and total:  # until the neighbour has it all
        channel.send(left, f"{phase}.received", None)
        channel.recv(right, f"{phase}.received")
