"""Wards: the actors of other nodes that this one would take over, with the states that were saved last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.messages import Payload
    from actors.node.copies import Ward


@dataclass(slots=True)
class _Kept:
    ward: Ward
    term: int
    serial: int
    state: Payload | None


class Wards:
    """What is kept of them. Of two things told of one actor, that of the later term counts, or of the later serial."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def __contains__(self, actor: str) -> bool:
        return actor in self._kept

    def __iter__(self) -> Iterator[tuple[str, Ward]]:
        """Gives each actor with its ward, whose state may be old."""
        return iter([(actor, kept.ward) for actor, kept in self._kept.items()])

    def keep(self, ward: Ward) -> bool:
        """Keeps an actor; returns False where one of a later term is kept."""
        actor = ward.construction.spec.id
        known = self._kept.get(actor)
        if known is not None and known.term > ward.term:
            return False
        if known is None or (known.term, known.serial) <= (ward.term, ward.serial):
            self._kept[actor] = _Kept(ward, ward.term, ward.serial, ward.construction.state)
        return True

    def update(self, actor: str, term: int, serial: int, state: Payload) -> bool:
        """Keeps a state; returns False where the actor is kept by a later term.

        Raises:
            LookupError: the actor is not kept, or a later state is: whoever sends this one may do so no more.
        """
        known = self._kept.get(actor)
        if known is None:
            raise LookupError(f"{actor} is not kept here")
        if known.term > term:
            return False
        if (known.term, known.serial) >= (term, serial):
            raise LookupError(f"a later state of {actor} is kept here, or was asked for")
        known.term, known.serial, known.state = term, serial, state
        return True

    def recall(self, actor: str, term: int, serial: int) -> tuple[int, Payload] | None:
        """Takes no state before ``serial`` any more; returns the one that is kept, and its serial, if one is."""
        known = self._kept.get(actor)
        if known is None or (known.term, known.serial) >= (term, serial):
            return None
        found = known.serial, known.state
        known.term, known.serial = term, serial
        return None if found[1] is None else (found[0], found[1])

    def drop(self, actor: str, term: int) -> None:
        """Keeps an actor no more, unless by a later term."""
        known = self._kept.get(actor)
        if known is not None and known.term <= term:
            del self._kept[actor]

    def find(self, actor: str) -> Ward | None:
        """Returns an actor as it was when its state was saved last."""
        known = self._kept.get(actor)
        if known is None:
            return None
        construction = replace(known.ward.construction, state=known.state)
        return replace(known.ward, construction=construction, term=known.term, serial=known.serial)

    def take(self, actor: str) -> Ward | None:
        """As `find`, and keeps it no more."""
        ward = self.find(actor)
        self._kept.pop(actor, None)
        return ward
