"""Links within one host: frames arrive whole and in order however the bytes come, and nonsense does no harm."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import succeed
from hypothesis import given
from hypothesis import strategies as st
from links import Linked

import actors
from actors._wire import distributed_comm_pb2 as pb
from actors.handle import line_of
from actors.transport.link import GoneError, LinkLostError
from actors.transport.local_link import HEAD_BYTES, MAX_FRAME_BYTES, READ_AHEAD_BYTES, LocalLink, dial_local
from actors.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Pipe(asyncio.Transport):
    """What a link writes to; remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.paused = False

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def _framed(frame: bytes) -> bytes:
    return len(frame).to_bytes(HEAD_BYTES, "little") + frame


@given(st.lists(st.binary(max_size=40), max_size=12), st.lists(st.integers(1, 30), max_size=40))
def test_frames_arrive_whole_and_in_order_wherever_the_bytes_are_cut(frames: list[bytes], cuts: list[int]) -> None:
    async def work() -> list[bytes | None]:
        link, data = LocalLink(), b"".join(map(_framed, frames))
        link.connection_made(Pipe())
        for cut in cuts:
            link.data_received(data[:cut])
            data = data[cut:]
            if not data:
                break
        if data:
            link.data_received(data)
        link.connection_lost(None)
        return [await link.read_bytes() for _ in range(len(frames) + 1)]

    assert asyncio.run(work()) == [*frames, None]


@given(st.lists(st.binary(max_size=12), max_size=8), st.lists(st.tuples(*[st.integers(0, 60)] * 2), max_size=6))
def test_a_session_whose_links_are_cut_within_frames_loses_nothing(
    messages: list[bytes], cuts: list[tuple[int, int]]
) -> None:
    """Each of its links lasts for so many bytes there, and so many back, wherever within a frame that is."""

    async def work() -> None:
        sender: Session[bytes] = Session()
        receiver: Session[bytes] = Session()
        delivered: list[bytes] = []
        for message in messages:
            sender.push(message, len(message))
        for there, back in [*cuts, (None, None)]:
            sender.connected(receiver.received)
            sent = []
            while batch := sender.take(2, 20):
                sent.append(pb.Frame(envelopes=[pb.Envelope(seq=n, data=pb.CommData(pickle_data=m)) for n, m in batch]))
            acks = []
            for frame in await _carried(sent, there):
                new = [one for one in frame.envelopes if receiver.accept(one.seq)]
                delivered.extend(one.data.pickle_data for one in new)
                acks.append(pb.Frame(ack=receiver.received))
            for frame in await _carried(acks, back):
                sender.acknowledged(frame.ack)
            assert delivered == messages[: len(delivered)]
        assert delivered == messages
        assert sender.idle

    asyncio.run(work())


async def _carried(frames: list[pb.Frame], last: int | None) -> list[pb.Frame]:
    """What comes of frames where the link ends after so many bytes."""
    link = LocalLink()
    link.connection_made(Pipe())
    link.data_received(b"".join(_framed(frame.SerializeToString()) for frame in frames)[:last])
    link.connection_lost(None)
    found = []
    while (data := await link.read_bytes()) is not None:
        found.append(pb.Frame.FromString(data))
    return found


@given(st.binary(max_size=3), st.integers(MAX_FRAME_BYTES + 1, 2**32 - 1), st.binary(max_size=20), st.integers(1, 8))
def test_a_frame_that_is_too_long_ends_the_link(before: bytes, length: int, rest: bytes, cut: int) -> None:
    async def work() -> None:
        link, pipe = LocalLink(), Pipe()
        link.connection_made(pipe)
        data = _framed(before) + length.to_bytes(HEAD_BYTES, "little") + rest
        for start in range(0, len(data), cut):
            link.data_received(data[start : start + cut])
        assert pipe.aborted
        assert await link.read_bytes() == before
        assert await link.read_bytes() is None
        with pytest.raises(LinkLostError):
            await link.write_bytes(b"more")

    asyncio.run(work())


