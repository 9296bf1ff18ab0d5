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
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors.address import Address
from actors.count import Counts
from actors.holdings import GRACE_SECONDS, Change, Hold, Holdings, Passage
from actors.messages import Claim

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = ("a", "b", "c")


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
    passages: dict[tuple[str, str], Passage] = field(default_factory=dict)
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
        passage = self.passages.setdefault((target, lane), self.holdings.passage())
        message = Message(claims=passage.lend(holds))
        del holds
        self.world.unsent[message] = (self.name, target)
        self.todo.append(lambda: self.world.put(self.name, target, lane, message))

    def receive(self, source: str, message: Message, passage: Passage) -> None:
        if message.changes is not None:
            self.holdings.take_in(source, message.changes)
        else:
            self.held += passage.take(message.claims)

    def turn(self) -> None:
        self.todo.popleft()()

    def bury(self, dead: str) -> None:
        self.buried.add(dead)
        self.holdings.gone(dead)
        for (target, _), passage in self.passages.items():
            if target == dead:
                passage.close()


class World:
    """Processes, and the messages between them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.processes = {name: Simulated(name, self) for name in names}
        self.channels: dict[tuple[str, str, str], deque[Message]] = {}
        self.unsent: dict[Message, tuple[str, str]] = {}
        self.freed: set[str] = set()
        self.made: dict[str, str] = {}

    def make(self, owner: str) -> str:
        id = f"{owner}/{len(self.made)}"
        self.made[id] = owner
        self.processes[owner].make(id)
        return id

    def put(self, source: str, target: str, lane: str, message: Message) -> None:
        self.unsent.pop(message, None)
        if target not in self.processes[source].buried:
            self.channels.setdefault((source, target, lane), deque()).append(message)

    def deliver(self, channel: tuple[str, str, str]) -> None:
        source, target, lane = channel
        message = self.channels[channel].popleft()
        receiver = self.processes[target]
        if not receiver.dead and source not in receiver.buried:
            receiver.receive(source, message, receiver.passages.setdefault((source, lane), receiver.holdings.passage()))

    def kill(self, name: str, lost: str) -> None:
        """Ends a process at once: what it has written on some of its connections, and was not read, is lost."""
        process = self.processes[name]
        process.dead = True
        process.todo.clear()
        process.held.clear()
        for message in [m for m, (source, _) in self.unsent.items() if source == name]:
            del self.unsent[message]
        for (source, _, lane), written in self.channels.items():
            if source == name and lane in lost:
                written.clear()

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

    def wait(self) -> None:
        """As long as the grace: what was on its passage has come, then what was put off is done."""
        self.settle()
        for process in self.processes.values():
            due, process.later = process.later, []
            for callback in due:
                callback()
        self.settle()


class Travels(RuleBasedStateMachine):
    """Holds that are sent about."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(PROCESSES)
        self.processes = self.world.processes

    def living(self, *, with_holds: bool = False) -> list[str]:
        return [n for n, p in self.processes.items() if not p.dead and (p.held or not with_holds)]

    def holders(self) -> list[str]:
        return self.living(with_holds=True)

    @initialize()
    def begin(self) -> None:
        """A thing of the first process, which the second holds too: what happens without others is soon told."""
        self.world.make("a")
        self.processes["a"].send("b", "calls", list(self.processes["a"].held))
        self.world.settle()

    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        self.world.make(data.draw(st.sampled_from(self.living())))

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), lane=st.sampled_from(("calls", "answers")), arrives=st.booleans(), keep=st.booleans())
    def send(self, data: st.DataObject, lane: str, arrives: bool, keep: bool) -> None:
        name = data.draw(st.sampled_from(self.holders()))
        process = self.processes[name]
        target = data.draw(st.sampled_from([other for other in PROCESSES if other != name]))
        # By number: what is drawn is remembered, and would keep a hold alive.
        chosen = {0, data.draw(st.integers(0, len(process.held) - 1))}
        process.send(target, lane, list({process.held[index] for index in chosen}))
        if not keep:
            process.held.clear()
        if arrives:  # it overtakes what the sender has told the owner, if that is another
            while process.todo:
                process.turn()
            while self.world.channels.get((name, target, lane)):
                self.world.deliver((name, target, lane))

    @precondition(lambda self: self.holders())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        held = self.processes[data.draw(st.sampled_from(self.holders()))].held
        del held[data.draw(st.integers(0, len(held) - 1))]

    @precondition(lambda self: self.holders())
    @rule(data=st.data())
    def drop_all(self, data: st.DataObject) -> None:
        self.processes[data.draw(st.sampled_from(self.holders()))].held.clear()

    @precondition(lambda self: any(p.todo for p in self.processes.values()))
    @rule(data=st.data(), turns=st.integers(1, 5))
    def turn(self, data: st.DataObject, turns: int) -> None:
        process = self.processes[data.draw(st.sampled_from([n for n, p in self.processes.items() if p.todo]))]
        for _ in range(min(turns, len(process.todo))):
            process.turn()

    @precondition(lambda self: any(self.world.channels.values()))
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        full = sorted(channel for channel, messages in self.world.channels.items() if messages)
        self.world.deliver(data.draw(st.sampled_from(full)))

    @precondition(lambda self: len(self.living()) > 2)
    @rule(data=st.data(), turns=st.integers(0, 3), lost=st.sampled_from(("", "calls", "answers", "calls, answers")))
    def kill(self, data: st.DataObject, turns: int, lost: str) -> None:
        name = data.draw(st.sampled_from(self.living()))
        for _ in range(min(turns, len(self.processes[name].todo))):
            self.processes[name].turn()
        self.world.kill(name, lost)

    def unburied(self) -> list[tuple[str, str]]:
        dead = [name for name, process in self.processes.items() if process.dead]
        return [(name, d) for name in self.living() for d in dead if d not in self.processes[name].buried]

    @precondition(unburied)
    @rule(data=st.data())
    def bury(self, data: st.DataObject) -> None:
        for name, dead in data.draw(st.permutations(self.unburied())):
            self.processes[name].bury(dead)

    @rule()
    def time_goes_by(self) -> None:
        """As long as the grace."""
        self.world.wait()

    @invariant()
    def nothing_wanted_is_freed(self) -> None:
        assert not self.world.wanted() & self.world.freed

    def teardown(self) -> None:
        for name, dead in self.unburied():
            self.processes[name].bury(dead)
        self.time_goes_by()
        self.nothing_wanted_is_freed()
        for process in self.processes.values():
            process.held.clear()
        self.time_goes_by()
        for process in self.processes.values():  # what had arrived meanwhile
            process.held.clear()
        self.time_goes_by()
        made = {id for id, owner in self.world.made.items() if not self.processes[owner].dead}
        assert made <= self.world.freed
        for process in self.processes.values():
            assert process.dead or len(process.holdings) == 0


