"""Who waits for room: actors one by one and whole groups, in the order in which they came."""

from __future__ import annotations

import time
from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.exceptions import PlacementError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable, Iterator

    from actors.address import Address
    from actors.demand import Demand
    from actors.node.choice import Obstacle
    from actors.spec import ActorSpec

Seat = tuple[str, int, int]
"""An actor's place in a group: the group's id, its rank, and how many there are."""

GROUP_SECONDS = 30.0  # in which all of a group must have come


@dataclass(slots=True, eq=False)
class Part:
    """One actor that waits."""

    spec: ActorSpec
    found: asyncio.Future[Address]


@dataclass(slots=True, eq=False)
class Wish:
    """One actor, or a whole group, that waits for room.

    Attributes:
        demand: what each asks for.
        since: when it came, on the loop's clock.
        came: the same, in seconds since 1970.
        turns: numbers by which it is spread.
        group: the group's id; empty for one alone.
        parts: those that wait, by rank.
        obstacle: why it is not placed, by the last look.
        warned: whether its driver was told.
        shape: equal for those that fit wherever this one fits.
        open: whether it waits still.
    """

    demand: Demand
    since: float
    came: float
    turns: list[int]
    group: str = ""
    parts: dict[int, Part] = field(default_factory=dict)
    obstacle: Obstacle | None = None
    warned: bool = False
    shape: Hashable = field(init=False)
    open: bool = True

    def __post_init__(self) -> None:
        demand = self.demand
        amounts = [frozenset((some or {}).items()) for some in (demand.needs, demand.holds, demand.selector)]
        self.shape = (*amounts, demand.node, demand.strategy, len(self.turns))

    @property
    def complete(self) -> bool:
        """Whether all of the group are here."""
        return len(self.parts) == len(self.turns)

    @property
    def deadline(self) -> float:
        """When it is to be refused, on the loop's clock."""
        return float("inf") if self.demand.timeout is None else self.since + self.demand.timeout

    @property
    def first(self) -> ActorSpec:
        """Whoever speaks for it in messages."""
        return next(iter(self.parts.values())).spec

    def ranks(self) -> list[Part]:
        """Returns those that wait, in the order of their ranks."""
        return [part for _, part in sorted(self.parts.items())]


class Waiting:
    """All that wait at one node. Pure, but for the futures that it settles. On the I/O loop."""

    def __init__(self) -> None:
        self._wishes: list[Wish] = []
        self._groups: dict[str, Wish] = {}

    def __iter__(self) -> Iterator[Wish]:
        return iter(list(self._wishes))  # it changes while it is served

    def __len__(self) -> int:
        return len(self._wishes)

    def add(self, part: Part, seat: Seat | None, since: float, turn: int) -> Wish:
        """One waits, or one more of a group.

        Args:
            part: who.
            seat: its place in its group; None for one alone.
            since: when it came first, on the loop's clock.
            turn: the number by which one alone is spread.
        """
        group, rank, size = seat if seat is not None else ("", 0, 1)
        wish = self._groups.get(group)
        if wish is None:
            came = time.time() - (part.found.get_loop().time() - since)
            wish = Wish(part.spec.demand, since, came, list(range(size)) if group else [turn], group)
            insort(self._wishes, wish, key=lambda waiting: waiting.since)
            if group:
                self._groups[group] = wish
        wish.parts[rank] = part
        return wish

    def drop(self, wish: Wish) -> None:
        """A wish waits no longer."""
        wish.open = False
        self._wishes.remove(wish)
        self._groups.pop(wish.group, None)

    def refuse(self, wish: Wish, error: Exception) -> None:
        """A wish will not come true."""
        self.drop(wish)
        for part in wish.parts.values():
            if not part.found.done():
                part.found.set_exception(error)

    def strike(self, wish: Wish, part: Part) -> None:
        """One waits no longer, for whatever reason: with it those that can only be placed together with it."""
        if wish.open:
            self.refuse(wish, PlacementError(f"{part.spec.label} of the same group was given up"))

    def gone(self, owner: str) -> None:
        """A process has ended: nobody needs places for its actors any more."""
        for wish in self:
            if wish.first.owner == owner:
                self.drop(wish)
                for part in wish.parts.values():
                    part.found.cancel()

    def refuse_incomplete(self, now: float) -> None:
        """Refuses the groups of which some have never come."""
        for wish in self:
            if not wish.complete and wish.since + GROUP_SECONDS <= now:
                missing = len(wish.turns) - len(wish.parts)
                self.refuse(wish, PlacementError(f"{missing} of its group never asked for a place"))

    def listed(self) -> list[dict[str, Any]]:
        """Returns each actor that waits: ``actor`` (its id), ``label``, ``demand``, ``why``, ``since`` (epoch)."""
        return [
            {
                "actor": part.spec.id, "label": part.spec.label, "demand": wish.demand.words,
                "why": str(wish.obstacle or "it has just come"), "since": wish.came,
            }
            for wish in self._wishes for part in wish.parts.values()
        ]  # fmt: skip
