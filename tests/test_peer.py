"""Peers and acceptors, over links in memory and over gRPC on Unix sockets: calls run once, each gets its answer."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from memory_links import MemoryDialer

from actors.address import Address, host_key
from actors.exceptions import Verdict
from actors.messages import Call, Cancel, Credit, Item, Message, Outcome, Payload, Replies, Reply
from actors.serialize import dumps_plain
from actors.transport import acceptor as acceptor_module
from actors.transport import peer as peer_module
from actors.transport.acceptor import Acceptor, Visitor
from actors.transport.grpc_link import GrpcDialer
from actors.transport.grpc_server import StreamServer
from actors.transport.link import UnreachableError
from actors.transport.local_server import LocalServer
from actors.transport.peer import Death, Peer
from actors.transport.reception import Reception
from actors.transport.ways_out import WaysOut
from actors.version import PROTOCOL, __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    from actors.transport.link import Link

T = TypeVar("T")
LARGE = b"x" * (3 << 20)


def run(work: Coroutine[Any, Any, T], seconds: float = 25) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await work

    return asyncio.run(bounded())


@dataclass
class Echo:
    """Answers calls by their own payload, but for those of "quiet"; notes all it hears."""

    calls: list[Call] = field(default_factory=list)
    others: list[Message] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    visitors: list[Visitor] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def anywhere(self, message: Message) -> bool:
        return False

    def received(self, message: Message, visitor: Visitor) -> None:
        self.visitors.append(visitor)
        if not isinstance(message, Call):
            self.others.append(message)
        else:
            self.calls.append(message)
            assert isinstance(message.payload, Payload)
            if message.method == "count":
                for index in range(3):
                    visitor.post(Item(message.number, index, Payload(b"%d" % index)))
            if message.method != "quiet":
                visitor.post(Reply(message.number, Outcome.VALUE, message.payload))
        self.changed.set()

    def link_lost(self, visitor: Visitor) -> None:
        self.lost.append(visitor.process)
        self.changed.set()

    def gone(self, visitor: Visitor) -> None:
        self.ended.append(visitor.process)
        self.changed.set()

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


class Ask:
    """Waits for the answer to one call."""

    anywhere = False

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.answers: list[bytes | tuple[Death, Verdict]] = []
        self.done = asyncio.Event()

    def replied(self, reply: Reply) -> None:
        assert isinstance(reply.payload, Payload)
        self.answers.append(reply.payload.pickle)
        self.done.set()

    def yielded(self, item: Item) -> None:
        assert isinstance(item.payload, Payload)
        self.items.append(item.payload.pickle)

    def lost(self, death: Death, verdict: Verdict) -> None:
        self.answers.append((death, verdict))
        self.done.set()

    async def value(self) -> bytes:
        await self.done.wait()
        (answer,) = self.answers
        assert isinstance(answer, bytes), answer
        return answer

    async def verdict(self) -> tuple[Death, Verdict]:
        await self.done.wait()
        (answer,) = self.answers
        assert isinstance(answer, tuple), answer[:20]
        return answer


class CuttableServer(StreamServer):
    """Can break the streams it serves."""

    async def cut(self) -> None:
        for link in list(self._links):
            await link.close()


class CuttableSocket(LocalServer):
    """The same, of those without gRPC."""

    async def cut(self) -> None:
        for link in list(self._tasks.values()):
            await link.close()


class CuttingDialer:
    """Can have what it has dialled broken, or fall silent."""

    def __init__(self, dialer: Any, server: Any) -> None:
        self.silent: set[str] = set()
        self._dialer = dialer
        self._server = server

    async def dial(self, address: Address, lane: str) -> Link:
        if address.process in self.silent:
            raise UnreachableError("it is silent")
        return await self._dialer.dial(address, lane)

    async def cut(self) -> None:
        await self._server.cut()

    async def close(self) -> None:
        await self._dialer.close()


@dataclass
class World:
    """One process that answers, and the way to it.

    Attributes:
        echo: what it does with messages.
        acceptor: its side of the conversations.
        dialer: opens links to it, and breaks them.
        address: where it is.
    """

    echo: Echo
    acceptor: Acceptor
    dialer: Any
    address: Address
    peers: list[Peer] = field(default_factory=list)

    def peer(self, me: str = "driver-1", address: Address | None = None, autopsy: Any = None) -> Peer:
        loop = asyncio.get_running_loop()
        peer = Peer(address or self.address, me, self.dialer, loop, autopsy)
        self.peers.append(peer)
        return peer

    async def isolate(self) -> None:
        """Breaks all links and lets no new ones come up; returns when the peers have noticed."""
        self.dialer.silent.add("worker-1")
        await self.dialer.cut()
        while any(peer._conversation.control.linked for peer in self.peers):  # noqa: ASYNC110 - bounded by the test
            await asyncio.sleep(0.001)


def call(peer: Peer, data: bytes, method: str = "echo") -> Ask:
    ask = Ask()
    peer.call("actor", method, Payload(data), ask)
    return ask


@contextlib.asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    echo, dialer = Echo(), MemoryDialer()
    acceptor = Acceptor("worker-1", echo, asyncio.get_running_loop())
    dialer.acceptors["worker-1"] = acceptor
    world = World(echo, acceptor, dialer, Address("worker-1", host_key(), "", "node-1"))
    try:
        yield world
    finally:
        await asyncio.gather(*(peer.close("the test is over") for peer in world.peers))
        await acceptor.close("the test is over")
        await dialer.close()


def over_grpc() -> Any:
    return over_a_socket(CuttableServer, CuttableServer.listen_socket, GrpcDialer())


def over_frames() -> Any:
    return over_a_socket(CuttableSocket, CuttableSocket.listen, WaysOut())


@contextlib.asynccontextmanager
async def over_a_socket(make: Any, listen: Any, ways_out: Any) -> AsyncIterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))
    echo = Echo()
    acceptor = Acceptor("worker-1", echo, asyncio.get_running_loop())
    server = make(Reception("worker-1", acceptor))
    dialer = CuttingDialer(ways_out, server)
    world = World(echo, acceptor, dialer, Address("worker-1", host_key(), str(folder / "w.sock"), "node-1"))
    try:
        await listen(server, world.address.socket)
        yield world
    finally:
        await asyncio.gather(*(peer.close("the test is over") for peer in world.peers))
        await acceptor.close("the test is over")
        await server.close()
        await dialer.close()
        shutil.rmtree(folder)


WORLDS = {"memory": in_memory, "frames": over_frames, "grpc": over_grpc}


@pytest.fixture(params=list(WORLDS))
def world(request: pytest.FixtureRequest) -> Any:
    return WORLDS[request.param]


@pytest.fixture(autouse=True)
def _quick_redial() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer_module, "REDIAL_SECONDS", 0.01)
        yield


# -- calls ------------------------------------------------------------------------------------------------------


def test_calls_are_answered_in_order(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            asks = [call(peer, b"%d" % number) for number in range(100)]
            assert [await ask.value() for ask in asks] == [b"%d" % number for number in range(100)]
            assert [c.payload.pickle for c in here.echo.calls] == [b"%d" % number for number in range(100)]
            assert {visitor.process for visitor in here.echo.visitors} == {"driver-1"}

    run(work())


def test_large_arguments_and_results(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            large, small = call(peer, LARGE), call(peer, b"small")
            assert await small.value() == b"small"
            assert await large.value() == LARGE
            assert [len(c.payload.pickle) for c in here.echo.calls] == [len(LARGE), 5]  # calls keep their order

    run(work())


def test_items_come_before_the_end_and_messages_about_calls_arrive(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            ask = call(peer, b"end", "count")
            assert await ask.value() == b"end"
            assert ask.items == [b"0", b"1", b"2"]
            number = peer.call("actor", "quiet", Payload(b""), Ask())
            peer.credit(number, 9)
            peer.cancel(number)
            await here.echo.until(lambda: len(here.echo.others) == 2)
            assert here.echo.others == [Credit(number, 9), Cancel(number)]

    run(work())


def test_calls_from_threads(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            asks: dict[bytes, Ask] = {}

            def many(start: int) -> None:
                for number in range(start, start + 50):
                    data = b"%d" % number
                    asks[data] = Ask()
                    peer.call("actor", "echo", Payload(data), asks[data])

            await asyncio.gather(*(asyncio.to_thread(many, 1000 * index) for index in range(4)))
            for data, ask in asks.items():
                assert await ask.value() == data
            numbers = [int(c.payload.pickle) for c in here.echo.calls]
            for index in range(4):
                assert [n for n in numbers if n // 1000 == index] == list(range(1000 * index, 1000 * index + 50))

    run(work())


# -- links that break -------------------------------------------------------------------------------------------


def test_calls_run_once_over_links_that_are_cut(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            asks = []
            for number in range(120):
                asks.append(call(peer, b"%d" % number))
                if number % 20 == 10:
                    await asks[number - 5].value()  # some have come, some are on their way
                    await here.dialer.cut()
            assert [await ask.value() for ask in asks] == [b"%d" % number for number in range(120)]
            assert [c.payload.pickle for c in here.echo.calls] == [b"%d" % number for number in range(120)]
            assert here.echo.ended == []
            assert len({visitor.session for visitor in here.echo.visitors}) == 1

    run(work())


def test_large_payloads_survive_cuts(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            asks = [call(peer, LARGE + b"%d" % number) for number in range(4)]
            for _ in range(3):
                await asyncio.sleep(0.01)  # somewhere on the way
                await here.dialer.cut()
            for number, ask in enumerate(asks):
                assert await ask.value() == LARGE + b"%d" % number
            assert len(here.echo.calls) == 4

    run(work())


def test_links_that_break_after_every_few_frames() -> None:
    async def work() -> None:
        async with in_memory() as here:
            here.dialer.budgets.extend([0, 1, 2, 3, 2, 1, 0, 4, 5, 1, 2, 3])
            peer = here.peer()
            asks = []
            for number in range(60):
                asks.append(call(peer, b"%d" % number))
                await asyncio.sleep(0)
            assert [await ask.value() for ask in asks] == [b"%d" % number for number in range(60)]
            assert [int(c.payload.pickle) for c in here.echo.calls] == list(range(60))

    run(work())


def test_silence_is_waited_out_and_then_death(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            assert await call(peer, b"1").value() == b"1"
            await here.isolate()
            await here.echo.until(lambda: here.echo.lost)
            waiting = call(peer, b"2")
            assert peer.death is None
            here.dialer.silent.clear()
            assert await waiting.value() == b"2"
            monkeypatch.setattr(peer_module, "RESUME_SECONDS", 0.2)
            running = call(peer, b"3", "quiet")
            await here.echo.until(lambda: len(here.echo.calls) == 3)
            await here.isolate()
            await here.echo.until(lambda: len(here.echo.lost) == 2)
            unsent = call(peer, b"4")
            death, verdict = await running.verdict()
            assert "silent for 0.2 s" in death.reason
            assert verdict is Verdict.MAY_HAVE_RUN
            assert (await unsent.verdict())[1] is Verdict.NEVER_STARTED

    run(work())


def test_a_try_that_is_under_way_does_not_put_the_verdict_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "RESUME_SECONDS", 0.5)
    monkeypatch.setattr(peer_module, "HELLO_SECONDS", 600.0)
    path = str(tmp_path / "mute.sock")
    asked: list[Death] = []

    async def autopsy(death: Death) -> Death:
        asked.append(death)
        return death

    async def work() -> None:
        with socket.socket(socket.AF_UNIX) as mute:  # whose connections the system takes, as those of a stopped process
            mute.bind(path)
            mute.listen()
            address = Address("worker-1", host_key(), path, "node-1")
            peer = Peer(address, "driver-1", WaysOut(), asyncio.get_running_loop(), autopsy)
            death, verdict = await call(peer, b"1").verdict()
            assert "silent for 0.5 s" in death.reason
            assert verdict is Verdict.NEVER_STARTED
            assert [one.silent for one in asked] == [True]

    run(work())


def test_answers_to_several_calls_at_once_that_cannot_be_are_refused(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            ask = call(peer, b"1", "quiet")
            for numbers, values, words in [
                ((1,), [5], "was made alone"),
                ((1, 2), [5], "2 replies came with 1 values"),
            ]:
                with pytest.raises(ValueError, match=words):
                    peer._deliver(Replies(numbers, dumps_plain(values)))
            peer._deliver(Replies((7, 8), dumps_plain([5, 6])))  # nobody waits for these
            assert ask.answers == []

    run(work())


def test_a_caller_that_is_silent_for_long_is_given_up(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor_module, "RESUME_SECONDS", 0.1)

    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            assert await call(peer, b"1").value() == b"1"
            running = call(peer, b"2", "quiet")
            await here.echo.until(lambda: len(here.echo.calls) == 2)
            await here.isolate()
            await here.echo.until(lambda: here.echo.ended)
            assert here.echo.lost == here.echo.ended == ["driver-1"]
            here.dialer.silent.clear()
            death, verdict = await running.verdict()
            assert "given the session up" in death.reason
            assert verdict is Verdict.MAY_HAVE_RUN

    run(work())


# -- refusals ---------------------------------------------------------------------------------------------------


def elsewhere(address: Address, process: str) -> Address:
    return Address(process, address.host, address.socket, address.node)


def test_another_process_at_the_address_is_a_death(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            if isinstance(here.dialer, MemoryDialer):
                here.dialer.acceptors["worker-0"] = here.acceptor
            peer = here.peer(address=elsewhere(here.address, "worker-0"))
            death, verdict = await call(peer, b"for another").verdict()
            assert death.reason in ("another process answers at its address", "its process has ended")
            assert verdict is Verdict.NEVER_STARTED
            assert here.echo.calls == []

    run(work())


def test_nothing_at_the_address_is_a_death(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            address = Address("worker-9", here.address.host, here.address.socket + "9", "node-1")
            peer = here.peer(address=address)
            asks = [call(peer, b"x"), call(peer, LARGE)]
            for ask in asks:
                death, verdict = await ask.verdict()
                assert death == Death("its process has ended")
                assert verdict is Verdict.NEVER_STARTED
            late = call(peer, b"later")
            assert (await late.verdict())[1] is Verdict.NEVER_STARTED
            mourned: list[Death] = []
            peer.when_dead(mourned.append)
            assert mourned == [death]

    run(work())


def test_another_protocol_is_refused_with_both_versions(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "PROTOCOL", PROTOCOL + 1)
    monkeypatch.setattr(peer_module, "__version__", "99.1")

    async def work() -> None:
        async with world() as here:
            death, verdict = await call(here.peer(), b"x").verdict()
            assert verdict is Verdict.NEVER_STARTED
            for part in (str(PROTOCOL), str(PROTOCOL + 1), __version__, "99.1", "install the same version"):
                assert part in death.reason
            assert here.echo.calls == []

    run(work())


def test_the_session_of_another_process_is_refused(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            owner, thief = here.peer("driver-1"), here.peer("driver-2")
            assert await call(owner, b"1").value() == b"1"
            assert await call(thief, b"2").value() == b"2"
            thief._session = owner._session
            await here.isolate()
            stolen = call(thief, b"3", "quiet")
            here.dialer.silent.clear()
            death, _ = await stolen.verdict()
            assert "belongs to another process" in death.reason
            assert await call(owner, b"4").value() == b"4"
            assert b"3" not in [c.payload.pickle for c in here.echo.calls]

    run(work())


# -- goodbyes ---------------------------------------------------------------------------------------------------


def test_the_acceptors_goodbye_is_the_peers_death(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            found = Death("it exited with code 3", last_lines=("oops",))
            asked: list[Death] = []

            async def autopsy(death: Death) -> Death:
                asked.append(death)
                return found

            peer = here.peer(autopsy=autopsy)
            mourned: list[Death] = []
            peer.when_dead(mourned.append)
            running = call(peer, b"x", "quiet")
            await here.echo.until(lambda: here.echo.calls)
            await here.acceptor.close("it was told to end")
            assert await running.verdict() == (found, Verdict.MAY_HAVE_RUN)
            assert [death.reason for death in asked] == ["it was told to end"]
            assert mourned == [found]
            assert peer.death == found
            assert peer.dead.is_set()

    run(work())


def test_the_peers_goodbye_ends_the_visit_at_once(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            running = call(peer, b"x", "quiet")
            large = call(peer, LARGE)
            assert await large.value() == LARGE
            await peer.close("the notebook was closed")
            death, verdict = await running.verdict()
            assert (death.reason, verdict) == ("the notebook was closed", Verdict.MAY_HAVE_RUN)
            await here.echo.until(lambda: here.echo.ended)
            assert here.echo.ended == ["driver-1"]
            here.echo.visitors[0].post(Reply(1, Outcome.VALUE, Payload(b"too late")))

    run(work())


def test_a_visitor_that_has_died_is_forgotten(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            assert await call(peer, b"x").value() == b"x"
            here.acceptor.expire("driver-7")
            assert here.echo.ended == []
            here.acceptor.expire("driver-1")
            assert here.echo.ended == ["driver-1"]

    run(work())


def test_flushed_waits_for_answers_on_their_way(world: Any) -> None:
    async def work() -> None:
        async with world() as here:
            peer = here.peer()
            asks = [call(peer, b"x" * size, "quiet") for size in (10, 2 << 20)]
            await here.echo.until(lambda: len(here.echo.calls) == 2)
            for message in here.echo.calls:
                here.echo.visitors[0].post(Reply(message.number, Outcome.VALUE, message.payload))
            await here.acceptor.flushed()
            assert [len(ask.answers) for ask in asks] == [1, 1]

    run(work())


# -- death ------------------------------------------------------------------------------------------------------

VICTIM = """
import asyncio, sys
from actors.messages import Call
from actors.transport.acceptor import Acceptor
from actors.transport.ways_in import WaysIn

