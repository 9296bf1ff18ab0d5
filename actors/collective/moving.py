"""The collectives that move values unchanged: what each offers, and what it does once all agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import direct, mixed, ring, shared, tree
from .agreement import Offer, inline
from .call import Call
from .packing import Packed, Spec, is_array, pack, unpack
from .ranks import check_rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .channel import Channel


class Barrier(Call):
    """All ranks wait for each other."""

    offer = Offer("barrier")

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> None:
        """Does nothing more: having all offers means that all ranks have called."""


class Broadcast(Call):
    """Every rank gets the root's value. The others may pass None, or an array of the shape and dtype they expect."""

    def __init__(self, rank: int, size: int, x: object, src: int) -> None:
        self._root = check_rank(src, size, "src")
        # Off the root only arrays say anything; packing another object would pickle it for nobody.
        self._value = pack(x) if rank == self._root or is_array(x) else None
        terms = None if self._value is None else str(self._value.spec)
        brings = [self._value] if rank == self._root and self._value is not None else []
        specs = tuple(value.spec for value in brings)
        self.offer = Offer("broadcast", None, self._root, terms, specs, inline(brings))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Returns the root's value."""
        offer = offers[self._root]
        like = None if self._value is None else self._value.spec
        if offer.data is not None:
            return _unpack_own(offer.specs[0], offer.data[0], like)
        spec = offer.specs[0]
        flat, terrain = spec.empty(), channel.fabric.terrain
        source = self._value.data if channel.rank == self._root and self._value is not None else None
        if terrain.shared and terrain.window is not None and channel.engine is None:
            shared.broadcast(channel, terrain.window, self._root, flat, source)
            return unpack(spec, flat, like)
        if source is not None:
            np.copyto(flat, source)
        if channel.engine is not None:
            channel.engine.broadcast(channel, self._root, flat)
        elif terrain.mixed:
            mixed.broadcast(channel, self._root, flat)
        else:
            tree.broadcast(channel, self._root, flat)
        return unpack(spec, flat, like)


class AllGather(Call):
    """Every rank gets the list of all ranks' values."""

    def __init__(self, x: object) -> None:
        self._value = pack(x)
        spec = self._value.spec
        self.offer = Offer("allgather", None, None, str(spec), (spec,), inline([self._value]))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> list[Any]:
        """Returns the values in rank order."""
        spec = self._value.spec
        if self.offer.data is not None:
            return [_unpack_own(offer.specs[0], offer.data[0], spec) for offer in offers if offer.data]
        parts = self._gather(channel)
        return [unpack(offer.specs[0], part, spec) for offer, part in zip(offers, parts, strict=True)]

    def _gather(self, channel: Channel) -> list[Any]:
        terrain = channel.fabric.terrain
        if channel.engine is not None:
            return channel.engine.all_gather(channel, self._value.data)
        if terrain.mixed:
            return mixed.all_gather(channel, self._value.data)
        parts = [self._value.spec.empty() for _ in range(channel.size)]
        np.copyto(parts[channel.rank], self._value.data)
        if terrain.shared and terrain.window is not None:
            shared.all_gather(channel, terrain.window, parts)
        else:
            ring.all_gather(channel, parts)
        return parts


class Gather(Call):
    """The root gets the list of all ranks' values."""

    def __init__(self, size: int, x: object, dst: int) -> None:
        self._root = check_rank(dst, size, "dst")
        self._value = pack(x)
        spec = self._value.spec
        self.offer = Offer("gather", None, self._root, str(spec), (spec,), inline([self._value]))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> list[Any] | None:
        """Returns the values in rank order on the root, None elsewhere."""
        spec, at_root = self._value.spec, channel.rank == self._root
        if self.offer.data is not None:
            if not at_root:
                return None
            return [_unpack_own(offer.specs[0], offer.data[0], spec) for offer in offers if offer.data]
        parts = [spec.empty() for _ in offers] if at_root else []
        self._gather(channel, parts)
        if not at_root:
            return None
        return [unpack(offer.specs[0], part, spec) for offer, part in zip(offers, parts, strict=True)]

    def _gather(self, channel: Channel, parts: list[Any]) -> None:
        if not _by_memory(channel):
            direct.gather(channel, self._root, self._value.data, parts)
            return
        flat = self._value.data
        lengths = [[flat.nbytes if rank == self._root else 0 for rank in range(channel.size)]] * channel.size
        outgoing = [flat if rank == self._root else flat[:0] for rank in range(channel.size)]
        _swap(channel, outgoing, lengths, parts or [np.empty(0, flat.dtype)] * channel.size, self._root)


