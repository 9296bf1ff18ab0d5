"""Where the ranks of a group are: which of them share memory, and what the ways between them cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.costs import Costs

    from .board import Board
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
    """

    islands: Islands
    costs: Costs
    why: str
    window: Window | None = None
    board: Board | None = None

    @property
    def shared(self) -> bool:
        """Whether all ranks share memory."""
        return len(self.islands) == 1 and self.window is not None

    @property
    def mixed(self) -> bool:
        """Whether there are several islands, and some ranks share memory."""
        return len(self.islands) > 1 and any(len(island) > 1 for island in self.islands)


def scattered(size: int, costs: Costs, why: str) -> Terrain:
    """Returns the terrain of ranks of which none shares memory with another."""
    return Terrain(tuple((rank,) for rank in range(size)), costs, why)
