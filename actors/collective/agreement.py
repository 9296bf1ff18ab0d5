"""What each rank says before a payload moves, and whether all say the same."""

from __future__ import annotations

import marshal
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np

from . import direct, dissemination
from .packing import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .channel import Channel
    from .packing import Packed

INLINE_BYTES = 64 * 1024
"""A rank's values up to this many bytes travel with its offer, so that a small collective is one round."""

_LENGTH = Struct("<I")
_ALIGNMENT = 16
_MARSHAL = 2  # what every Python reads; later versions are for code

DIRECT_RANKS = 8
"""In groups up to this size every rank hears each other one itself and knows exactly who is missing."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What one rank is about to do.

    Attributes:
        call: name of the collective.
        op: name of the reduction, where there is one.
        root: rank that sends or receives, where there is one.
        terms: what else must be the same on all ranks, in words; None goes along with anything.
        specs: what the rank brings.
        data: the elements it brings, where they are small; None where they follow.
        fault: why the rank cannot take part.
    """

    call: str
    op: str | None = None
    root: int | None = None
    terms: str | None = None
    specs: tuple[Spec, ...] = ()
    data: tuple[Any, ...] | None = None
    fault: str | None = None

    def __str__(self) -> str:
        words = [] if self.terms is None else [self.terms]
        words += [] if self.op is None else [f"op={self.op!r}"]
        words += [] if self.root is None else [f"root {self.root}"]
        return f"{self.call}({', '.join(words)})"

    def packed(self) -> bytes | tuple[Any, ...]:
        """Returns it as it travels: a header, which is made once, and the elements; else as `plain` has it."""
        data = self.data or ()
        if not all(type(item) is np.ndarray and item.nbytes <= INLINE_BYTES for item in data):
            return self.plain()
        try:
            header = _header(self.call, self.op, self.root, self.terms, self.specs, self.fault, self.data is not None)
        except ValueError:  # a structured dtype
            return self.plain()
        return b"".join([header, *[item.tobytes() for item in data]])

    def plain(self) -> tuple[Any, ...]:
        """Returns the same as a tuple of plain values: to pickle the offer itself takes ten times as long."""
        specs = tuple(spec.plain() for spec in self.specs)
        data = None if self.data is None else tuple(_plain(item) for item in self.data)
        return self.call, self.op, self.root, self.terms, specs, data, self.fault

    @classmethod
    def of(cls, plain: tuple[Any, ...]) -> Offer:
        """Makes what `plain` was returned by; elements in it are read-only."""
        call, op, root, terms, plain_specs, items, fault = plain
        specs = tuple(Spec.of(spec) for spec in plain_specs)
        data = None
        if items is not None:
            pairs = zip(specs, items, strict=True)
            data = tuple(spec.laid(item) if isinstance(item, bytes) else item for spec, item in pairs)
        return cls(call, op, root, terms, specs, data, fault)

    @classmethod
    def read(cls, packed: bytes | tuple[Any, ...], own: Offer, header: bytes) -> Offer:
        """Makes what `packed` was returned by at another rank.

        Args:
            packed: what that rank has said.
            own: this rank's offer, which is nearly always the same but for the elements.
            header: of that.
        """
        if not isinstance(packed, bytes):
            return cls.of(packed)
        if packed.startswith(header):
            start = len(header)
            call, op, root, terms, specs, fault = own.call, own.op, own.root, own.terms, own.specs, own.fault
            has_data = own.data is not None
        else:
            start = _LENGTH.size + _LENGTH.unpack_from(packed)[0]
            # What other ranks send is trusted: it may as well be a pickle.
            said = marshal.loads(memoryview(packed)[_LENGTH.size : start])  # noqa: S302
            call, op, root, terms, plain_specs, fault, has_data = said
            specs = tuple(Spec.of(spec) for spec in plain_specs)
        if not has_data:
            return cls(call, op, root, terms, specs, None, fault)
        items = []
        for spec in specs:
            items.append(spec.laid(packed, start))
            start += spec.nbytes
        return cls(call, op, root, terms, specs, tuple(items), fault)


