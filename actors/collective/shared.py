"""Collectives through memory that all ranks share: each element is copied in once and out once.

The arrays go through the window block by block, in stages with a barrier after each: while a rank fills its slot with
one block, it reduces the block before and takes out the one before that. Each rank reduces its own part of every block,
in rank order, so that all get the same bits.

To meet costs more than to copy an array of a MiB. So one that is small enough is shown whole before the ranks agree on
the call, and each reduces all of it once they do: they meet no more than that.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import pages

from .flow import cut
from .pieces import Pieces
from .window import BLOCK_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

    from .channel import Channel
    from .pieces import Part
    from .terrain import Terrain
    from .window import Window

_IN_ORDER = os.uname().machine in {"x86_64", "amd64", "i686"}
"""Whether this processor shows its writes to others in the order they were made."""

SHOWN_BYTES = BLOCK_BYTES
"""What a rank reads of the others at most where arrays are shown before the ranks agree."""

_CACHED_BYTES = 1 << 18
_BYTE = np.dtype(np.uint8)
Parts = list[list[Any]]
"""For each block, a flat array for each rank."""


def all_reduce(
    channel: Channel, window: Window, flat: Part, reduction: Reduction, result: npt.NDArray[Any] | None
) -> None:
    """Reduces all ranks' elements into ``result`` on each rank that passes one."""
    blocks = _cut(flat, _count(flat.nbytes))
    sources = [_cut(block, channel.size) for block in blocks]
    targets = None if result is None else [cut(block, channel.size) for block in cut(result, len(blocks))]
    _reduce(channel, window, sources, reduction, targets)


def shows(terrain: Terrain, nbytes: int) -> bool:
    """Whether arrays of so many bytes are shown before the ranks agree to reduce them. The same on every rank."""
    few = nbytes * (sum(map(len, terrain.islands)) - 1) <= SHOWN_BYTES
    return few and _IN_ORDER and terrain.board is not None and terrain.shared


def show(channel: Channel, window: Window, array: Part) -> None:
    """Shows an array to the others. They have read the one in its place: the calls since went by the board."""
    shown = window.shown(channel.rank, channel.call, array.size, array.dtype)
    if isinstance(array, Pieces):
        array.copy_into(shown)
    else:
        np.copyto(shown.reshape(array.shape), array)


