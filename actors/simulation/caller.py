"""Who calls the simulated actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .faults import SPAN_SECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from .incarnation import Incarnation
    from .world import World


class Caller:
    """Makes calls, in order, and hears what became of them."""

    def __init__(
        self,
        world: World,
        number: int,
        calls: int,
        script: Callable[[random.Random, int, int], tuple[str, tuple[Any, ...]]] | None,
    ) -> None:
        self.number = number
        self.made = 0
        self.answers: dict[int, tuple[str, Any]] = {}
        self._world = world
        self._script = script
        self._line: list[int] = []  # to be sent, by number
        self._calls: dict[int, tuple[str, tuple[Any, ...]]] = {}
        self._out: set[int] = set()  # sent and not answered
        self._tried: dict[int, int] = {}
        self._life: Incarnation | None = None
        self._gone = False
        for moment in sorted(world.chance.uniform(0, SPAN_SECONDS) for _ in range(calls)):
            world.at(moment, self._call)

    def _call(self) -> None:
        number, self.made = self.made, self.made + 1
        chance = self._world.chance
        self._calls[number] = (
            self._script(chance, self.number, number) if self._script is not None else ("enter", (self.number, number))
        )
        if self._gone:
            self._end(number, ("never started", None))
            return
        self._line.append(number)
        self._pump()

    def _pump(self) -> None:
        if self._life is None:
            return
        for number in sorted(self._line):
            self._out.add(number)
            self._life.wires[self.number].ends[0].post((number, *self._calls[number]))
        self._line.clear()

    def found(self, life: Incarnation) -> None:
        """It hears where the actor is."""
        if not life.dead and self._life is None:  # else it has yet to hear that the one before is gone
            self._life = life
            self._pump()

    def answered(self, message: Any) -> None:
        """An answer has come."""
        number, answer = message
        if answer[0] == "ended":
            return  # it goes back in line when its process has ended
        assert number in self._out, f"call {number} of {self.number} was answered twice"
        self._out.discard(number)
        self._end(number, answer)

    def lost(self, life: Incarnation, moved: bool, final: bool) -> None:
        """A process has died: what it cannot have seen goes elsewhere, the rest has a verdict."""
        self._gone = self._gone or final
        if self._life is life or self._life is None:
            self._life = None
            unsent = {message[0] for message in life.wires[self.number].ends[0].session.never_written()}
            for number in sorted(self._out):
                self._out.discard(number)
                tries = self._tried.get(number, self._world.retries)
                if final and number in unsent:
                    self._end(number, ("never started", None))
                elif moved or number in unsent:
                    self._line.append(number)
                elif tries and not final:
                    self._tried[number] = tries - (tries > 0)
                    self._line.append(number)
                else:
                    self._end(number, ("may have run", None))
        if self._gone:
            for number in self._line:
                self._end(number, ("never started" if number not in self._tried else "may have run", None))
            self._line.clear()
        newest = self._world.life
        if newest is not None and not newest.dead:
            self.found(newest)

    def _end(self, number: int, answer: tuple[str, Any]) -> None:
        assert number not in self.answers, f"call {number} of {self.number} was answered twice"
        self.answers[number] = answer
        self._world.note(f"call {number} of {self.number}: {answer[0]}")
