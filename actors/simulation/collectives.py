"""Collectives on the simulated network: ranks reduce, gather and rebuild while things go wrong.

What runs is the runtime's own `Group` with all that is above a fabric: agreement, algorithms, blame, rebuilding. Each
rank has a thread, of which one runs at a time, until it waits for a message: so the same seed is the same run. What
carries the messages is the runtime's own `Session`, and time is simulated.
"""

from __future__ import annotations

import random
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.collective.group import Group
from actors.collective.terrain import scattered
from actors.costs import Costs
from actors.exceptions import CollectiveError
from actors.serialize import dumps, loads

from .faults import Fault
from .network import Loop, Network
from .running import held
from .wire import Wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.collective.terrain import Terrain
    from actors.messages import Payload

    from .outcome import Outcome

SECONDS = 4.0
"""What a call waits for the others."""

SLACK_SECONDS = 1.0
"""Of that, what is kept to find out who is to blame, and what ranks may be apart. What goes wrong for no longer than
the rest is noticed by nobody."""

UNSURE_SECONDS = (1.0, SECONDS + 1.5)
"""One that stands still for so long may come back as some have given up waiting for it and others have not."""

SLOWEST_SECONDS = 0.05
SPAN_SECONDS = 1.0
CALLS = 5  # in each epoch
LONGEST_REST = 0.2  # seconds between two calls of a rank: to name who is to blame, ranks give up at about the same time
TRIES = 3  # to rebuild
MANY = 8200  # elements of an array that does not travel with its offer
COSTS = Costs()


class Killed(BaseException):
    """Ends the thread of a rank whose process was killed."""


def handed_over() -> threading.Lock:
    """Returns what one thread waits for and another gives; a semaphore takes twice as long as a lock."""
    lock = threading.Lock()
    lock.acquire()
    return lock


