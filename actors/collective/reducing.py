"""The collectives that reduce: what each offers, and what it does once all agree."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import pages
from actors.reduction import Reduction, check_reduction

from . import direct, mixed, ring, shared
from .agreement import Offer, inline
from .call import Call
from .estimates import MIXED, estimates, far_all_reduce
from .flow import cut
from .packing import Packed, pack, unpack
from .pieces import whole
from .ranks import check_rank
from .structure import Structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .channel import Channel
    from .packing import Spec
    from .pieces import Part
    from .window import Window


class AllReduce(Call):
    """Every rank gets the reduction of all ranks' arrays."""

    def __init__(self, size: int, x: object, op: str, deterministic: bool = False) -> None:
        self._ordered = _checked(deterministic)
        value = pack(x)
        self._spec, self._flat = value.spec, value.data
        if type(op) is not str:  # it may have no hash
            check_reduction(op, value.spec.name)
        self.reduction, terms = _planned(op, value.spec, size, deterministic)
        self.offer = Offer("allreduce", op, None, terms, (value.spec,), inline([value]))

    def prepare(self, channel: Channel) -> None:
        """Shows the others the array, if it is neither so small that it goes with the offer nor large."""
        if (window := self._window(channel)) is not None:
            shared.show(channel, window, self._flat)

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Returns the reduction, in the kind that this rank's array has."""
        if (window := self._window(channel)) is not None:
            flat = shared.reduce_shown(channel, window, self.reduction, self._flat.size, self._flat.dtype)
        elif self.offer.data is None:
            flat = _all_reduce(channel, self._flat, self.reduction, self._ordered)
        else:
            flat = self.reduction.fold([offer.data[0] for offer in offers if offer.data])
        return unpack(self._spec, flat)

    def _window(self, channel: Channel) -> Window | None:
        """Where the array is shown before the ranks agree; None where it goes another way."""
        return _window(channel, self.offer, self._flat.nbytes)


class AllReduceStructure(Call):
    """Every rank gets the reduction of all ranks' structures of arrays, array by array."""

    def __init__(self, size: int, x: object, op: str, deterministic: bool = False) -> None:
        self._ordered = _checked(deterministic)
        self._structure = structure = Structure.of(x)
        self._reductions = [_reduction(op, spec, size) for spec in structure.specs]
        self._nbytes = sum(spec.nbytes for spec in structure.specs)
        values = [Packed(spec, bucket) for spec, bucket in zip(structure.specs, structure.buckets, strict=True)]
        data = inline(values)
        joined = None if data is None else tuple([bucket.joined() for bucket in data])
        terms = said_of(structure.terms, deterministic)
        self.offer = Offer("allreduce", op, None, terms, tuple(structure.specs), joined)

    def prepare(self, channel: Channel) -> None:
        """Shows the others the arrays, as `AllReduce` does."""
        if (window := self._window(channel)) is not None:
            shared.show_pieces(channel, window, self._structure.buckets)

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Returns a structure like this rank's own."""
        buckets, reductions = self._structure.buckets, self._reductions
        if (window := self._window(channel)) is not None:
            flats = shared.reduce_shown_pieces(channel, window, reductions, buckets)
        elif self.offer.data is None:
            flats = [
                _all_reduce(channel.within(f"{index}/"), bucket, reduction, self._ordered)
                for index, (bucket, reduction) in enumerate(zip(buckets, reductions, strict=True))
            ]
        else:
            datas = [offer.data for offer in offers if offer.data is not None]
            flats = [reduction.fold([data[index] for data in datas]) for index, reduction in enumerate(reductions)]
        return self._structure.filled(flats)

    def _window(self, channel: Channel) -> Window | None:
        """As of `AllReduce`."""
        return _window(channel, self.offer, self._nbytes)