class Receiver:
    def anywhere(self, message):
        return False

    def received(self, message, visitor):
        print(message.method, flush=True)
    def link_lost(self, visitor): pass
    def gone(self, visitor): pass

async def main():
    acceptor = Acceptor("worker-5", Receiver(), asyncio.get_running_loop())
    server = WaysIn("worker-5", acceptor)
    await server.listen_socket(sys.argv[1])
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_process_that_is_killed_is_dead_within_a_second(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="peer-", dir="/tmp"))
    path = str(folder / "w.sock")
    victim = subprocess.Popen([sys.executable, "-c", VICTIM, path], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    lines = victim.stdout

    async def work() -> None:
        assert await asyncio.to_thread(lines.readline) == b"up\n"
        loop = asyncio.get_running_loop()
        dialer = WaysOut()
        peer = Peer(Address("worker-5", host_key(), path, "node-1"), "driver-1", dialer, loop)
        try:
            running = call(peer, b"x", "first")
            assert await asyncio.to_thread(lines.readline) == b"first\n"
            victim.send_signal(signal.SIGKILL)
            await asyncio.to_thread(victim.wait)
            killed = loop.time()
            death, verdict = await running.verdict()
            assert loop.time() - killed < 1
            assert (death.reason, verdict) == ("its process has ended", Verdict.MAY_HAVE_RUN)
            assert (await call(peer, b"y").verdict())[1] is Verdict.NEVER_STARTED
        finally:
            await peer.close("the test is over")
            await dialer.close()

    try:
        run(work())
    finally:
        victim.kill()
        victim.wait()
        lines.close()
        shutil.rmtree(folder)