class Scatter(Call):
    """Each rank gets its item of the root's list; what the others pass is not looked at."""

    def __init__(self, rank: int, size: int, xs: object, src: int) -> None:
        self._root = check_rank(src, size, "src")
        self._values = _pack_list(xs, size, "scatter") if rank == self._root else []
        specs = tuple(value.spec for value in self._values)
        self.offer = Offer("scatter", None, self._root, None, specs, inline(self._values))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:
        """Returns this rank's item."""
        offer = offers[self._root]
        spec = offer.specs[channel.rank]
        if offer.data is not None:
            return _unpack_own(spec, offer.data[channel.rank])
        flat = spec.empty()
        if _by_memory(channel):
            lengths = [[0] * channel.size for _ in range(channel.size)]
            lengths[self._root] = [each.nbytes for each in offer.specs]
            incoming = [flat if rank == self._root else np.empty(0, flat.dtype) for rank in range(channel.size)]
            outgoing = [value.data for value in self._values] or [flat[:0]] * channel.size
            _swap(channel, outgoing, lengths, incoming, self._root)
        else:
            direct.scatter(channel, self._root, [value.data for value in self._values], flat)
        return unpack(spec, flat)


class AllToAll(Call):
    """Item ``j`` of rank ``i``'s list becomes item ``i`` of rank ``j``'s. Shapes may differ, dtypes may not."""

    def __init__(self, size: int, xs: object) -> None:
        self._values = _pack_list(xs, size, "alltoall")
        specs = tuple(value.spec for value in self._values)
        names = sorted({spec.name for spec in specs if spec.kind != "object"})
        terms = f"{' and '.join(names)} arrays" if names else None
        self.offer = Offer("alltoall", None, None, terms, specs, inline(self._values))

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> list[Any]:
        """Returns the items meant for this rank, in rank order."""
        rank = channel.rank
        nothing = np.empty(0)
        outgoing = [value.data if self.offer.data is None else nothing for value in self._values]
        incoming = [offer.specs[rank].empty() if offer.data is None else nothing for offer in offers]
        if _by_memory(channel):
            lengths = [[0 if o.data is not None else spec.nbytes for spec in o.specs] for o in offers]
            _swap(channel, outgoing, lengths, incoming)
        else:
            direct.all_to_all(channel, outgoing, incoming)
        return [
            unpack(offer.specs[rank], flat) if offer.data is None else _unpack_own(offer.specs[rank], offer.data[rank])
            for offer, flat in zip(offers, incoming, strict=True)
        ]


def _by_memory(channel: Channel) -> bool:
    """Whether some ranks share memory, and arrays go through it."""
    terrain = channel.fabric.terrain
    return channel.engine is None and (terrain.shared or terrain.mixed)


def _swap(
    channel: Channel, outgoing: list[Any], lengths: mixed.Lengths, incoming: list[Any], root: int | None = None
) -> None:
    """Brings what each rank has for each to it, through memory where they share it."""
    terrain = channel.fabric.terrain
    if terrain.shared and terrain.window is not None:
        shared.all_to_all(channel, terrain.window, outgoing, lengths, incoming)
    else:
        mixed.all_to_all(channel, outgoing, lengths, incoming, root)


def _pack_list(xs: object, size: int, call: str) -> list[Packed]:
    if not isinstance(xs, list | tuple):
        raise TypeError(f"{call} takes a list with one item for each rank, not {type(xs).__name__}")
    if len(xs) != size:
        raise ValueError(f"{call} takes one item for each of the {size} ranks, not {len(xs)}")
    return [pack(x) for x in xs]


def _unpack_own(spec: Spec, data: Any, like: Spec | None = None) -> Any:
    """Unpacks into memory of the caller's own: what came with an offer is read-only, or the sender's."""
    return unpack(spec, data if spec.kind == "object" else data.copy(), like)
