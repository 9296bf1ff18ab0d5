"""The count of who refers to what: never given up while anybody holds it or a message travels, always in the end.

The machine plays processes that send each other holds, drop them and die. What one says to another arrives in order;
between any two other pairs, and between the two conversations of one pair, any order is possible.
"""

from __future__ import annotations

import gc
import pickle
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from actors.address import Address
from actors.count import Counts
from actors.holdings import GRACE_SECONDS, Change, Hold, Holdings, Way
from actors.messages import Claim

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = ("a", "b", "c", "d")


def at(process: str) -> Address:
    return Address(process, "host", f"/{process}.sock", "node")


@dataclass(eq=False)
class Message:
    """What one process says to another: changes for an owner, or claims of a message."""

    changes: list[Change] | None = None
    claims: tuple[Claim, ...] = ()


@dataclass(eq=False)
class Simulated:
    """A process: its holdings, what its program refers to, and what its I/O loop has to do next."""

    name: str
    world: World
    held: list[Hold] = field(default_factory=list)
    todo: deque[Callable[[], Any]] = field(default_factory=deque)
    later: list[Callable[[], Any]] = field(default_factory=list)
    ways: dict[tuple[str, str], Way] = field(default_factory=dict)
    buried: set[str] = field(default_factory=set)
    dead: bool = False

    def __post_init__(self) -> None:
        self.holdings = Holdings(at(self.name), self.todo.append, self._later, self._tell, lambda _: None)

    def _later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> None:
        assert seconds == GRACE_SECONDS
        self.later.append(lambda: callback(*args))

    def _tell(self, owner: Address, changes: list[Change]) -> None:
        self.world.put(self.name, owner.process, "calls", Message(changes=changes))

    def make(self, id: str) -> None:
        hold = self.holdings.own(id, object())
        self.holdings.when_free(id, lambda: self.world.freed.add(id))
        self.held.append(hold)

    def send(self, target: str, lane: str, holds: list[Hold]) -> None:
        if target in self.buried:
            return
        way = self.ways.setdefault((target, lane), self.holdings.way())
        message = Message(claims=way.lend(holds))
        self.world.unsent[message] = (self.name, target)
        self.todo.append(lambda: self.world.put(self.name, target, lane, message))

    def receive(self, source: str, message: Message, way: Way) -> None:
        if message.changes is not None:
            self.holdings.take_in(source, message.changes)
        else:
            self.held += way.take(message.claims)

    def turn(self) -> None:
        self.todo.popleft()()

    def bury(self, dead: str) -> None:
        self.buried.add(dead)
        self.holdings.gone(dead)
        for (target, _), way in self.ways.items():
            if target == dead:
                way.close()


class World:
    """Processes, and the messages between them."""

    def __init__(self) -> None:
        self.processes = {name: Simulated(name, self) for name in PROCESSES}
        self.channels: dict[tuple[str, str, str], deque[Message]] = {}
        self.unsent: dict[Message, tuple[str, str]] = {}
        self.freed: set[str] = set()
        self.made: dict[str, str] = {}

    def put(self, source: str, target: str, lane: str, message: Message) -> None:
        self.unsent.pop(message, None)
        if target not in self.processes[source].buried:
            self.channels.setdefault((source, target, lane), deque()).append(message)

    def deliver(self, channel: tuple[str, str, str]) -> None:
        source, target, lane = channel
        message = self.channels[channel].popleft()
        receiver = self.processes[target]
        if not receiver.dead and source not in receiver.buried:
            receiver.receive(source, message, receiver.ways.setdefault((source, lane), receiver.holdings.way()))

    def kill(self, name: str, kept: int) -> None:
        """Ends a process at once: of what it has written, so much at most arrives on each connection."""
        process = self.processes[name]
        process.dead = True
        process.todo.clear()
        process.held.clear()
        for message in [m for m, (source, _) in self.unsent.items() if source == name]:
            del self.unsent[message]
        for (source, _, _), written in self.channels.items():
            while source == name and len(written) > kept:
                written.pop()

    def wanted(self) -> set[str]:
        living = [process for process in self.processes.values() if not process.dead]
        wanted = {hold.id for process in living for hold in process.held}
        for (source, target, _), messages in self.channels.items():
            receiver = self.processes[target]
            if not receiver.dead and source not in receiver.buried:
                wanted |= {claim.id for message in messages for claim in message.claims}
        for message, (_, target) in self.unsent.items():
            if not self.processes[target].dead:
                wanted |= {claim.id for claim in message.claims}
        return {id for id in wanted if not self.processes[self.made[id]].dead}

    def settle(self) -> None:
        """Lets everything arrive, everywhere."""
        while True:
            busy = [process for process in self.processes.values() if process.todo and not process.dead]
            full = [channel for channel, messages in self.channels.items() if messages]
            if not busy and not full:
                return
            for process in busy:
                process.turn()
            for channel in full:
                self.deliver(channel)


