"""Collectives of ranks on several hosts: inside each host first, through its memory, then between one rank of each.

What crosses the network is one array for each host instead of one for each rank. The rank of a host that talks to the
others leads it: the root where it is there, else the lowest.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import pages
from actors.reduction import widened

from . import direct, ring, shared, tree
from .estimates import far_all_reduce
from .flow import cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

    from .channel import Channel
    from .window import Window


Lengths = list[list[int]]
"""For each of some ranks, the bytes that it has for each of some ranks."""


@dataclass(frozen=True, slots=True)
class _Level:
    """This rank's place.

    Attributes:
        home: the ranks of its host.
        window: their memory; None where it is alone there.
        leader: which of them leads.
        leaders: the leaders of all hosts, in the order of the hosts; None where this rank is none.
        host: number of this rank's host.
    """

    home: Channel
    window: Window | None
    leader: int
    leaders: Channel | None
    host: int


def _level(channel: Channel, root: int | None = None) -> _Level:
    islands = channel.fabric.terrain.islands
    host = next(number for number, island in enumerate(islands) if channel.rank in island)
    leading = tuple(root if root is not None and root in island else island[0] for island in islands)
    leaders = channel.among(leading, "hosts/") if channel.rank in leading else None
    home = channel.among(islands[host], "host/")
    return _Level(home, channel.fabric.terrain.window, islands[host].index(leading[host]), leaders, host)


def all_reduce(channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any]:
    """Returns the reduction of all ranks' flat arrays, the same bits on every rank."""
    level = _level(channel)
    result = pages.empty(flat.size, flat.dtype)
    _reduce_to_leaders(level, flat, reduction, result)
    _give_home(level, result)
    return result


def reduce(
    channel: Channel, root: int, flat: npt.NDArray[Any], reduction: Reduction, result: npt.NDArray[Any] | None
) -> None:
    """Reduces all ranks' flat arrays into ``result`` of the root; the others pass None."""
    level = _level(channel, root)
    whole = result if result is not None else pages.empty(flat.size, flat.dtype) if level.leaders is not None else None
    _reduce_to_leaders(level, flat, reduction, whole)


def reduce_scatter(
    channel: Channel, segments: Sequence[npt.NDArray[Any]], reduction: Reduction, into: npt.NDArray[Any]
) -> None:
    """Reduces segment ``i`` of all ranks, all of one size, into the array ``into`` of rank ``i``."""
    level = _level(channel)
    islands = channel.fabric.terrain.islands
    ordered = np.concatenate([segments[rank] for island in islands for rank in island])
    wide, inner = widened(reduction, ordered)
    own = np.empty(into.size * level.home.size, into.dtype)
    partial = _reduced_at_home(level, wide, inner)
    if level.leaders is not None and partial is not None:
        total = np.empty(own.size, partial.dtype)
        lengths = [into.size * len(island) for island in islands]
        ring.reduce_scatter(level.leaders, np.split(partial, np.cumsum(lengths)[:-1]), inner, total)
        np.copyto(own, reduction.finish(total))
    _give_home(level, own)
    np.copyto(into, cut(own, level.home.size)[level.home.rank])


def broadcast(channel: Channel, root: int, flat: npt.NDArray[Any]) -> None:
    """Brings the root's flat array to all: the root reads ``flat``, the others have it filled."""
    level = _level(channel, root)
    if level.leaders is not None:
        islands = channel.fabric.terrain.islands
        tree.broadcast(level.leaders, next(i for i, island in enumerate(islands) if root in island), flat)
    _give_home(level, flat)


