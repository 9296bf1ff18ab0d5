"""The simulated world: clock, chance, what is to happen, and the promises that are looked at in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.life import Life, State

from .caller import Caller
from .incarnation import Incarnation
from .network import Network
from .outcome import Journal

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from .faults import Fault

SLOWEST_SECONDS = 0.5


class World(Network):
    """Callers, an actor, and what is to happen."""

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        seed: int,
        actor: Callable[[], Any],
        script: Callable[[random.Random, int, int], tuple[str, tuple[Any, ...]]] | None,
        callers: int,
        calls: int,
        faults: Sequence[Fault],
        max_restarts: int,
        retries: int,
        trace: bool,
    ) -> None:
        super().__init__(f"world/{seed}", faults, SLOWEST_SECONDS, trace)
        self.make = actor
        self.fate = Life(max_restarts)
        self.life: Incarnation | None = None
        self.state: Any = None
        self.saves = hasattr(actor, "__actor_save__")
        self.retries = retries
        self.callers = [Caller(self, number, calls, script) for number in range(callers)]
        self.outcome.answers = [caller.answers for caller in self.callers]
        for fault in faults:
            self.at(fault.at, self._strike, fault)
        self.live()

    def run(self) -> None:
        """Lets all happen, and looks whether the promises hold."""
        self.outcome.events, self.outcome.seconds = self.run_out(), self.now
        self._judge()

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        life = self.life
        if life is None or life.dead:
            return
        self.note(f"{fault.kind} of {fault.whom}")
        if fault.kind == "cut":
            life.wires[fault.whom].cut(fault.seconds)
        elif fault.kind == "crash":
            life.die()
        elif fault.kind == "stall":
            life.stall(fault.seconds)
        else:
            life.depart()

    # -- the owner ----------------------------------------------------------------------------------------------

    def live(self) -> None:
        """The actor is made, or made anew."""
        self.outcome.lives += 1
        self.fate.placed()
        self.life = Incarnation(self, self.outcome.lives, self.state)
        self.note(f"life {self.life.number} begins")
        for caller in self.callers:
            self.after(self.delay(), caller.found, self.life)

    def died(self, life: Incarnation, *, moved: bool) -> None:
        """The owner hears of the end of a life."""
        if moved or self.fate.died(intended=False):
            self.after(0.1, self.live)
        for caller in self.callers:
            self.after(self.delay(), caller.lost, life, moved, self.fate.doomed and not moved)

    # -- the promises -------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        counts: dict[tuple[int, int], int] = {}
        latest: dict[tuple[int, int], int] = {}
        for who, number, life in self.outcome.ran:
            counts[who, number] = counts.get((who, number), 0) + 1
            if not self.retries:
                assert latest.get((who, life), -1) < number, f"call {number} of {who} started out of order"
            latest[who, life] = number
        for caller in self.callers:
            for number in range(caller.made):
                call = f"call {number} of {caller.number}"
                assert number in caller.answers, f"{call} was never answered"
                verdict, times = caller.answers[number][0], counts.get((caller.number, number), 0)
                assert self.retries or times <= 1, f"{call} ran {times} times"
                assert verdict != "never started" or not times, f"{call} ran, and never started"
                assert verdict != "value" or times, f"{call} was answered and never ran"
        thing = self.life.thing if self.life is not None else None
        if isinstance(thing, Journal) and self.saves and self.fate.state is not State.DEAD:
            kept = set(thing.entries)
            for caller in self.callers:
                for number, (verdict, _) in caller.answers.items():
                    lost = verdict == "value" and (caller.number, number) not in kept
                    assert not lost, f"call {number} of {caller.number} was acknowledged, and its effect is lost"