def test_who_sends_faster_than_is_read_is_held_up() -> None:
    async def work() -> None:
        link, pipe = LocalLink(), Pipe()
        link.connection_made(pipe)
        frame = bytes(1 << 20)
        for _ in range(READ_AHEAD_BYTES // len(frame) + 1):
            link.data_received(_framed(frame))
        assert pipe.paused
        assert await link.read_bytes() == frame
        assert await link.read_bytes() == frame
        assert not pipe.paused

    asyncio.run(work())


# -- over real sockets ------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="link-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def _with_a_pair(folder: Path, work: Callable[[LocalLink, LocalLink], Awaitable[None]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        came: asyncio.Future[LocalLink] = loop.create_future()
        server = await loop.create_unix_server(lambda: LocalLink(came.set_result), str(folder / "s"))
        near = await dial_local(str(folder / "s"))
        far = await came
        try:
            await asyncio.wait_for(work(near, far), 20)
        finally:
            await near.close()
            await far.close()
            server.close()
            await asyncio.sleep(0)

    asyncio.run(run())


class TestAsAnyLink(Linked):
    def with_a_pair(self, folder: Path, work: Callable[[Any, Any], Awaitable[None]]) -> None:
        _with_a_pair(folder, work)


def test_an_interrupt_at_the_gate_leaves_it_open(folder: Path) -> None:
    async def work(one: LocalLink, other: LocalLink) -> None:
        taken: asyncio.Queue[bytes] = asyncio.Queue()
        end = one.receive(taken.put_nowait, lambda _: False)
        gate = one._gate
        shut = gate.shut

        def interrupted() -> None:
            shut()
            gate.shut = shut
            raise KeyboardInterrupt  # as Ctrl-C does it, which Python heeds once a call has returned

        gate.shut = interrupted
        with pytest.raises(KeyboardInterrupt):
            one.lead(lambda: True, 0.0)
        await other.write_bytes(b"after it")
        assert await asyncio.wait_for(taken.get(), 10) == b"after it"
        await other.close()
        await end

    _with_a_pair(folder, work)


def test_nobody_there(folder: Path) -> None:
    with pytest.raises(GoneError):
        asyncio.run(dial_local(str(folder / "nothing")))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "dead"))
    with pytest.raises(GoneError):
        asyncio.run(dial_local(str(folder / "dead")))


@actors.remote
class Target:
    """Somebody to send nonsense to."""

    def answer(self) -> int:
        return 42

    def fds(self) -> int:
        return psutil.Process().num_fds()


NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "half a length": b"\x01\x00",
    "half a frame": b"\xff\x00\x00\x00abc",
    "a huge length": b"\xff\xff\xff\xff",
    "an empty frame": b"\x00\x00\x00\x00",
    "no protobuf": _framed(b"\xff" * 100),
    "http": b"GET / HTTP/1.1\r\n\r\n" * 10,
    "gRPC": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "noise": os.urandom(100_000),
}


def test_nonsense_does_a_process_no_harm(cluster: actors.Cluster) -> None:
    target = Target.remote()
    before = actors.get(target.fds.remote())
    address = line_of(target).address
    assert address is not None
    for data in NONSENSE.values():
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(address.socket)
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            stranger.settimeout(10)
            try:
                while stranger.recv(1 << 16):
                    pass
            except ConnectionError:
                pass
        assert actors.get(target.answer.remote(), timeout=5) == 42
    assert actors.get(target.fds.remote()) <= before + 2


@pytest.mark.slow
def test_everything_goes_by_grpc_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
        import sys
        import actors

        @actors.remote
        class Looker:
            def modules(self):
                return "grpc" in sys.modules

        with actors.init():
            print(actors.get(Looker.remote().modules.remote()), "grpc" in sys.modules)
    """
    assert succeed(program) == ["False False"]
    monkeypatch.setenv("ACTORS_TRANSPORT", "grpc")
    assert succeed(program) == ["True True"]