Travels.TestCase.settings = settings(max_examples=300, stateful_step_count=20, deadline=None)
TestTravels = Travels.TestCase


# -- what chance seldom finds ---------------------------------------------------------------------------------------


def lent_to(holder: str) -> tuple[World, str]:
    """A thing of "a" that only ``holder`` refers to."""
    world = World(("a", "b", "c", "d"))
    id = world.make("a")
    world.processes["a"].send(holder, "calls", list(world.processes["a"].held))
    world.processes["a"].held.clear()
    world.settle()
    assert world.wanted() == {id}
    return world, id


def test_what_a_process_passed_on_before_it_died_is_kept() -> None:
    """It was killed between its message and what it had to tell the owner."""
    world, id = lent_to("b")
    b = world.processes["b"]
    b.send("c", "answers", list(b.held))
    while b.todo:
        b.turn()
    world.kill("b", lost="calls")
    world.processes["a"].bury("b")
    assert world.channels["b", "c", "answers"]
    world.wait()
    assert world.wanted() == {id}
    assert not world.freed
    world.processes["c"].held.clear()
    world.wait()
    assert world.freed == {id}


def test_what_went_through_a_process_that_died_is_kept() -> None:
    """The sender knows of the death before the owner knows of the one that has the thing now."""
    world, id = lent_to("b")
    b, c = world.processes["b"], world.processes["c"]
    b.send("c", "calls", list(b.held))
    b.held.clear()
    while b.todo:
        b.turn()
    world.deliver(("b", "c", "calls"))
    c.send("d", "calls", list(c.held))
    while c.todo:
        c.turn()
    world.kill("c", lost="")
    world.deliver(("c", "d", "calls"))
    b.bury("c")
    while b.todo:
        b.turn()
    while world.channels["b", "a", "calls"]:
        world.deliver(("b", "a", "calls"))
    world.wait()
    assert world.wanted() == {id}
    assert not world.freed


def test_what_a_dead_process_was_sending_is_given_back() -> None:
    world, id = lent_to("b")
    b = world.processes["b"]
    b.send("c", "answers", list(b.held))
    while b.todo:
        b.turn()
    while world.channels["b", "a", "calls"]:
        world.deliver(("b", "a", "calls"))
    world.kill("b", lost="answers")
    world.processes["a"].bury("b")
    world.wait()
    assert world.freed == {id}
    assert len(world.processes["a"].holdings) == 0


# -- one by one -----------------------------------------------------------------------------------------------------


def test_a_token_may_be_used_before_it_is_heard_of() -> None:
    unwanted: list[str] = []
    counts = Counts(unwanted.append)
    counts.add("x", ("sender", 1))
    counts.add("x", ("receiver", 1))
    counts.remove("x", ("passage", 7))  # used up, and only then lent
    counts.remove("x", ("receiver", 1))
    counts.add("x", ("passage", 7))
    assert not unwanted
    counts.remove("x", ("sender", 1))
    assert unwanted == ["x"]
    assert len(counts) == 0


def test_what_comes_late_changes_nothing() -> None:
    counts = Counts(lambda _: None)
    counts.remove("x", ("passage", 1))
    counts.ended("nobody")
    assert len(counts) == 0
    assert not counts.has("x", "passage")


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
    holdings = Holdings(
        at("actor"), todo.append, lambda *_: None, lambda _, changes: told.extend(changes), lambda _: None
    )
    holdings.myself.add("me")
    passage = holdings.passage()
    (hold,) = passage.take([Claim("me", at("owner"), "their-passage", 3)])
    passage.lend([hold])
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
    holdings = Holdings(
        at("a"), todo.append, lambda *_: None, lambda _, changes: batches.append(len(changes)), lambda _: None
    )
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


def test_a_token_that_is_used_up_first_where_only_the_owner_refers_to_the_thing() -> None:
    unwanted: list[str] = []
    counts = Counts(unwanted.append)
    counts.remove("actor", ("passage", 1), held=True)  # the answer was quicker than the word of its token
    counts.add("actor", ("passage", 1))
    assert not counts
    assert unwanted == ["actor"]
    counts.remove("actor", ("passage", 2), held=True)
    counts.released("actor")  # and its sender has ended: the word will never come
    counts.add("actor", ("passage", 2))
    assert len(counts) == 1


def test_a_token_that_is_used_up_first_while_the_last_other_reason_goes() -> None:
    counts = Counts(lambda _: None)
    counts.add("actor", ("there", 1))
    counts.remove("actor", ("back", 1), held=True)  # an answer with the thing, quicker than the word of its token
    counts.remove("actor", ("there", 1), held=True)
    counts.add("actor", ("back", 1))
    assert not counts
