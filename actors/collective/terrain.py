"""Where the ranks of a group are: which of them share memory, and what the ways between them cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy.typing as npt

    from actors.costs import Costs
    from actors.reduction import Reduction

    from .board import Board
    from .channel import Channel
    from .window import Window

Islands = tuple[tuple[int, ...], ...]
"""Ranks that share memory, host by host; a rank that shares none is an island of its own."""


@dataclass(frozen=True, slots=True)
class Terrain:
    """Where the ranks are, as one of them sees it. All but the window and the board is the same on every rank.

    Attributes:
        islands: who shares memory with whom.
        costs: what the ways cost.
        why: why that is so, in words.
        window: the memory that this rank shares with the others of its island; None where it is alone.
        board: where all ranks post what is small; None unless all share memory.
        native: an all-reduce that the ranks have from elsewhere; None where there is none.
    """

    islands: Islands
    costs: Costs
    why: str
    window: Window | None = None
    board: Board | None = None
    native: NativeAllReduce | None = None

    @property
    def shared(self) -> bool:
        """Whether all ranks share memory."""
        return len(self.islands) == 1 and self.window is not None

    @property
    def mixed(self) -> bool:
        """Whether there are several islands, and some ranks share memory."""
        return len(self.islands) > 1 and any(len(island) > 1 for island in self.islands)


class NativeAllReduce(Protocol):
    """All-reduce of a library that has connections of its own to all ranks."""

    def all_reduce(self, channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any] | None:
        """Returns the reduction of all ranks' flat arrays; None, on all ranks alike, where it has not that one.

        Raises:
            CollectiveError: a rank has died or the group was aborted.
            SilentRankError: a rank did not come until the deadline.
        """


def scattered(size: int, costs: Costs, why: str, native: NativeAllReduce | None = None) -> Terrain:
    """Returns the terrain of ranks of which none shares memory with another."""
    return Terrain(tuple((rank,) for rank in range(size)), costs, why, native=native)