class Travels(RuleBasedStateMachine):
    """Holds that are sent about."""

    channels = Bundle("channels")
    processes = st.sampled_from(PROCESSES)
    lanes = st.sampled_from(("calls", "answers"))

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    def living(self, name: str) -> Simulated | None:
        process = self.world.processes[name]
        return None if process.dead else process

    @rule(name=processes)
    def make(self, name: str) -> None:
        if (process := self.living(name)) is not None:
            id = f"{name}/{len(self.world.made)}"
            self.world.made[id] = name
            process.make(id)

    @rule(target=channels, name=processes, to=processes, lane=lanes, data=st.data())
    def send(self, name: str, to: str, lane: str, data: st.DataObject) -> Any:
        process = self.living(name)
        if process is None or not process.held or name == to:
            return multiple()
        chosen = data.draw(st.sets(st.sampled_from(range(len(process.held))), min_size=1, max_size=3))
        holds = list({id(process.held[index]): process.held[index] for index in chosen}.values())
        process.send(to, lane, holds)
        return (name, to, lane)

    @rule(name=processes, data=st.data())
    def drop(self, name: str, data: st.DataObject) -> None:
        process = self.living(name)
        if process is not None and process.held:
            del process.held[data.draw(st.integers(0, len(process.held) - 1))]

    @rule(name=processes)
    def drop_all(self, name: str) -> None:
        if (process := self.living(name)) is not None:
            process.held.clear()

    @rule(name=processes, turns=st.integers(1, 3))
    def turn(self, name: str, turns: int) -> None:
        if (process := self.living(name)) is not None:
            for _ in range(min(turns, len(process.todo))):
                process.turn()

    @precondition(lambda self: any(self.world.channels.values()))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        full = sorted(channel for channel, messages in self.world.channels.items() if messages)
        self.world.deliver(data.draw(st.sampled_from(full)))

    @rule(channel=consumes(channels))
    def deliver_what_was_sent(self, channel: tuple[str, str, str]) -> None:
        sender = self.world.processes[channel[0]]
        while sender.todo and not sender.dead:
            sender.turn()
        if self.world.channels.get(channel):
            self.world.deliver(channel)

    @rule(name=processes, kept=st.integers(0, 3))
    def kill(self, name: str, kept: int) -> None:
        if self.living(name) is not None and sum(not p.dead for p in self.world.processes.values()) > 2:
            self.world.kill(name, kept)

    @rule(name=processes, dead=processes)
    def bury(self, name: str, dead: str) -> None:
        process = self.living(name)
        if process is not None and self.living(dead) is None and dead not in process.buried:
            process.bury(dead)

    @rule()
    def time_goes_by(self) -> None:
        """As long as the grace: what was on its way has come."""
        self.world.settle()
        for process in self.world.processes.values():
            due, process.later = process.later, []
            for callback in due:
                callback()

    @invariant()
    def nothing_wanted_is_freed(self) -> None:
        assert not self.world.wanted() & self.world.freed

    def teardown(self) -> None:
        world = self.world
        for process in world.processes.values():
            for other in world.processes.values():
                if other.dead and not process.dead and other.name not in process.buried:
                    process.bury(other.name)
        for _ in range(3):
            self.time_goes_by()
            self.nothing_wanted_is_freed()
            for process in world.processes.values():
                process.held.clear()
        self.time_goes_by()
        owned_by_the_living = {id for id, owner in world.made.items() if not world.processes[owner].dead}
        assert owned_by_the_living <= world.freed
        for process in world.processes.values():
            assert process.dead or len(process.holdings) == 0


