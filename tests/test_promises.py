"""The promises of delivery, under any interleaving of faults: peers, acceptors and sessions in virtual time.

A caller and a callee, either of which may be restarted, over a network that cuts, loses, repeats and reorders frames,
and that may be silent for seconds or minutes. What is checked after each step is what users rely on: order, at most
one run, one answer, and verdicts that are true and stay true.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors._wire.distributed_comm_pb2 import Frame
from actors.address import Address
from actors.exceptions import Verdict
from actors.messages import Call, Cancel, Message, Outcome, Payload, Reply
from actors.simulation.virtual import VirtualLoop
from actors.transport.acceptor import Acceptor, Visitor
from actors.transport.link import GoneError, LinkLostError, UnreachableError
from actors.transport.peer import Peer

if TYPE_CHECKING:
    from actors.transport.peer import Death

NOTICE_SECONDS = (3.9, 4.9)  # after which the ends of a silent connection are told, as gRPC's keep-alive does


class Way:
    """One direction of a connection. While it is held, nothing comes out."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.ended = False
        self.broken = False  # the writer has been told
        self.held = False
        self.changed = asyncio.Event()

    async def get(self) -> bytes | None:
        while True:
            if not self.held and self.frames:
                return self.frames.popleft()
            if self.broken or (self.ended and not self.held):
                return None
            self.changed.clear()
            await self.changed.wait()

    def change(self, **what: bool) -> None:
        for name, value in what.items():
            setattr(self, name, value)
        self.changed.set()


class End:
    """One end of a connection."""

    node = None

    def __init__(self, inward: Way, outward: Way) -> None:
        self._in = inward
        self._out = outward

    async def read(self) -> Frame | None:
        data = await self._in.get()
        return None if data is None else Frame.FromString(data)

    read_bytes = None

    async def write(self, frame: Frame) -> None:
        await self.write_bytes(frame.SerializeToString())

    async def write_bytes(self, data: bytes) -> None:
        await asyncio.sleep(0)
        if self._out.ended or self._out.broken:
            raise LinkLostError("the connection has ended")
        self._out.frames.append(data)
        self._out.changed.set()

    async def close(self) -> None:
        self._out.change(ended=True)
        self._in.change(broken=True)


