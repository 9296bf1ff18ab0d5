"""One life of the simulated actor."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from .caller import Caller
    from .world import World


class Incarnation:
    """One life of the actor, in a process of its own."""

    def __init__(self, world: World, number: int, state: Any) -> None:
        self.number = number
        self.dead = False
        self.thing = world.make()
        if state is not None:
            self.thing.__actor_load__(state)
        self._world = world
        self._mailbox: deque[tuple[Caller, int, str, tuple[Any, ...]]] = deque()
        self._busy = False
        self._moved = False
        self._until = 0.0
        self._waits: deque[tuple[Caller, int, tuple[str, Any]]] = deque()  # for the owner to have the state
        self.wires = [Wire(world, caller.answered, self._arrived(caller)) for caller in world.callers]
        self.wires.append(Wire(world, self._saved, self._owner_takes))  # to the owner

    def _arrived(self, caller: Caller) -> Callable[[Any], None]:
        def take(message: Any) -> None:
            number, method, args = message
            if self._moved:
                self._reply(caller, number, ("ended", None))
                return
            self._mailbox.append((caller, number, method, args))
            self._turn()

        return take

    def stall(self, seconds: float) -> None:
        """It stands still for a while."""
        self._until = max(self._until, self._world.now + seconds)

    def _turn(self) -> None:
        if self._mailbox and not self._busy:
            self._busy = True
            self._world.at(max(self._until, self._world.now + self._world.chance.expovariate(5000)), self._execute)

    def _execute(self) -> None:
        if self.dead or self._moved or not self._mailbox:
            return
        world = self._world
        if self._until > world.now:
            world.at(self._until, self._execute)
            return
        caller, number, method, args = self._mailbox.popleft()
        world.outcome.ran.append((caller.number, number, self.number))
        world.note(f"life {self.number} runs call {number} of {caller.number}: {method}{args}")
        try:
            answer = ("value", getattr(self.thing, method)(*args))
        except Exception as error:
            answer = ("raised", error)
        if world.saves:
            self._waits.append((caller, number, answer))
            self.wires[-1].ends[0].post(self.thing.__actor_save__())
        else:
            self._reply(caller, number, answer)
            self._over()

    def _owner_takes(self, state: Any) -> None:
        if not self.dead:
            self._world.state = state
            self.wires[-1].ends[1].post("saved")

    def _saved(self, _: Any) -> None:
        if not self.dead and self._waits:
            self._reply(*self._waits.popleft())
            self._over()

    def _over(self) -> None:
        self._busy = False
        self._turn()

    def _reply(self, caller: Caller, number: int, answer: tuple[str, Any]) -> None:
        self.wires[caller.number].ends[1].post((number, answer))

    def depart(self) -> None:
        """It moves between two calls; the old process stays until every caller has its answers."""
        world = self._world
        if self.dead or self._moved or not world.saves:
            return
        if self._busy and (self._waits or self._mailbox):  # one runs
            world.after(0.001, self.depart)
            return
        self._moved = True
        world.state = self.thing.__actor_save__()
        for caller, number, _, _ in self._mailbox:
            self._reply(caller, number, ("ended", None))
        self._mailbox.clear()
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        if self.dead:
            return
        if all(wire.ends[1].session.idle for wire in self.wires):
            self._close(moved=True)
        else:
            self._world.after(0.01, self._end_when_idle)

    def die(self) -> None:
        """Its process dies."""
        # What it has answered and not let out is lost with it; after a move the state is elsewhere already.
        self._close(moved=False)

    def _close(self, *, moved: bool) -> None:
        self.dead = True
        self._world.note(f"life {self.number} {'has moved' if moved else 'dies'}")
        for wire in self.wires:
            wire.closed = True
        self._world.died(self, moved=moved)