class Reduce(Call):
    """The root gets the reduction of all ranks' arrays."""

    def __init__(self, size: int, x: object, dst: int, op: str) -> None:
        self._root = check_rank(dst, size, "dst")
        value = pack(x)
        self._spec, self._flat = value.spec, value.data
        self._reduction = _reduction(op, value.spec, size)
        self.offer = Offer("reduce", op, self._root, str(value.spec), (value.spec,), inline([value]))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Returns the reduction on the root, None elsewhere."""
        if self.offer.data is None:
            flat = self._reduce(channel)
        elif channel.rank == self._root:
            flat = self._reduction.fold([offer.data[0] for offer in offers if offer.data])
        return unpack(self._spec, flat) if channel.rank == self._root else None

    def _reduce(self, channel: Channel) -> Any:
        """Reduces by segments, each on another rank, and brings them to the root."""
        terrain = channel.fabric.terrain
        if channel.engine is not None:
            return channel.engine.all_reduce(channel, self._flat, self._reduction)
        if terrain.shared or terrain.mixed:
            whole = self._spec.empty() if channel.rank == self._root else None
            if terrain.shared and terrain.window is not None:
                shared.all_reduce(channel, terrain.window, self._flat, self._reduction, whole)
            else:
                mixed.reduce(channel, self._root, self._flat, self._reduction, whole)
            return whole
        segments = cut(self._flat, channel.size)
        own = np.empty_like(segments[channel.rank])
        ring.reduce_scatter(channel, segments, self._reduction, own)
        result = self._spec.empty() if channel.rank == self._root else self._flat[:0]
        direct.gather(channel, self._root, own, cut(result, channel.size))
        return result


class ReduceScatter(Call):
    """Each rank gets its part, along axis 0, of the reduction of all ranks' arrays."""

    def __init__(self, size: int, x: object, op: str) -> None:
        value = pack(x)
        self._spec, self._flat = value.spec, value.data
        self._reduction = _reduction(op, value.spec, size)
        if not self._spec.shape:
            raise ValueError("reducescatter splits axis 0 and the array has none: give it one with reshape")
        rows = self._spec.shape[0]
        if rows % size:
            raise ValueError(f"reducescatter cannot split axis 0 of length {rows} over {size} ranks evenly")
        self._part = replace(self._spec, shape=(rows // size, *self._spec.shape[1:]))
        self.offer = Offer("reducescatter", op, None, str(value.spec), (value.spec,), inline([value]))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Returns this rank's part."""
        if self.offer.data is None:
            flat = self._part.empty()
            segments, terrain = cut(self._flat, channel.size), channel.fabric.terrain
            if terrain.shared and terrain.window is not None:
                shared.reduce_scatter(channel, terrain.window, segments, self._reduction, flat)
            elif terrain.mixed:
                mixed.reduce_scatter(channel, segments, self._reduction, flat)
            else:
                ring.reduce_scatter(channel, segments, self._reduction, flat)
        else:
            parts = [cut(offer.data[0], channel.size)[channel.rank] for offer in offers if offer.data]
            flat = self._reduction.fold(parts)
        return unpack(self._part, flat)


def _window(channel: Channel, offer: Offer, nbytes: int) -> Window | None:
    """Where so many bytes are shown before the ranks agree; None where they go another way."""
    terrain = channel.fabric.terrain
    large = offer.data is None and channel.engine is None
    return terrain.window if large and shared.shows(terrain, nbytes) else None


def _all_reduce(channel: Channel, value: Part, reduction: Reduction, ordered: bool) -> npt.NDArray[Any]:
    """Returns the reduction of all ranks' elements as a flat array, by the way that the ranks have.

    Args:
        channel: the ranks.
        value: this rank's elements, as a flat array or in pieces.
        reduction: how they become one.
        ordered: every element is reduced in rank order, whichever way that is.
    """
    terrain = channel.fabric.terrain
    if channel.engine is None and terrain.shared and terrain.window is not None:
        result = pages.empty(value.size, value.dtype)
        shared.all_reduce(channel, terrain.window, value, reduction, result)
        return result
    flat = whole(value)
    if channel.engine is not None:
        return channel.engine.all_reduce(channel, flat, reduction)
    if not ordered:
        if terrain.native is not None and (found := terrain.native.all_reduce(channel, flat, reduction)) is not None:
            return found
        best = next(iter(estimates(flat.nbytes, terrain)))
        mixes = best == MIXED
        return mixed.all_reduce(channel, flat, reduction) if mixes else far_all_reduce(channel, flat, reduction)
    result = pages.empty(flat.size, flat.dtype)
    segments = cut(result, channel.size)
    values = [np.empty_like(segments[channel.rank]) for _ in range(channel.size)]
    direct.all_to_all(channel, cut(flat, channel.size), values)
    reduction.fold_into(values, segments[channel.rank])
    ring.all_gather(channel, segments)
    return result


@lru_cache(maxsize=256)
def _planned(op: str, spec: Spec, ranks: int, deterministic: bool) -> tuple[Reduction, str]:
    """Returns how such arrays are reduced, and what must be the same on all ranks; most calls are like earlier ones."""
    return _reduction(op, spec, ranks), said_of(str(spec), deterministic)


def _checked(deterministic: object) -> bool:
    if type(deterministic) is not bool:  # a word such as "no" would be taken for True
        raise TypeError(f"deterministic must be True or False, not {deterministic!r}")
    return deterministic


def said_of(terms: str, deterministic: bool) -> str:
    """Returns what must be the same on all ranks of an all-reduce of what is ``terms`` in words."""
    return f"{terms}, deterministic=True" if deterministic else terms


def _reduction(op: str, spec: Spec, ranks: int) -> Reduction:
    if spec.kind == "object":
        raise TypeError("only numpy and MLX arrays can be reduced; make one of the value, as in numpy.asarray(value)")
    return Reduction(op, spec.name, ranks)
