"""What a run came to, and the actor of runs that are given none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faults import Fault


@dataclass(slots=True)
class Outcome:
    """What a run came to.

    Attributes:
        events: how many there were.
        seconds: of simulated time.
        ran: for each start of a call who made it, its number there, and in which life of the actor.
        answers: for each caller what its calls came to, by number: ``("value", …)``, ``("raised", …)``,
            ``("never started", …)`` or ``("may have run", …)``.
        lives: how often the actor was made.
        faults: what went wrong.
        trace: what happened, for people; empty unless it was asked for.
    """

    events: int = 0
    seconds: float = 0.0
    ran: list[tuple[int, int, int]] = field(default_factory=list)
    answers: list[dict[int, tuple[str, Any]]] = field(default_factory=list)
    lives: int = 0
    faults: tuple[Fault, ...] = ()
    trace: list[str] = field(default_factory=list)


class Journal:
    """The actor where no other is given: it writes down who called."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, int]] = []

    def enter(self, caller: int, number: int) -> int:
        """Writes a call down; returns how many there are."""
        self.entries.append((caller, number))
        return len(self.entries)

    def __actor_save__(self) -> list[tuple[int, int]]:
        """Returns what was written."""
        return list(self.entries)

    def __actor_load__(self, entries: list[tuple[int, int]]) -> None:
        """Takes it up again."""
        self.entries = list(entries)
