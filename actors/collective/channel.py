"""One call's view of the fabric: its own tags, its own deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fabric import Fabric


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
    """

    fabric: Fabric
    call: int
    deadline: float
    part: str = ""

    @property
    def rank(self) -> int:
        """Number of this member."""
        return self.fabric.rank

    @property
    def size(self) -> int:
        """How many members take part."""
        return self.fabric.size

    def send(self, dst: int, step: str, value: object) -> None:
        """Hands ``value`` over for rank ``dst`` under the name ``step``.

        Raises:
            CollectiveError: the rank has died or the group was aborted.
        """
        self.fabric.send(dst, f"{self.call}/{self.part}{step}", value)

    def recv(self, src: int, step: str, unheard: Sequence[int] = ()) -> Any:
        """Returns what rank ``src`` sent under the name ``step``.

        Raises:
            CollectiveError: the rank has died or the group was aborted.
            SilentRankError: nothing came until the deadline.
        """
        try:
            return self.fabric.recv(src, f"{self.call}/{self.part}{step}", self.deadline)
        except TimeoutError:
            raise SilentRankError(src, unheard) from None