def all_gather(channel: Channel, own: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Returns all ranks' flat arrays, all of one size, in rank order; they lie in one piece of memory."""
    level = _level(channel)
    islands = channel.fabric.terrain.islands
    whole = np.empty(own.size * channel.size, own.dtype)
    blocks = np.split(whole, np.cumsum([own.size * len(island) for island in islands])[:-1])
    mine = cut(blocks[level.host], level.home.size)
    np.copyto(mine[level.home.rank], own)
    if level.window is not None:
        shared.all_gather(level.home, level.window, mine)
        shared.meet(level.home, "gathered")  # before the memory is used again
    if level.leaders is not None:
        ring.all_gather(level.leaders, blocks)
    for number, block in enumerate(blocks):
        if number != level.host:
            _give_home(level, block, f"{number}/")
    ranks = [rank for island in islands for rank in island]
    pieces = dict(zip(ranks, cut(whole, channel.size), strict=True))
    return [pieces[rank] for rank in range(channel.size)]


def all_to_all(
    channel: Channel,
    outgoing: Sequence[npt.NDArray[Any]],
    lengths: Lengths,
    incoming: Sequence[npt.NDArray[Any]],
    root: int | None = None,
) -> None:
    """Brings ``outgoing[j]`` of rank ``i`` into ``incoming[i]`` of rank ``j``, all flat; any may be empty.

    What is for other hosts is gathered by the host's leader, goes to theirs in one piece, and is scattered there.

    Args:
        channel: the ranks.
        outgoing: what this rank has for each.
        lengths: the bytes of all: of what each rank has for each.
        incoming: where it goes.
        root: the rank that all of it goes to or comes from, where there is one.
    """
    level, islands = _level(channel, root), channel.fabric.terrain.islands
    here = islands[level.host]
    abroad = [rank for island in islands if island != here for rank in island]
    sources, targets = ([one.view(np.uint8) for one in arrays] for arrays in (outgoing, incoming))
    inside = [[lengths[i][j] for j in here] for i in here]
    _swap_home(level, "near/", [sources[rank] for rank in here], inside, [targets[rank] for rank in here])
    gone = _gathered_home(level, [sources[rank] for rank in abroad], [[lengths[i][j] for j in abroad] for i in here])
    come = np.empty(sum(lengths[i][j] for i in abroad for j in here) if level.leaders is not None else 0, np.uint8)
    if level.leaders is not None:
        out, into = ([np.empty(0, np.uint8)] * len(islands) for _ in range(2))
        there = iter(_split(gone, [lengths[i][j] for i in here for j in abroad]))
        pieces = {(i, j): piece for (i, j), piece in zip(((i, j) for i in here for j in abroad), there, strict=True)}
        arriving = iter(
            _split(come, [sum(lengths[i][j] for i in island for j in here) for island in islands if island != here])
        )
        for host, island in enumerate(islands):
            if island != here:
                out[host] = np.concatenate([pieces[i, j] for i in here for j in island])
                into[host] = next(arriving)
        direct.all_to_all(level.leaders, out, into)
    _scatter_home(level, come, [[lengths[i][j] for j in here] for i in abroad], [targets[rank] for rank in abroad])


def _reduce_to_leaders(
    level: _Level, flat: npt.NDArray[Any], reduction: Reduction, result: npt.NDArray[Any] | None
) -> None:
    """Reduces all ranks' arrays into ``result`` of every leader."""
    wide, inner = widened(reduction, flat)
    partial = _reduced_at_home(level, wide, inner)
    if level.leaders is not None and partial is not None and result is not None:
        np.copyto(result, reduction.finish(far_all_reduce(level.leaders, partial, inner)))


def _reduced_at_home(level: _Level, wide: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any] | None:
    """Returns the reduction of the host's arrays on its leader."""
    if level.window is None:
        return wide
    partial = pages.empty(wide.size, wide.dtype) if level.leaders is not None else None
    shared.all_reduce(level.home, level.window, wide, reduction, partial)
    return partial


def _give_home(level: _Level, flat: npt.NDArray[Any], part: str = "") -> None:
    """Brings the leader's array to all of its host."""
    if level.window is None:
        return
    home = level.home.within(f"give/{part}")
    shared.broadcast(home, level.window, level.leader, flat)
    shared.meet(home, "given")  # before the memory is used again


def _swap_home(
    level: _Level, part: str, outgoing: list[npt.NDArray[Any]], lengths: Lengths, incoming: list[npt.NDArray[Any]]
) -> None:
    """Has the ranks of a host exchange bytes."""
    if level.window is None:
        np.copyto(incoming[0], outgoing[0])
        return
    home = level.home.within(part)
    shared.all_to_all(home, level.window, outgoing, lengths, incoming)
    shared.meet(home, "swapped")  # before the memory is used again


def _gathered_home(level: _Level, pieces: list[npt.NDArray[Any]], lengths: Lengths) -> npt.NDArray[Any]:
    """Returns all ranks' pieces on the leader, one rank's after the other's; elsewhere nothing."""
    home, leading = level.home, level.leaders is not None
    sums = [sum(row) for row in lengths]
    whole = np.empty(sum(sums) if leading else 0, np.uint8)
    into = _split(whole, sums) if leading else [whole] * home.size
    out = [whole[:0]] * home.size
    out[level.leader] = np.concatenate(pieces)
    rows = [[total if rank == level.leader else 0 for rank in range(home.size)] for total in sums]
    _swap_home(level, "out/", out, rows, into)
    return whole


def _scatter_home(level: _Level, whole: npt.NDArray[Any], lengths: Lengths, targets: list[npt.NDArray[Any]]) -> None:
    """Brings what the leader has of each rank abroad, for each rank here, to the latter."""
    home = level.home
    sums = [sum(row[rank] for row in lengths) for rank in range(home.size)]
    out = [whole[:0]] * home.size
    if level.leaders is not None:
        pieces = _split(whole, [length for row in lengths for length in row])
        out = [np.concatenate(pieces[rank :: home.size]) for rank in range(home.size)]
    into = [whole[:0]] * home.size
    into[level.leader] = np.empty(sums[home.rank], np.uint8)
    rows = [sums if rank == level.leader else [0] * home.size for rank in range(home.size)]
    _swap_home(level, "in/", out, rows, into)
    for target, piece in zip(targets, _split(into[level.leader], [target.size for target in targets]), strict=True):
        np.copyto(target, piece)


def _split(whole: npt.NDArray[Any], sizes: list[int]) -> list[npt.NDArray[Any]]:
    return [whole[start:stop] for start, stop in pairwise(accumulate(sizes, initial=0))]
