"""One call's view of the fabric: its own tags, its own deadline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .engine import Engine
    from .fabric import Fabric


LATE = 0.1  # seconds after the deadline: no process takes so long to see it that is not held up
MOST_LATE = 0.5


class SilentRankError(Exception):
    """A rank sent nothing until the deadline; it may itself be waiting for another.

    Attributes:
        rank: the rank waited for.
        unheard: ranks not heard from at all, any of which may be the cause; empty where only ``rank`` can be.
    """

    def __init__(self, rank: int, unheard: Sequence[int] = ()) -> None:
        super().__init__(f"rank {rank} is silent")
        self.rank = rank
        self.unheard = tuple(unheard)


@dataclass(frozen=True, slots=True)
class Channel:
    """Tagged send and receive for one collective call, the only thing an algorithm knows of the world.

    Attributes:
        fabric: what carries the messages.
        call: number of the call in its group; keeps calls apart.
        deadline: when this call gives up, on the clock of ``time.monotonic``.
        part: keeps apart what one call does several times.
        ranks: the members that take part, by their numbers in the group; None for all.
        engine: MLX's own collectives, where the group was made for them.
    """

    fabric: Fabric
    call: int
    deadline: float
    part: str = ""
    ranks: tuple[int, ...] | None = None
    engine: Engine | None = None

    @property
    def rank(self) -> int:
        """Number of this member."""
        return self.fabric.rank if self.ranks is None else self.ranks.index(self.fabric.rank)

    @property
    def size(self) -> int:
        """How many members take part."""
        return self.fabric.size if self.ranks is None else len(self.ranks)

    def among(self, ranks: tuple[int, ...], part: str) -> Channel:
        """Returns the channel of some of the ranks, numbered in this order, this one among them.

        Args:
            ranks: their numbers in the group.
            part: keeps their messages apart from those of the others.
        """
        return replace(self, ranks=ranks, part=self.part + part)

    def within(self, part: str) -> Channel:
        """Returns the channel of the same ranks for a part of the call."""
        return replace(self, part=self.part + part)

    def send(self, dst: int, step: str, value: object, *, lent: bool = False) -> None:
        """Hands ``value`` over for rank ``dst`` under the name ``step``; what is lent, see `Fabric.send`.

        Raises:
            CollectiveError: the rank has died or the group was aborted.
        """
        to = dst if self.ranks is None else self.ranks[dst]
        self.fabric.send(to, f"{self.call}/{self.part}{step}", value, lent=lent)

    def recv(self, src: int, step: str, unheard: Sequence[int] = ()) -> Any:
        """Returns what rank ``src`` sent under the name ``step``.

        Raises:
            CollectiveError: the rank has died or the group was aborted.
            SilentRankError: nothing came until the deadline.
        """
        source = src if self.ranks is None else self.ranks[src]
        tag = f"{self.call}/{self.part}{step}"
        try:
            return self.fabric.recv(source, tag, self.deadline)
        except TimeoutError:
            pass
        try:
            # A process that stood still, as on a device that slept, has not read yet what came meanwhile.
            now = self.fabric.now()
            late = now - self.deadline
            return self.fabric.recv(source, tag, now + min(late, MOST_LATE) if late > LATE else self.deadline)
        except TimeoutError:
            raise SilentRankError(source, unheard) from None