class Rank(Loop):
    """A process with one member of the group, on a thread of its own."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world)
        self.number = number
        self.letters: dict[tuple[str, int, str], Payload] = {}
        self.known_dead: set[int] = set()
        self.aborted: dict[str, str] = {}
        self.wires: dict[int, Wire] = {}
        self.over = False
        self.errors: list[tuple[int, str]] = []  # with their epochs
        self.failure: BaseException | None = None
        self._world = world
        self._turn = handed_over()
        self._wait = 0
        self._thread = threading.Thread(target=self._live, name=f"rank-{number}", daemon=True)
        self._thread.start()

    # -- on the thread of the world -----------------------------------------------------------------------------

    def go_on(self, wait: int) -> None:
        """Lets it run until it waits for something else; where it still waits for this."""
        if wait == self._wait and not self.over:
            self._wait += 1
            self._turn.release()
            self._world.baton.acquire()

    def wake(self) -> None:
        """Something that it may wait for has happened."""
        self.go_on(self._wait)

    def arrived(self, other: int, message: tuple[str, str, Any]) -> None:
        """A message has come."""
        group, tag, payload = message
        if tag:
            self.letters[group, other, tag] = payload
        else:
            self.aborted.setdefault(group, payload)
        self.wake()

    def lost(self, other: int) -> None:
        """It hears that another process has died."""
        self.known_dead.add(other)
        self.wake()

    def die(self) -> None:
        """Its process is killed."""
        self.dead = True
        self.wake()

    # -- on its own ---------------------------------------------------------------------------------------------

    def pause(self, until: float | None) -> None:
        """Lets the others run until something happens here, or that time has come."""
        wait = self._wait
        if until is not None:
            self._world.at(max(until, self._world.now), self.run, self.go_on, wait)
        self._world.baton.release()
        self._turn.acquire()
        if self.dead:
            raise Killed

    def _live(self) -> None:
        self._turn.acquire()
        try:
            if not self.dead:
                self._work(Group(SimulatedFabric(self._world, self, "group", tuple(range(len(self._world.ranks))))))
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self.over = True
            self._world.baton.release()

    def _work(self, group: Group) -> None:
        tries = 0
        number = 0
        while number < CALLS and tries <= TRIES:
            rest = self._world.plans[self.number].uniform(0, LONGEST_REST)
            until = self._world.now + rest
            while self._world.now < until:
                self.pause(until)
            try:
                self._call(group, number)
                number += 1
            except CollectiveError as error:
                self.errors.append((group.epoch, str(error)))
                self._world.note(f"{self.number}: call {number} of epoch {group.epoch}: {error}")
                if "do not call the same" in str(error):
                    number += 1
                    continue
                number = 0
                while tries <= TRIES:
                    tries += 1
                    try:
                        group.rebuild(timeout=SECONDS)
                        break
                    except CollectiveError as again:
                        self._world.note(f"{self.number}: not rebuilt: {again}")

    def _call(self, group: Group, number: int) -> None:
        kind = self._world.kind(group.epoch, number, self.number)
        mine = float(1 << self.number)
        if kind == "allgather":
            parts = group.allgather(np.array([mine]), timeout=SECONDS)
            found = float(sum(part[0] for part in parts))
        elif kind == "broadcast":
            found = float(group.allreduce(np.array([mine]), timeout=SECONDS)[0])
            root = group.broadcast(np.array([found if group.rank == 0 else 0.0]), 0, timeout=SECONDS)
            assert float(root[0]) == found, f"{self.number} was told {root[0]} by broadcast, and all have {found}"
        elif kind == "many":
            array = group.allreduce(np.full(MANY, mine), timeout=SECONDS)
            found = float(array[0])
            assert (array == found).all(), f"{self.number} has an array of different sums"
        else:
            found = float(group.allreduce(np.array([mine]), op=kind, timeout=SECONDS)[0])
            if kind == "max":
                return
        members = int(found)
        assert members.bit_count() == group.size, f"{self.number} has {found} of {group.size} ranks"
        assert members >> self.number & 1, f"{self.number} is not part of what it has"
        self._world.note(f"{self.number}: call {number} of epoch {group.epoch}: {kind} of {members:b}")


class SimulatedFabric:
    """One rank's end of a group; see `actors.collective.fabric.Fabric`."""

    def __init__(self, world: World, here: Rank, name: str, members: tuple[int, ...]) -> None:
        self.group = name
        self._world = world
        self._here = here
        self._members = members

    @property
    def rank(self) -> int:
        """See `Fabric`."""
        return self._members.index(self._here.number)

    @property
    def size(self) -> int:
        """See `Fabric`."""
        return len(self._members)

    @property
    def terrain(self) -> Terrain:
        """See `Fabric`."""
        return scattered(self.size, COSTS, "processes of a simulation")

    @property
    def aborted(self) -> str | None:
        """See `Fabric`."""
        return self._here.aborted.get(self.group)

    def now(self) -> float:
        """See `Fabric`."""
        return self._world.now

    def meet(self, deadline: float) -> None:
        """See `Fabric`."""

    def sub(self, name: str, ranks: Sequence[int]) -> SimulatedFabric:
        """See `Fabric`."""
        return SimulatedFabric(self._world, self._here, name, tuple(self._members[rank] for rank in ranks))

    def close(self) -> None:
        """See `Fabric`."""

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:  # noqa: ARG002 - it is copied
        """See `Fabric`."""
        self._check(dst)
        self._post(self._members[dst], tag, dumps(value))

    def _post(self, other: int, tag: str, what: object) -> None:
        self._here.wires[other].ends[0].post((self.group, tag, what))

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        """See `Fabric`."""
        key = (self.group, self._members[src], tag)
        while key not in self._here.letters:
            self._check(src)
            if deadline is not None and self._world.now >= deadline:
                raise TimeoutError
            self._here.pause(deadline)
        return loads(self._here.letters.pop(key))

    def _check(self, other: int) -> None:
        if self.aborted is not None:
            raise CollectiveError(self.aborted)
        if self._members[other] in self._here.known_dead:
            raise CollectiveError(f"{self.describe(other)} died")

    def abort(self, reason: str) -> None:
        """See `Fabric`."""
        if self._here.dead or self.group in self._here.aborted:
            return
        self._here.aborted[self.group] = reason
        for other in self._members:
            if other != self._here.number:
                self._post(other, "", reason)

    def leave(self, reason: str) -> None:
        """Does as `abort`: here no rank leaves a group that the others still use."""
        self.abort(reason)

    def describe(self, rank: int) -> str:
        """See `Fabric`."""
        return f"rank {rank} (process {self._members[rank]})"


