"""What each rank says before a payload moves, and whether all say the same."""

from __future__ import annotations

import marshal
from dataclasses import dataclass
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
        """Returns `plain` as bytes where it holds nothing but plain values, of which those are made fastest."""
        plain = self.plain()
        if self.data is not None and not all(type(item) is bytes for item in plain[5]):
            return plain
        try:
            return marshal.dumps(plain, _MARSHAL)
        except ValueError:  # a structured dtype
            return plain

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


def inline(values: Sequence[Packed]) -> tuple[Any, ...] | None:
    """Returns the values' elements if they travel with the offer: those of few bytes, and objects."""
    if sum(value.spec.nbytes for value in values) <= INLINE_BYTES or any(v.spec.kind == "object" for v in values):
        return tuple(value.data for value in values)
    return None


def exchange(channel: Channel, offer: Offer) -> list[Offer]:
    """Gives every rank the offers of all, in rank order, in one round of messages."""
    algorithm = direct.exchange if channel.size <= DIRECT_RANKS else dissemination.exchange
    said = algorithm(channel, offer.packed())
    return [offer if rank == channel.rank else Offer.of(_opened(plain)) for rank, plain in enumerate(said)]


def _opened(packed: bytes | tuple[Any, ...]) -> tuple[Any, ...]:
    # What other ranks send is trusted: it may as well be a pickle.
    return marshal.loads(packed) if isinstance(packed, bytes) else packed  # noqa: S302


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
