"""Errors of links between processes and devices that few people meet, each provoked; those of discovery too."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from devices import closed_port
from zeroconf.asyncio import AsyncZeroconf

from actors import communicator
from actors._wire import distributed_comm_pb2 as pb
from actors.address import Address, host_key
from actors.arena import Arena
from actors.exceptions import CollectiveError
from actors.messages import Call, Chunk, Payload, Shared
from actors.transport import codec, grpc_link
from actors.transport.bulk import Assembly
from actors.transport.codec import MalformedMessageError
from actors.transport.inquiry import process_at
from actors.transport.job import Job
from actors.transport.knock import probe_door
from actors.transport.lane import Lane
from actors.transport.letterbox import Member
from actors.transport.link import GoneError, LinkLostError, UnreachableError
from actors.transport.local_link import LocalLink
from actors.transport.ways_out import WaysOut
from discovery import DiscoveryError, interfaces, lane, mdns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from actors.messages import Message


def run(work: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


async def linked(sock: socket.socket) -> LocalLink:
    """One end of a connection."""
    _, link = await asyncio.get_running_loop().create_connection(LocalLink, sock=sock)
    return link


# -- within a host ------------------------------------------------------------------------------------------------


def test_a_connection_that_the_system_says_has_ended() -> None:
    async def work() -> None:
        mine, theirs = socket.socketpair()
        link = await linked(mine)
        theirs.close()
        try:
            with pytest.raises(LinkLostError, match=r"the connection has ended: .*Broken pipe"):
                link.send_here(b"frame")
        finally:
            await link.close()

    run(work())


def test_a_message_that_an_interrupt_has_cut_short_is_brought_by_the_next_connection_once() -> None:
    class Interrupted(LocalLink):
        """As where Ctrl-C comes just when a thread has written."""

        def send_here(self, data: bytes) -> bool:
            super().send_here(data)
            raise KeyboardInterrupt

    async def carry(sender: Lane, receiver: Lane, kind: type[LocalLink]) -> Any:
        mine, theirs = socket.socketpair()
        _, near = await asyncio.get_running_loop().create_connection(kind, sock=mine)
        far, had = await linked(theirs), receiver.session.received
        return asyncio.gather(sender.run(near, had), receiver.run(far, sender.session.received))

    async def work() -> None:
        came: list[Message] = []
        loop = asyncio.get_running_loop()
        sender, receiver = Lane(loop, came.append), Lane(loop, came.append)
        ended = await carry(sender, receiver, Interrupted)
        while sender._idle is None:  # noqa: ASYNC110 - bounded by `run`; until its thread may send by itself
            await asyncio.sleep(0.001)
        with pytest.raises(KeyboardInterrupt):
            sender.post(Call(1, "actor-1", "add", Payload(b"once")), at_once=True)
        assert str(sender._broken) == "a message was interrupted"
        await ended
        ended = await carry(sender, receiver, LocalLink)
        await sender.drained()
        await sender.farewell("over")
        await ended
        assert [message.number for message in came if isinstance(message, Call)] == [1]

    run(work())


def test_memory_that_is_shorter_than_what_was_told_of_it(tmp_path: Path) -> None:
    arena = Arena(tmp_path, "reader")
    (tmp_path / "worker-1-7").write_bytes(b"four")
    with pytest.raises(MalformedMessageError, match="cannot be had: worker-1-7 has too few bytes of shared memory"):
        Assembly((8,), arena).add(Chunk(1, 0, (8,), Shared(0, "worker-1-7", 0, 8)))


def test_what_comes_to_be_a_chunk_and_is_none() -> None:
    header = pb.Header(shared=[pb.Shared(name="a", offset=0, size=8)])
    with pytest.raises(MalformedMessageError, match="a chunk came with its bytes and with a place where they lie"):
        codec._piece(pb.CommData(pickle_data=b"8 bytes."), header)


@pytest.mark.parametrize("answer", [b"", bytes(4)])
def test_who_is_asked_who_it_is_and_does_not_say(tmp_path: Path, answer: bytes) -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    async def work() -> None:
        async with await asyncio.start_unix_server(hangs_up, tmp_path / "s"):
            with pytest.raises(LinkLostError, match="it does not say who it is"):
                await process_at(Address("node-1", host_key(), str(tmp_path / "s"), "n1"), WaysOut())

    run(work())


def test_a_folder_for_sockets_that_has_gone() -> None:
    pytest.importorskip("grpc")
    from actors.transport.core_server import CoreServer

    async def work() -> None:
        CoreServer("/nowhere/at/all.sock", "/x", (), lambda link: None)

    with pytest.raises(OSError, match=r"gRPC cannot listen at /nowhere/at/all\.sock"):
        run(work())


def test_a_communicator_that_has_left_and_messages_that_are_none() -> None:
    with pytest.raises(RuntimeError, match=r"this communicator has left its job: call init\(rank, world_size\) again"):
        communicator.GRPCCommunicator()._run(asyncio.sleep(0))
    with pytest.raises(CollectiveError, match="a message without data arrived"):
        communicator._decode(pb.CommData(), b"", "")
    with pytest.raises(ValueError, match="source_rank is 9, but this job's 2 ranks are 0 to 1"):
        run(Job(Member(0, 2, b"secret")).send(pb.SendRequest(source_rank=9, dest_rank=0)))


# -- between devices ----------------------------------------------------------------------------------------------


def test_ways_to_another_device_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    import grpc

    away = Address("p1", "another host", "", "n2", (f"127.0.0.1:{closed_port()}",))
    with pytest.raises(UnreachableError, match="its node has no door that is open to other hosts"):
        run(WaysOut().dial(replace(away, doors=()), "control"))
    with pytest.raises(UnreachableError, match="this process has no key to show at another device's door"):
        run(WaysOut().dial(away, "control"))
    with pytest.raises(GoneError, match=r"nothing listens at 127\.0\.0\.1:\d+: its node has ended"):
        run(probe_door(away.doors[0]))

    async def to_who_says_nothing() -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            where = f"127.0.0.1:{mute.getsockname()[1]}"
            await grpc_link._up(grpc.aio.insecure_channel(where), where)

    monkeypatch.setattr(grpc_link, "DIAL_SECONDS", 0.2)
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:\d+ did not answer within 0\.2 s"):
        run(to_who_says_nothing())


# -- discovery ----------------------------------------------------------------------------------------------------


def test_discovery_that_does_not_open_or_is_opened_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def stuck() -> AsyncIterator[None]:
        await asyncio.sleep(0.5)
        yield

    @contextlib.asynccontextmanager
    async def quick() -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(lane, "WAIT_S", 0.05)
    with (
        pytest.raises(DiscoveryError, match="discovery did not open within 0 s: this machine is overloaded"),
        lane.Lane(stuck, "stuck"),
    ):
        pass
    monkeypatch.undo()
    once = lane.Lane(quick, "the browser")
    with once:
        pass
    with (
        pytest.raises(DiscoveryError, match="was entered before; make a new one for another `with`"),
        once,
    ):
        pass


def test_a_system_that_does_not_list_its_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("ifaddr.get_adapters", refuses)
    interfaces._adapters_at.cache_clear()
    with pytest.raises(DiscoveryError, match=r"the system does not list its network interfaces: .*not permitted"):
        interfaces.own()


def test_multicast_that_cannot_be_had_is_told_of_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(**_: Any) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    async def nowhere() -> None:
        monkeypatch.setattr(mdns, "AsyncZeroconf", taken)
        mdns._open(None)

    async def closed() -> None:
        zeroconf = AsyncZeroconf(interfaces=["127.0.0.1"])
        await zeroconf.async_close()
        await mdns._started(zeroconf.zeroconf)

    with pytest.raises(DiscoveryError, match=r"multicast DNS cannot be used: .*\. "):
        run(nowhere())
    with pytest.raises(DiscoveryError, match=r"multicast DNS did not start: .*\. "):
        run(closed())