Travels.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestTravels = Travels.TestCase


# -- one by one -----------------------------------------------------------------------------------------------------


def test_a_token_may_be_used_before_it_is_heard_of() -> None:
    unwanted: list[str] = []
    counts = Counts(unwanted.append)
    counts.add("x", ("sender", 1))
    counts.add("x", ("receiver", 1))
    counts.remove("x", ("way", 7))  # used up, and only then lent
    counts.remove("x", ("receiver", 1))
    counts.add("x", ("way", 7))
    assert not unwanted
    counts.remove("x", ("sender", 1))
    assert unwanted == ["x"]
    assert len(counts) == 0


def test_what_comes_late_changes_nothing() -> None:
    counts = Counts(lambda _: None)
    counts.remove("x", ("way", 1))
    counts.ended("nobody")
    assert len(counts) == 0
    assert not counts.has("x", "way")


def test_a_process_without_the_owner_of_its_things_is_told_nothing() -> None:
    """After `shutdown` the loop is closed; holds go on ending then."""

    def closed(_: object) -> None:
        raise RuntimeError("Event loop is closed")

    holdings = Holdings(at("a"), closed, lambda *_: None, lambda *_: None, lambda _: None)
    hold = holdings.hold("b/1", at("b"))
    assert holdings.hold("b/1", at("b")) is hold
    del hold


def test_a_handle_of_ones_own_does_not_count_but_what_is_passed_on_does() -> None:
    told: list[Change] = []
    todo: deque[Callable[[], None]] = deque()
    holdings = Holdings(at("actor"), todo.append, lambda *_: None, lambda _, changes: told.extend(changes), lambda _: None)
    holdings.myself = "me"
    way = holdings.way()
    (hold,) = way.take([Claim("me", at("owner"), "their-way", 3)])
    way.lend([hold])
    while todo:
        todo.popleft()()
    assert [kind for kind, *_ in told] == [3, 2]  # the token is used up; another one is lent
    del hold
    while todo:
        todo.popleft()()
    assert len(told) == 2


def test_many_changes_are_told_in_few_messages() -> None:
    batches: list[int] = []
    todo: deque[Callable[[], None]] = deque()
    holdings = Holdings(at("a"), todo.append, lambda *_: None, lambda _, changes: batches.append(len(changes)), lambda _: None)
    holds = [holdings.hold(f"b/{number}", at("b")) for number in range(10_000)]
    assert len(todo) == 1
    todo.popleft()()
    assert len(batches) == 3
    assert sum(batches) == 10_000
    holds.clear()
    assert len(todo) == 1
    todo.popleft()()
    assert sum(batches) == 20_000


def test_what_the_program_pickles_by_hand_is_kept() -> None:
    from actors import holdings as module

    holdings = Holdings(at("a"), lambda _: None, lambda *_: None, lambda *_: None, lambda _: None)
    before = module._current
    module.use(holdings)
    try:
        hold = holdings.hold("b/1", at("b"))
        data = pickle.dumps(hold)
        del hold
        gc.collect()
        assert holdings._find("b/1") is not None
        assert pickle.loads(data) is holdings._find("b/1")
    finally:
        module.use(before)