class Network:
    """Dials the callee that lives, if the network lets it."""

    def __init__(self) -> None:
        self.silent = False
        self.callees: dict[str, Callee] = {}
        self.ways: list[tuple[Way, Way]] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def dial(self, address: Address, _lane: str) -> Any:
        await asyncio.sleep(0.001)
        if self.silent:
            raise UnreachableError("it is silent")
        callee = self.callees.get(address.process)
        if callee is None:
            raise GoneError("its process has ended")
        there, back = Way(), Way()
        self.ways.append((there, back))
        task = asyncio.get_running_loop().create_task(self._greet(callee.acceptor, End(there, back)))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        return End(back, there)

    @staticmethod
    async def _greet(acceptor: Acceptor, link: End) -> None:
        first = await link.read()
        if first is not None:
            await acceptor.serve(link, first.hello)  # type: ignore[arg-type]

    def cut(self) -> None:
        """What is on its way is lost, and both ends are told."""
        for pair in self.ways:
            for way in pair:
                way.frames.clear()
                way.change(broken=True, held=False)
        self.ways.clear()

    def fall_silent(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing comes through any more; the ends are told one after the other. What was on its way stays there."""
        self.silent = True
        for pair in self.ways:
            for way, seconds in zip(pair, NOTICE_SECONDS, strict=True):
                way.change(held=True)
                loop.call_later(seconds, self._notice, way)

    def _notice(self, way: Way) -> None:
        if way.held and self.silent:
            way.frames.clear()
            way.change(broken=True)

    def heal(self) -> None:
        self.silent = False
        for pair in self.ways:
            for way in pair:
                way.change(held=False)

    async def end(self) -> None:
        self.cut()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


@dataclass(eq=False)
class Asked:
    """One call, and all that happened to it."""

    caller: int
    place: int
    number: int = 0
    starts: int = 0
    outcomes: list[Any] = field(default_factory=list)
    cancelled: bool = False
    anywhere = False

    @property
    def key(self) -> bytes:
        return b"%d/%d" % (self.caller, self.place)

    def replied(self, reply: Reply) -> None:
        assert isinstance(reply.payload, Payload)
        self.outcomes.append((reply.outcome, reply.payload.pickle))

    def yielded(self, _: Any) -> None:
        raise AssertionError

    def lost(self, _: Death, verdict: Verdict) -> None:
        self.outcomes.append(verdict)


class Callee:
    """A process with one actor, which runs one call at a time."""

    def __init__(self, process: str, asked: dict[bytes, Asked]) -> None:
        self.process = process
        self.acceptor = Acceptor(process, self, asyncio.get_event_loop())
        self.queue: deque[tuple[Call, Visitor]] = deque()
        self.running: tuple[Call, Visitor] | None = None
        self.started: list[Asked] = []
        self._asked = asked

    def anywhere(self, _: Message) -> bool:
        return False

    def received(self, message: Message, visitor: Visitor) -> None:
        if isinstance(message, Call):
            self.queue.append((message, visitor))
        elif isinstance(message, Cancel):
            self._withdraw(lambda call, whose: (whose, call.number) == (visitor, message.number))

    def link_lost(self, _: Visitor) -> None: ...

    def gone(self, visitor: Visitor) -> None:
        self._withdraw(lambda _, whose: whose is visitor)

    def _withdraw(self, which: Any) -> None:
        for entry in [entry for entry in self.queue if which(*entry)]:
            self.queue.remove(entry)
            entry[1].post(Reply(entry[0].number, Outcome.NEVER_STARTED, Payload(b"withdrawn")))

    def start(self) -> None:
        if self.running is None and self.queue:
            self.running = self.queue.popleft()
            payload = self.running[0].payload
            assert isinstance(payload, Payload)
            asked = self._asked[payload.pickle]
            asked.starts += 1
            self.started.append(asked)
            # 10 and 4: what has got its verdict starts no more.
            assert not any(isinstance(outcome, Verdict) for outcome in asked.outcomes), "it started after its verdict"

    def finish(self) -> None:
        if self.running is not None:
            call, visitor = self.running
            self.running = None
            visitor.post(Reply(call.number, Outcome.VALUE, call.payload))


class Promises(RuleBasedStateMachine):
    """Steps of two processes and of the network between them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.network = Network()
        self.asked: dict[bytes, Asked] = {}
        self.callee: Callee
        self.all_callees: list[Callee] = []
        self.caller = 0
        self.peers: dict[str, Peer] = {}
        self.gone_peers: list[Peer] = []
        self.loop.work(self._restart_callee())

    async def _settle(self, seconds: float = 0.01) -> None:
        await asyncio.sleep(seconds)
        for _ in range(30):
            await asyncio.sleep(0)

    def step(self, what: Any = None) -> None:
        async def work() -> None:
            if what is not None:
                what()
            await self._settle()

        self.loop.work(work())

    async def _restart_callee(self) -> None:
        self.callee = Callee(f"worker-{len(self.all_callees)}", self.asked)
        self.all_callees.append(self.callee)
        self.network.callees = {self.callee.process: self.callee}

    def _peer(self) -> Peer:
        process = self.callee.process
        if process not in self.peers:
            address = Address(process, "host", "", "node")
            self.peers[process] = Peer(address, f"driver-{self.caller}", self.network, self.loop)  # type: ignore[arg-type]
        return self.peers[process]

    @rule(count=st.integers(1, 6))
    def call(self, count: int) -> None:
        async def work() -> None:
            peer = self._peer()
            for _ in range(count):
                asked = Asked(self.caller, len(self.asked))
                self.asked[asked.key] = asked
                asked.number = peer.call("actor", "method", Payload(asked.key), asked)
            await self._settle()

        self.loop.work(work())

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        mine = [asked for asked in self.asked.values() if asked.caller == self.caller and not asked.outcomes]
        if mine and self.callee.process in self.peers:
            asked = mine[which % len(mine)]
            asked.cancelled = True
            self.step(lambda: self.peers[self.callee.process].cancel(asked.number))

    @rule(count=st.integers(1, 5), finish=st.booleans())
    def run(self, count: int, finish: bool) -> None:
        def work() -> None:
            for _ in range(count):
                self.callee.finish()
                self.callee.start()
            if finish:
                self.callee.finish()

        self.step(work)

    @rule(seconds=st.sampled_from([0.01, 0.5, 3.0, 12.0, 22.0, 31.0, 70.0]))
    def wait(self, seconds: float) -> None:
        self.loop.work(self._settle(seconds))

    @rule()
    def cut(self) -> None:
        self.step(self.network.cut)

    @precondition(lambda self: not self.network.silent)
    @rule()
    def fall_silent(self) -> None:
        self.step(lambda: self.network.fall_silent(self.loop))

    @precondition(lambda self: self.network.silent)
    @rule()
    def heal(self) -> None:
        self.step(self.network.heal)

    @precondition(lambda self: not self.network.silent)
    @rule(
        seconds=st.sampled_from([1.0, 6.0, 27.0, 32.0, 40.0, 70.0]),
        calls=st.integers(0, 2),
        runs=st.integers(0, 2),
        heals=st.booleans(),
    )
    def be_silent(self, seconds: float, calls: int, runs: int, heals: bool) -> None:
        """A silence of every kind: too short to be noticed, to be given up by the callee, or by both."""
        if calls:
            self.call(calls)
        self.step(lambda: self.network.fall_silent(self.loop))
        if runs:
            self.run(runs, finish=True)
        self.loop.work(self._settle(seconds))
        if heals:
            self.step(self.network.heal)
            self.loop.work(self._settle(1.0))
        self.run(1, finish=False)

    @rule(how=st.sampled_from(["lose", "repeat", "reorder"]), way=st.integers(0, 1), count=st.integers(1, 3))
    def bend(self, how: str, way: int, count: int) -> None:
        """Frames are lost, repeated or reordered within a connection, as no honest network does."""

        def hold() -> None:
            for pair in self.network.ways:
                pair[way].change(held=True)

        def bend() -> None:
            for pair in self.network.ways:
                frames = pair[way].frames
                for _ in range(min(count, len(frames))):
                    if how == "lose":
                        frames.popleft()
                    elif how == "repeat":
                        frames.append(frames[-1])
                    else:
                        frames.reverse()
                if not self.network.silent:
                    pair[way].change(held=False)

        self.step(hold)
        self.call(2) if way == 0 else self.run(2, finish=True)
        self.step(bend)
        self.run(4, finish=True)

    @rule(callee=st.booleans())
    def restart(self, callee: bool) -> None:
        """One of the two is killed and comes anew."""
        if callee:
            self.restart_callee()
        else:
            self.restart_caller()

    def restart_callee(self) -> None:
        async def work() -> None:
            self.network.callees = {}
            self.network.cut()
            await self._restart_callee()
            await self._settle()

        self.loop.work(work())

    def restart_caller(self) -> None:
        """Nobody says goodbye, and nobody hears what becomes of its calls."""

        async def work() -> None:
            for peer in self.peers.values():
                for task in (peer._control, peer._bulk):
                    if task is not None:
                        task.cancel()
                self.gone_peers.append(peer)
            self.peers = {}
            self.caller += 1
            if not self.network.silent:
                self.network.cut()
            await self._settle()

        self.loop.work(work())

    # -- what has to hold ---------------------------------------------------------------------------------------

    @invariant()
    def each_starts_at_most_once_and_in_order(self) -> None:
        assert all(asked.starts <= 1 for asked in self.asked.values())
        for callee in self.all_callees:
            for caller in range(self.caller + 1):
                places = [asked.place for asked in callee.started if asked.caller == caller]
                assert places == sorted(places)

    @invariant()
    def none_is_passed_over(self) -> None:
        """A call that starts comes after all earlier ones of its caller: those have started or never will."""
        for callee in self.all_callees:
            queued = {bytes(call.payload.pickle) for call, _ in callee.queue}  # type: ignore[union-attr]
            for asked in callee.started:
                assert not any(
                    self.asked[key].caller == asked.caller and self.asked[key].place < asked.place for key in queued
                )

    @invariant()
    def each_has_at_most_one_answer_and_that_is_true(self) -> None:
        for asked in self.asked.values():
            assert len(asked.outcomes) <= 1
            for outcome in asked.outcomes:
                if outcome is Verdict.NEVER_STARTED:
                    assert not asked.starts
                elif isinstance(outcome, tuple):
                    kind, content = outcome
                    assert (asked.starts == 1) == (kind is Outcome.VALUE)
                    assert content == (asked.key if kind is Outcome.VALUE else b"withdrawn")

    def teardown(self) -> None:
        """With time and a sound network everything comes to an end, and nothing is kept of it."""

        async def work() -> None:
            self.network.heal()
            for _ in range(40):
                await self._settle(5.0)
                while self.callee.queue or self.callee.running:
                    self.callee.finish()
                    self.callee.start()

        try:
            self.loop.work(work())
            for asked in self.asked.values():
                assert len(asked.outcomes) == 1 or asked.caller != self.caller, asked
            self.each_has_at_most_one_answer_and_that_is_true()
            self.each_starts_at_most_once_and_in_order()
            assert not self.callee.queue
            for peer in self.peers.values():
                assert peer.death is not None or peer._conversation.control.session.idle
                assert not peer._calls
            living = {peer._session for peer in self.peers.values()}
            assert set(self.callee.acceptor._visitors) <= living
        finally:
            self.loop.work(self._end())
            self.loop.close()
            asyncio.set_event_loop(None)

    async def _end(self) -> None:
        for peer in [*self.peers.values(), *self.gone_peers]:
            await peer.close("the test is over")
        for callee in self.all_callees:
            await callee.acceptor.close("the test is over")
        await self.network.end()


Promises.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_promises = Promises.TestCase