def reduce_shown(
    channel: Channel, window: Window, reduction: Reduction, size: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Returns the reduction of what all ranks have shown, arrays of so many elements, as a flat array."""
    result = pages.empty(size, dtype)
    shown = [window.shown(rank, channel.call, size, dtype) for rank in range(channel.size)]
    reduction.fold_into(shown, result)
    return result


def show_pieces(channel: Channel, window: Window, values: Sequence[Pieces]) -> None:
    """Does as `show`, of some arrays that are in pieces."""
    kinds = [(value.size, value.dtype) for value in values]
    for value, shown in zip(values, window.shown_several(channel.rank, channel.call, kinds), strict=True):
        value.copy_into(shown)


def reduce_shown_pieces(
    channel: Channel, window: Window, reductions: Sequence[Reduction], values: Sequence[Pieces]
) -> list[npt.NDArray[Any]]:
    """Returns the reductions of what all ranks have shown, arrays like these ``values``, as flat arrays."""
    kinds = [(value.size, value.dtype) for value in values]
    shown = zip(*[window.shown_several(rank, channel.call, kinds) for rank in range(channel.size)], strict=True)
    results = [pages.empty(*kind) for kind in kinds]
    for reduction, of_ranks, result in zip(reductions, shown, results, strict=True):
        reduction.fold_into(of_ranks, result)
    return results


def reduce_scatter(
    channel: Channel,
    window: Window,
    segments: Sequence[npt.NDArray[Any]],
    reduction: Reduction,
    into: npt.NDArray[Any],
) -> None:
    """Reduces segment ``i`` of all ranks, all of one size, into the array ``into`` of rank ``i``."""
    count = _count(sum(segment.nbytes for segment in segments))
    columns = [cut(segment, count) for segment in segments]
    sources = [[column[index] for column in columns] for index in range(count)]
    for stage in range(count + 1):
        if stage < count:
            _give(channel, window, stage, sources[stage])
        if stage > 0:
            own = cut(into, count)[stage - 1]
            _fold(channel, window, stage - 1, sources[stage - 1], reduction=reduction, into=own)
        if stage < count:
            meet(channel, stage)


def broadcast(
    channel: Channel,
    window: Window,
    root: int,
    flat: npt.NDArray[Any],
    source: npt.NDArray[Any] | None = None,
) -> None:
    """Brings the root's flat array to all.

    Args:
        channel: the ranks.
        window: their memory.
        root: the rank whose array it is.
        flat: filled on every rank; the root's own has been already, unless it passes a ``source``.
        source: the root's array, which is read once for the others and for its own ``flat``.
    """
    count = _moves(flat.nbytes)
    blocks = cut(flat.view(np.uint8), count)  # an element may be larger than a block
    sources = None if source is None else cut(source.view(np.uint8), count)
    for stage in range(count + 1):
        if channel.rank == root and stage < count:
            shown = window.moved(root, stage, [blocks[stage].size], _BYTE)[0]
            _show_and_keep(shown, blocks[stage], None if sources is None else sources[stage])
        if channel.rank != root and stage > 0:
            block = blocks[stage - 1]
            np.copyto(block, window.moved(root, stage - 1, [block.size], _BYTE)[0])
        if stage < count:
            meet(channel, stage)


def _show_and_keep(shown: npt.NDArray[Any], own: npt.NDArray[Any], source: npt.NDArray[Any] | None) -> None:
    """Shows the root's block, and copies it while it is in the processor's cache, if that is wanted."""
    if source is None:
        np.copyto(shown, own)
        return
    for start in range(0, source.size, _CACHED_BYTES):
        piece = slice(start, start + _CACHED_BYTES)
        np.copyto(shown[piece], source[piece])
        np.copyto(own[piece], source[piece])


def all_gather(channel: Channel, window: Window, parts: Sequence[npt.NDArray[Any]]) -> None:
    """Fills every rank's ``parts``, of which each brings its own; all are of one size."""
    count = _moves(parts[channel.rank].nbytes)
    columns = [cut(part.view(np.uint8), count) for part in parts]
    for stage in range(count + 1):
        if stage < count:
            block = columns[channel.rank][stage]
            np.copyto(window.moved(channel.rank, stage, [block.size], block.dtype)[0], block)
        if stage > 0:
            for rank in _others(channel):
                block = columns[rank][stage - 1]
                np.copyto(block, window.moved(rank, stage - 1, [block.size], block.dtype)[0])
        if stage < count:
            meet(channel, stage)


def all_to_all(
    channel: Channel,
    window: Window,
    outgoing: Sequence[npt.NDArray[Any]],
    lengths: Sequence[Sequence[int]],
    incoming: Sequence[npt.NDArray[Any]],
) -> None:
    """Brings ``outgoing[j]`` of rank ``i`` into ``incoming[i]`` of rank ``j``, all flat; any may be empty.

    Args:
        channel: the ranks.
        window: their memory.
        outgoing: what this rank has for each.
        lengths: the bytes of all: of what each rank has for each.
        incoming: where it goes.
    """
    rank, count = channel.rank, max(_moves(sum(row)) for row in lengths)
    sources, targets = ([cut(one.view(np.uint8), count) for one in arrays] for arrays in (outgoing, incoming))
    np.copyto(incoming[rank], outgoing[rank])
    for stage in range(count + 1):
        if stage < count:
            slots = window.moved(rank, stage, [_piece(length, count, stage) for length in lengths[rank]], _BYTE)
            for other in _others(channel):
                np.copyto(slots[other], sources[other][stage])
        if stage > 0:
            for other in _others(channel):
                sizes = [_piece(length, count, stage - 1) for length in lengths[other]]
                np.copyto(targets[other][stage - 1], window.moved(other, stage - 1, sizes, _BYTE)[rank])
        if stage < count:
            meet(channel, stage)


def _cut(value: Part, count: int) -> list[Any]:
    return value.cut(count) if isinstance(value, Pieces) else cut(value, count)


def _piece(length: int, count: int, index: int) -> int:
    """Returns the size of one of the pieces that `cut` makes of so many elements."""
    return length // count + (index < length % count)


def _reduce(channel: Channel, window: Window, sources: Parts, reduction: Reduction, targets: Parts | None) -> None:
    rank, count = channel.rank, len(sources)
    for stage in range(count + 2):
        if stage < count:
            _give(channel, window, stage, sources[stage])
        if 0 < stage <= count:
            parts = sources[stage - 1]
            shown = window.reduced(rank, stage - 1, parts[rank].size, parts[rank].dtype)
            _fold(channel, window, stage - 1, parts, reduction=reduction, into=shown)
            if targets is not None:
                np.copyto(targets[stage - 1][rank], shown)
        if stage > 1 and targets is not None:
            for other in _others(channel):
                target = targets[stage - 2][other]
                np.copyto(target, window.reduced(other, stage - 2, target.size, target.dtype))
        # The last needs none: nobody writes again until the offers of the next call have been exchanged.
        if stage <= count:
            meet(channel, stage)


def _give(channel: Channel, window: Window, stage: int, parts: Sequence[Part]) -> None:
    """Shows the others their parts; a rank's own is read where it is, unless it is in many small pieces."""
    slots = window.given(channel.rank, stage, [part.size for part in parts], parts[0].dtype)
    for rank, (slot, part) in enumerate(zip(slots, parts, strict=True)):
        if isinstance(part, Pieces):
            if rank != channel.rank or part.small:
                part.copy_into(slot)
        elif rank != channel.rank:
            np.copyto(slot, part)


def _fold(
    channel: Channel,
    window: Window,
    stage: int,
    parts: Sequence[Part],
    *,
    reduction: Reduction,
    into: npt.NDArray[Any],
) -> None:
    """Reduces all ranks' values of this rank's part, in rank order."""
    sizes, own = [part.size for part in parts], parts[channel.rank]
    values = [window.given(rank, stage, sizes, own.dtype)[channel.rank] for rank in range(channel.size)]
    if isinstance(own, Pieces) and not own.small:
        reduction.fold_pieces_into(values, channel.rank, own.arrays(), into)
        return
    if not isinstance(own, Pieces):
        values[channel.rank] = own
    reduction.fold_into(values, into)


def meet(channel: Channel, stage: int | str) -> None:
    """Returns once all ranks have called it: what they wrote into the window before can be read.

    The messages go through the kernel, which orders the memory of both sides on any processor. Some order it anyway, so
    that a post on the board is enough.
    """
    board = channel.fabric.terrain.board
    if board is not None and _IN_ORDER:
        board.exchange(channel, b"")
        return
    distance = 1
    while distance < channel.size:
        channel.send((channel.rank + distance) % channel.size, f"met.{stage}.{distance}", None)
        channel.recv((channel.rank - distance) % channel.size, f"met.{stage}.{distance}")
        distance *= 2


def _others(channel: Channel) -> list[int]:
    """Returns the other ranks, each rank beginning with another, so that not all read the same memory."""
    return [(channel.rank + distance) % channel.size for distance in range(1, channel.size)]


def _count(nbytes: int) -> int:
    return max(1, -(-nbytes // BLOCK_BYTES))


def _moves(nbytes: int) -> int:
    """Returns in how many blocks an array goes that is not reduced; each wait for the others is worth sparing."""
    return max(1, -(-nbytes // (2 * BLOCK_BYTES)))
