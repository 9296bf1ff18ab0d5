"""Ownership on the simulated network: values are passed on from process to process, dropped, and given up in the end.

What counts is the runtime's own `Holdings`, with the passages of its conversations; what carries the messages is its
own `Session`. Connections are cut, processes die, and processes stand still while their clocks go on.
"""

from __future__ import annotations

import random
import weakref
from typing import TYPE_CHECKING, Any

from actors.address import Address
from actors.holdings import GRACE_SECONDS, Holdings

from .faults import SPAN_SECONDS, Fault
from .network import Loop, Network
from .running import held
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.holdings import Change, Hold, Passage
    from actors.messages import Claim

    from .outcome import Outcome

PROCESSES = 4
SLOWEST_SECONDS = 0.1
SHORT_SECONDS = GRACE_SECONDS / 4
"""Of cuts, and of standing still, where processes die too: what a dead one passed on is waited for no longer."""


class Thing:
    """A value, while its owner keeps it."""

    __slots__ = ("__weakref__", "id")

    def __init__(self, id: str) -> None:
        self.id = id


class Party(Loop):
    """A process: what it owns, what its program refers to, and its conversations."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world)
        self.number = number
        self.address = Address(f"process-{number}", "host", "", f"node-{number}", node_name=f"node-{number}")
        self.refs: list[Hold] = []
        self.things: weakref.WeakValueDictionary[str, Thing] = weakref.WeakValueDictionary()
        self.holdings = Holdings(self.address, self._soon, self._later, self._tell, self.things.get)
        self.wires: dict[int, Wire] = {}  # the conversations that it began
        self.passages: dict[tuple[int, bool], Passage] = {}  # by the other, and whether this one began it
        self._world = world

    def _soon(self, work: Callable[[], None]) -> None:
        self._later(0.0, work)

    def _later(self, seconds: float, work: Callable[..., None], *args: Any) -> None:
        self._world.after(seconds, self.run, work, *args)

    def _tell(self, owner: Address, changes: list[Change]) -> None:
        other = self._world.by_id[owner.process]
        if not other.dead:
            self.wires[other.number].ends[0].post(("tally", changes, ()))

    def make(self) -> None:
        """Its program makes a value."""
        thing = Thing(f"{self.address.process}/{len(self._world.made)}")
        self._world.made_one(self, thing)
        self.things[thing.id] = thing
        self.refs.append(self.holdings.own(thing.id, thing))

    def pass_on(self, other: Party, *, answer: bool) -> None:
        """Its program sends another a reference, with a call or with an answer."""
        chance = self._world.chance
        if not self.refs or other.dead or other is self:
            return
        hold = chance.choice(self.refs)
        claims = self.passages[other.number, not answer].lend((hold,))
        wire = other.wires[self.number] if answer else self.wires[other.number]
        self._world.note(f"{self.number} sends {hold.id} to {other.number}")
        self._world.travels(hold.id, self, other, 1)
        wire.ends[1 if answer else 0].post(("value", (), claims))

    def arrived(self, other: Party, began: bool, message: tuple[str, list[Change], tuple[Claim, ...]]) -> None:
        """A message has come, by a conversation that this one began or not."""
        kind, changes, claims = message
        if kind == "tally":
            self.holdings.take_in(other.address.process, changes)
            return
        holds = self.passages[other.number, began].take(claims)
        for hold in holds:
            self._world.travels(hold.id, other, self, -1)
        self.refs.extend(holds)

    def drop(self) -> None:
        """Its program refers to something no longer."""
        if self.refs:
            hold = self.refs.pop(self._world.chance.randrange(len(self.refs)))
            self._world.note(f"{self.number} drops {hold.id}")

    def lost(self, other: Party) -> None:
        """It hears that another has died: as a peer that has died, and as a visitor that is gone."""
        for began in (True, False):
            self.passages[other.number, began].close()
        self.holdings.gone(other.address.process)


class World(Network):
    """Processes that pass values on."""

    def __init__(self, seed: int, steps: int, faults: Sequence[Fault], trace: bool) -> None:
        super().__init__(f"ownership/{seed}", faults, SLOWEST_SECONDS, trace)
        self.made: set[str] = set()
        self._travelling: dict[tuple[str, int, int], int] = {}
        self._ends: list[weakref.ref[Thing]] = []
        self._broken: list[str] = []  # what the end of an object raises, Python does not pass on
        self.parties = [Party(self, number) for number in range(PROCESSES)]
        self.by_id = {party.address.process: party for party in self.parties}
        for party in self.parties:
            for other in self.parties:
                if party is not other:
                    self._connect(party, other)
        for fault in faults:
            self.at(fault.at, self._strike, fault)
        for moment in sorted(self.chance.uniform(0, SPAN_SECONDS) for _ in range(steps)):
            self.at(moment, self._step)

    def _connect(self, party: Party, other: Party) -> None:
        party.wires[other.number] = Wire(
            self,
            lambda message: party.run(party.arrived, other, True, message),
            lambda message: other.run(other.arrived, party, False, message),
        )
        party.passages[other.number, True] = party.holdings.passage()
        other.passages[party.number, False] = other.holdings.passage()

    def made_one(self, party: Party, thing: Thing) -> None:
        """A value is there."""
        self.made.add(thing.id)
        self.note(f"{party.number} makes {thing.id}")
        id = thing.id
        self._ends.append(weakref.ref(thing, lambda _: self._given_up(party, id)))

    def travels(self, id: str, sender: Party, receiver: Party, change: int) -> None:
        """A reference has begun to travel, or has arrived."""
        key = (id, sender.number, receiver.number)
        self._travelling[key] = self._travelling.get(key, 0) + change

    # -- what happens -------------------------------------------------------------------------------------------

    def _step(self) -> None:
        party = self.chance.choice(self.parties)
        what, other, answer = self.chance.random(), self.chance.choice(self.parties), self.chance.random() < 0.3
        if what < 0.1:
            party.run(party.make)
        elif what < 0.65:
            party.run(lambda: party.pass_on(other, answer=answer))
        else:
            party.run(party.drop)

    def _strike(self, fault: Fault) -> None:
        party = self.parties[fault.whom % PROCESSES]
        others = [other for other in self.parties if other is not party and not other.dead]
        if party.dead or not others:
            return
        self.note(f"{fault.kind} of {party.number} for {fault.seconds:.3f} s")
        if fault.kind == "cut":
            other = others[fault.whom // PROCESSES % len(others)]
            party.wires[other.number].cut(fault.seconds)
            other.wires[party.number].cut(fault.seconds)
        elif fault.kind == "jump":
            party.until = max(party.until, self.now + fault.seconds)
        else:
            # What matters is what is on its way just then.
            for other in others:
                party.run(lambda other=other: party.pass_on(other, answer=False))
                other.run(lambda other=other: other.pass_on(party, answer=False))
                party.run(party.drop)
            self.after(self.delay(), self._die, party)

    def _die(self, party: Party) -> None:
        party.dead = True
        for other in self.parties:
            if other is party:
                continue
            party.wires[other.number].closed = other.wires[party.number].closed = True
            if not other.dead:
                self.after(self.delay(), other.run, other.lost, party)
        for key in [key for key in self._travelling if party.number in key[1:]]:
            del self._travelling[key]
        party.refs.clear()

    # -- the promises -------------------------------------------------------------------------------------------

    def _given_up(self, owner: Party, id: str) -> None:
        self.note(f"{id} is given up")
        if owner.dead:
            return
        for party in self.parties:
            if not party.dead and any(hold.id == id for hold in party.refs):
                self._broken.append(f"{id} was given up, and process {party.number} refers to it")
        for (travelling, sender, receiver), count in self._travelling.items():
            if travelling == id and count > 0:
                self._broken.append(f"{id} was given up on its way from {sender} to {receiver}")

    def run(self) -> None:
        """Lets all happen, has all programs drop all, and looks whether the promises hold."""
        self.outcome.events = self.run_out()
        for party in self.parties:
            while party.refs:
                party.drop()
        self.outcome.events += self.run_out()
        self.outcome.seconds = self.now
        assert not self._broken, self._broken[0]
        for party in self.parties:
            kept = sorted(party.things)
            assert party.dead or not kept, f"{kept[0]} is kept for nobody"
            assert party.dead or not len(party.holdings), f"process {party.number} counts what is gone"


def simulate_ownership(seed: int, *, steps: int = 200, faults: int = 6, trace: bool = False) -> Outcome:
    """Runs processes that pass values on and drop them, while things go wrong; the same seed gives the same run.

    A value is there as long as a process that lives refers to it, or a reference to it is on its way; and once nothing
    does, its owner has given it up and counts nothing any more.

    Args:
        seed: decides all that is left to chance; in every other run processes die.
        steps: how often a program makes, passes on or drops something.
        faults: how many things go wrong.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """
    chance = random.Random(f"ownership-faults/{seed}")  # noqa: S311 - to be the same again is what is wanted
    deadly = seed % 2 == 1
    kinds = ("cut", "jump", "crash") if deadly else ("cut", "jump")
    plan = [
        Fault(
            chance.uniform(0, SPAN_SECONDS), chance.choice(kinds), chance.randrange(PROCESSES * PROCESSES),
            min(chance.expovariate(1), SHORT_SECONDS) if deadly else chance.expovariate(0.3),
        )
        for _ in range(faults)
    ]  # fmt: skip

    return held(lambda chosen, trace: World(seed, steps, chosen, trace), seed, plan, "ownership", trace)