def inline(values: Sequence[Packed]) -> tuple[Any, ...] | None:
    """Returns the values' elements if they travel with the offer: those of few bytes, and objects."""
    if sum(value.spec.nbytes for value in values) <= INLINE_BYTES or any(v.spec.kind == "object" for v in values):
        return tuple(value.data for value in values)
    return None


def exchange(channel: Channel, offer: Offer) -> list[Offer]:
    """Gives every rank the offers of all, in rank order, in one round of messages."""
    own, board = offer.packed(), channel.fabric.terrain.board
    if board is not None:
        said = board.exchange(channel, own)
    else:
        algorithm = direct.exchange if channel.size <= DIRECT_RANKS else dissemination.exchange
        said = algorithm(channel, own)
    return heard(offer, own, said, channel.rank)


def heard(offer: Offer, own: bytes | tuple[Any, ...], said: Sequence[Any], rank: int) -> list[Offer]:
    """Returns what all ranks have offered, in rank order.

    Args:
        offer: this rank's.
        own: the same as it travelled.
        said: what came of each rank.
        rank: this one.
    """
    header = own[: _LENGTH.size + _LENGTH.unpack_from(own)[0]] if isinstance(own, bytes) else b"-"
    return [offer if other == rank else Offer.read(packed, offer, header) for other, packed in enumerate(said)]


@lru_cache(maxsize=256)
def _header(  # noqa: PLR0917 - an offer's own fields
    call: str,
    op: str | None,
    root: int | None,
    terms: str | None,
    specs: tuple[Spec, ...],
    fault: str | None,
    has_data: bool,
) -> bytes:
    """Returns what an offer says apart from its elements, its length first; elements after it are aligned."""
    plain = marshal.dumps((call, op, root, terms, tuple(spec.plain() for spec in specs), fault, has_data), _MARSHAL)
    length = -(-(len(plain) + _LENGTH.size) // _ALIGNMENT) * _ALIGNMENT - _LENGTH.size
    return _LENGTH.pack(length) + plain.ljust(length)


def disagreement(offers: Sequence[Offer], describe: Callable[[int], str]) -> str | None:
    """Returns what is wrong with the offers, naming the ranks, or None. The same on every rank."""
    first = offers[0]
    said = (first.call, first.op, first.root, first.terms, None)
    if all((offer.call, offer.op, offer.root, offer.terms, offer.fault) == said for offer in offers):
        return None  # nearly always
    faults = [f"{describe(rank)}: {offer.fault}" for rank, offer in enumerate(offers) if offer.fault is not None]
    if faults:
        call = next(offer.call for offer in offers if offer.fault is not None)
        return f"{call} was not done, since not every rank could take part: {'; '.join(faults)}"
    sides: dict[str, list[int]] = {}
    for rank, offer in enumerate(offers):
        # Who goes along with anything is on the side of the first that does not.
        terms = (other.terms for other in (offer, *offers) if other.call == offer.call and other.terms is not None)
        side = Offer(offer.call, offer.op, offer.root, next(terms, None))
        sides.setdefault(str(side), []).append(rank)
    if len(sides) == 1:
        return None
    told = "; ".join(f"{_ranks(ranks, describe)}: {side}" for side, ranks in sides.items())
    return f"the ranks do not call the same. {told}. Make the calls equal and call again; nothing was sent"


def _ranks(ranks: Sequence[int], describe: Callable[[int], str]) -> str:
    named = ", ".join(describe(rank) for rank in ranks[:3])
    return named if len(ranks) <= 3 else f"{named} and {len(ranks) - 3} more"


def _plain(item: Any) -> Any:
    # An array that came along with objects may be large: its pickle refers to the memory it lies in.
    return item.tobytes() if isinstance(item, np.ndarray) and item.nbytes <= INLINE_BYTES else item