class World(Network):
    """The ranks, and what goes wrong."""

    def __init__(self, seed: int, size: int, faults: Sequence[Fault], trace: bool) -> None:
        super().__init__(f"collectives/{seed}", faults, SLOWEST_SECONDS, trace)
        self.baton = handed_over()
        self.ranks: list[Rank] = []
        self.plans = [random.Random(f"rank/{seed}/{number}") for number in range(size)]  # noqa: S311 - as above
        self._seed = seed
        self._faulty: set[int] = set()
        self._wrong_seconds = 0.0
        self._open = False  # which of the ranks that wait is named
        self._dead = 0
        self.ranks = [Rank(self, number) for number in range(size)]
        for rank in self.ranks:
            for other in self.ranks:
                if rank is not other:
                    rank.wires[other.number] = self._wire(rank, other)
            self.after(self.delay(), rank.run, rank.wake)
        for fault in faults:
            self.at(fault.at, self._strike, fault)

    def _wire(self, rank: Rank, other: Rank) -> Wire:
        return Wire(self, lambda _: None, lambda message: other.run(other.arrived, rank.number, message))

    def kind(self, epoch: int, number: int, rank: int) -> str:
        """Returns which collective a rank calls; mostly all call the same."""
        chance = random.Random(f"call/{self._seed}/{epoch}/{number}")  # noqa: S311 - as above
        kind = chance.choice(("sum", "sum", "allgather", "broadcast", "many"))
        return "max" if chance.random() < 0.1 and chance.randrange(len(self.ranks)) == rank else kind

    def _strike(self, fault: Fault) -> None:
        rank = self.ranks[fault.whom % len(self.ranks)]
        other = self.ranks[(fault.whom // len(self.ranks) + rank.number + 1) % len(self.ranks)]
        if rank.dead or rank.over:
            return
        self.note(f"{fault.kind} of {rank.number} for {fault.seconds:.3f} s")
        self._faulty.add(rank.number)
        if fault.kind == "crash":
            self._die(rank)
            return
        self._wrong_seconds += fault.seconds
        if fault.kind == "jump":
            rank.until = max(rank.until, self.now + fault.seconds)
            self._open = self._open or UNSURE_SECONDS[0] < fault.seconds < UNSURE_SECONDS[1]
        elif other is not rank:
            self._faulty.add(other.number)
            self._open = True  # both ends live, and reports do not pass either
            rank.wires[other.number].cut(fault.seconds)
            other.wires[rank.number].cut(fault.seconds)

    def _die(self, rank: Rank) -> None:
        self._dead += 1
        rank.die()
        for other in self.ranks:
            if other is not rank:
                rank.wires[other.number].closed = other.wires[rank.number].closed = True
                self.after(self.delay(), other.run, other.lost, rank.number)

    def run(self) -> None:
        """Lets all happen, and looks whether the promises hold."""
        try:
            self.outcome.events, self.outcome.seconds = self.run_out(), self.now
            stuck = [rank.number for rank in self.ranks if not rank.over]
            assert not stuck, f"rank {stuck[0]} never came back from a collective"
        finally:
            for rank in self.ranks:
                if not rank.over:
                    rank.die()
        for rank in self.ranks:
            if rank.failure is not None:
                raise AssertionError(str(rank.failure)) from rank.failure
            self._judge(rank)

    def _judge(self, rank: Rank) -> None:
        for epoch, error in rank.errors:
            if "do not call the same" in error:
                continue
            noticed = self._dead or self._wrong_seconds > SECONDS - SLACK_SECONDS
            assert noticed, f"rank {rank.number} had an error, and nothing was wrong for long: {error}"
            if self._open or epoch > 1:
                continue  # ranks begin the next epoch when they are ready, and give up at different times
            named = {int(number) for number in re.findall(r"process (\d+)", error)}
            assert named & self._faulty, f"rank {rank.number} was told of no rank that had failed: {error}"


def simulate_collectives(seed: int, *, faults: int = 3, trace: bool = False) -> Outcome:
    """Runs ranks of a group that call collectives while things go wrong; the same seed gives the same run.

    A call gives the same right value on all ranks, or raises an error. In the first epoch that names a rank that has
    died or stood still, where no connection was cut and none came back just as others gave up. None waits for ever, and
    what was wrong for a short time is noticed by nobody. Where ranks do not call the same, they are told, and go on.
    Ranks that are left rebuild the group; what it gives then is of its members alone.

    Args:
        seed: decides all that is left to chance.
        faults: how many things go wrong at most.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """
    chance = random.Random(f"collective-faults/{seed}")  # noqa: S311 - to be the same again is what is wanted
    size = chance.choice((2, 3, 4, 4, 5, 9))
    plan = [
        Fault(
            chance.uniform(0, SPAN_SECONDS), chance.choice(("cut", "jump", "crash")), chance.randrange(size * size),
            chance.choice((chance.expovariate(0.7), chance.uniform(5.5, 8))),
        )
        for _ in range(chance.randint(0, faults))
    ]  # fmt: skip

    return held(lambda chosen, trace: World(seed, size, chosen, trace), seed, plan, "collectives", trace)
