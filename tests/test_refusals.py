"""Hostile bytes at every parser that faces a socket: refused and counted, and nothing comes of them."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_links import link_pair

import actors
from actors import refusals
from actors._wire import distributed_comm_pb2 as pb
from actors.cluster import current
from actors.collective.near import DATAGRAM_BYTES, NearFabric, _frame
from actors.collective.terrain import scattered
from actors.exceptions import ArgumentError, AuthenticationError
from actors.handle import line_of
from actors.identity import Identity
from actors.messages import Call, Cancel, Chunk, Item, Message, Outcome, Payload, Reply, Transfer
from actors.pairing.code import Code
from actors.pairing.exchange import LARGEST_BYTES, Inviter, Joiner, PairingError
from actors.pairing.wire import receive
from actors.transport import shorthand
from actors.transport.acceptor import Acceptor
from actors.transport.codec import MalformedMessageError, decode, encode
from actors.transport.local_link import HEAD_BYTES, LocalLink
from actors.transport.peer import Peer
from actors.transport.public import _part
from actors.transport.reception import Reception
from actors.version import PROTOCOL

if TYPE_CHECKING:
    from actors.transport.acceptor import Visitor

SECRET = b"run me"
NPY = b"\x93NUMPY\x01\x00"
DEVICE = Identity.create()


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(HEAD_BYTES, "little") + data


def hello(**fields: Any) -> pb.Frame:
    return pb.Frame(
        hello=pb.Hello(
            **{"protocol": PROTOCOL, "session": "s", "lane": "control", "source": "x", "target": "me", **fields}
        )
    )


def envelope(number: int, message: Message) -> pb.Frame:
    frame = pb.Frame()
    one = frame.envelopes.add()
    one.seq = number
    encode(message, one.data)
    return frame


def call(number: int = 1) -> Call:
    return Call(number, "actor", "run", Payload(SECRET))


def _data_of(data: bytes) -> pb.CommData | None:
    """Bytes as protobuf reads them; None where it does not."""
    try:
        return pb.CommData.FromString(data)
    except DecodeError:
        return None


class Taker:
    """Notes what reaches it."""

    def __init__(self) -> None:
        self.taken: list[Message] = []

    def anywhere(self, _: Message) -> bool:
        return False

    def received(self, message: Message, _: Visitor) -> None:
        self.taken.append(message)

    def link_lost(self, _: Visitor) -> None: ...

    def gone(self, _: Visitor) -> None: ...


# -- the parsers, fed by hypothesis -----------------------------------------------------------------------------

valid_frames = st.one_of(
    st.builds(hello, session=st.sampled_from(["s", "t"]), resumed=st.booleans(), received=st.integers(0, 3)),
    st.builds(lambda n: envelope(n, call(n)), st.integers(0, 4)),
    st.builds(lambda n: envelope(n, Cancel(n)), st.integers(0, 4)),
    st.builds(lambda n: envelope(n, Call(n, "actor", "run", Transfer(n))), st.integers(0, 4)),
    st.builds(lambda n, i, sizes, data: envelope(n, Chunk(1, i, tuple(sizes), data)), st.integers(1, 3),
              st.integers(0, 2), st.lists(st.sampled_from([0, 1, 5, 2**62]), max_size=3), st.binary(max_size=8)),
    st.builds(lambda n: envelope(n, Reply(n, Outcome.VALUE, Payload(b""))), st.integers(1, 3)),
    st.builds(lambda n: envelope(n, Item(n, 0, Payload(b""))), st.integers(1, 3)),
    st.builds(lambda ack: pb.Frame(ack=ack), st.integers(0, 2**63)),
    st.just(pb.Frame(goodbye=pb.Goodbye(reason="x"))),
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What a stranger may write: real frames and noise, one after the other, torn, bent and repeated."""
    data = b""
    for _ in range(draw(st.integers(0, 5))):
        piece = draw(
            st.one_of(
                valid_frames.map(lambda frame: framed(frame.SerializeToString())),
                st.binary(max_size=60).map(framed),
                st.binary(max_size=60),
                st.integers(0, 2**32 - 1).map(lambda size: size.to_bytes(4, "little")),
            )
        )
        data += piece
    if data and draw(st.booleans()):
        place = draw(st.integers(0, len(data) - 1))
        data = draw(st.sampled_from([data[:place], data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]]))
    return data


def effects(data: bytes) -> list[Message]:
    """What may come of a stream: messages in the order of their numbers after a right hello, up to the first fault."""
    frames: list[pb.Frame] = []
    while len(data) >= HEAD_BYTES:
        size = int.from_bytes(data[:HEAD_BYTES], "little")
        if len(data) < HEAD_BYTES + size:
            break
        try:
            frames.append(pb.Frame.FromString(data[HEAD_BYTES : HEAD_BYTES + size]))
        except DecodeError:
            break
        data = data[HEAD_BYTES + size :]
    if not frames or not frames[0].HasField("hello"):
        return []
    first = frames[0].hello
    if first.target != "me" or first.protocol != PROTOCOL or first.resumed or first.received:
        return []
    found: list[Message] = []
    for frame in frames[1:]:
        if frame.ack:
            break
        for one in frame.envelopes:
            if one.seq == len(found) + 1:
                try:
                    found.append(decode(one.data))
                except MalformedMessageError:
                    return found
            elif one.seq > len(found):
                return found
    return found


@settings(max_examples=150, deadline=None)
@given(streams(), st.integers(1, 50))
def test_whatever_a_stranger_writes_a_socket_lives_on(data: bytes, cut: int) -> None:
    """The framing, the reception, the acceptor, a lane and the codec, one behind the other, as on a real socket."""

    async def work() -> None:
        taker = Taker()
        acceptor = Acceptor("me", taker, asyncio.get_running_loop())
        reception = Reception("me", acceptor)
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, link = await loop.connect_accepted_socket(LocalLink, here)
        serving = asyncio.create_task(reception.greet(link))
        there.setblocking(False)
        try:
            with contextlib.suppress(OSError):
                for start in range(0, len(data), cut):
                    await loop.sock_sendall(there, data[start : start + cut])
                there.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(20):
                await serving
        finally:
            there.close()
            await link.close()
            await acceptor.close("the test is over")
        allowed = iter(effects(data))
        assert all(any(message == one for one in allowed) for message in taker.taken), (taker.taken, effects(data))

    asyncio.run(work())


@st.composite
def bent_frames(draw: st.DrawFn) -> bytes:
    """The bytes of real frames with a few changed, left out or doubled."""
    data = draw(valid_frames).SerializeToString()
    if draw(st.booleans()):
        data = (
            shorthand.write(draw(st.integers(0, 300)), [(draw(st.integers(1, 300)), call(draw(st.integers(0, 300))))])
            or b""
        )
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        new = draw(st.one_of(st.binary(max_size=3), st.just(data[place : place + 2] * 2)))
        data = data[:place] + new + data[place + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=500, deadline=None)
@given(st.one_of(bent_frames(), st.binary(max_size=40)))
def test_the_shorthand_reads_what_protobuf_reads_or_leaves_it_to_that(data: bytes) -> None:
    plain = shorthand.read(data)
    if plain is not None:
        frame = pb.Frame.FromString(data)
        assert not frame.HasField("hello")
        assert not frame.HasField("goodbye")
        assert (frame.ack, [(one.seq, decode(one.data)) for one in frame.envelopes]) == plain


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=60), valid_frames.map(pb.Frame.SerializeToString)))
def test_whatever_answers_a_dial_the_caller_lives_on(answer: bytes) -> None:
    class Dialer:
        async def dial(self, _address: Any, _lane: str) -> Any:
            one, other = link_pair()
            await other.write_bytes(answer)
            await other.close()
            return one

    async def work() -> None:
        loop = asyncio.get_running_loop()
        from actors.address import Address

        peer = Peer(Address("you", "host", "", "node"), "me", Dialer(), loop)  # type: ignore[arg-type]
        try:
            await asyncio.sleep(0.003)
            assert peer.death is None or "failed in a way it should not" not in peer.death.reason, peer.death
        finally:
            await peer.close("the test is over")

    asyncio.run(work())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_whatever_comes_to_a_pairing_is_part_of_it_or_an_error(data: bytes, with_length: bool) -> None:
    async def work() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(len(data).to_bytes(4, "big") + data if with_length else data)
        reader.feed_eof()
        with contextlib.suppress(PairingError, EOFError):
            assert isinstance(await receive(reader), dict)

    asyncio.run(work())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=8) | st.sampled_from(["QQ==", "U0xBVkU=" * 9]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
pairing_messages = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([1, 2]) | json_values,
        **dict.fromkeys(("pake", "confirm", "sealed"), json_values),
    },
)


@settings(max_examples=25, deadline=None)  # each takes the 60 ms of three exchanges
@given(pairing_messages, st.binary(max_size=80))
def test_whatever_a_pairing_message_says_is_an_error_of_pairing(message: dict[str, Any], sealed: bytes) -> None:
    """The steps of both sides, taken with what the other has not said; nobody is let in."""
    code = Code("42", "7K2MXQ9D")
    for first in (Inviter(code).answer, Joiner(code).prove):
        with contextlib.suppress(PairingError):
            first(message)
    joiner, inviter = Joiner(code), Inviter(code)
    joiner.prove(inviter.answer(joiner.hello()))
    assert inviter.keys is not None
    for second in (lambda: inviter.prove(message, DEVICE), lambda: joiner.meet(message),
                   lambda: inviter.keys.read_card("joiner", sealed)):  # fmt: skip
        with pytest.raises((PairingError, AuthenticationError)):
            second()


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.builds(pb.CommData, json_data=st.text(max_size=12) | st.just(50_000).map("[".__mul__)),
        st.builds(pb.CommData, numpy_data=st.binary(max_size=60) | st.binary(max_size=60).map(NPY.__add__)),
        st.builds(pb.CommData, pickle_data=st.binary(max_size=9)),
        st.builds(
            lambda tensor, kind: pb.CommData(tensor_data=tensor, metadata={"kind": kind}),
            st.builds(pb.TensorData, data=st.binary(max_size=16), dtype=st.sampled_from(["float32", "bool", "O", ""]),
                      shape=st.lists(st.sampled_from([-1, 0, 1, 2, 4, 2**31 - 1]), max_size=33)),
            st.sampled_from(["", "numpy", "torch"]),
        ),
        st.binary(max_size=40).map(_data_of),
    )
)  # fmt: skip
def test_whatever_an_argument_of_a_public_call_holds_is_a_value_or_refused(data: pb.CommData | None) -> None:
    if data is not None:
        with contextlib.suppress(ArgumentError):
            _part(data).value()


def test_a_pairing_message_that_is_too_long_is_not_even_read() -> None:
    async def work() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data((LARGEST_BYTES + 1).to_bytes(4, "big"))
        with pytest.raises(PairingError, match="too long"):
            await receive(reader)
        reader.feed_data((0xFFFFFFFF).to_bytes(4, "big"))
        with pytest.raises(PairingError, match="too long"):
            await receive(reader)
        deep = b"[" * 50_000
        reader.feed_data(len(deep).to_bytes(4, "big") + deep)
        with pytest.raises(PairingError, match="no part"):
            await receive(reader)

    asyncio.run(work())


# -- a live actor's socket --------------------------------------------------------------------------------------


@actors.remote
class Target:
    """Somebody to send nonsense to."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self) -> int:
        self.runs += 1
        return self.runs

    def count(self) -> int:
        return self.runs

    def refusals(self) -> dict[str, int]:
        return refusals.counts()


@pytest.fixture(scope="module")
def target(cluster: actors.Cluster) -> Any:
    target = Target.remote()
    assert actors.get(target.run.remote(), timeout=30) == 1
    return target


def said(path: str, data: bytes) -> bytes:
    """Writes to a socket and hangs up; returns what is answered."""
    heard = b""
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(20)
        stranger.connect(path)
        with contextlib.suppress(OSError):
            stranger.sendall(data)
            stranger.shutdown(socket.SHUT_WR)
            while piece := stranger.recv(1 << 16):
                heard += piece
    return heard


def _strange(me: str) -> dict[str, tuple[bytes, str]]:
    run = envelope(1, call()).SerializeToString()

    def greeted(frame: pb.Frame, *rest: bytes) -> bytes:
        return b"".join(map(framed, (frame.SerializeToString(), *rest)))

    return {
        "no frame": (framed(b"\xff" * 50), "a connection that began with no frame"),
        "a call before the hello": (framed(run), "a connection that began with no hello"),
        "too long": (struct.pack("<I", 0xFFFFFFFF), "a frame that is too long"),
        "for another": (greeted(hello(target="worker-nobody"), run), "a hello to a process that is not here"),
        "another protocol": (greeted(hello(target=me, protocol=99), run), "a hello of another protocol"),
        "a session it does not know": (
            greeted(hello(target=me, session="lost", resumed=True), run), "a hello of a session that is not its own"
        ),
        "a gap": (
            greeted(hello(target=me, session="gap"), envelope(7, call()).SerializeToString()),
            "a frame against the rules of its session",
        ),
        "acknowledges what was never sent": (
            greeted(hello(target=me, session="ack"), pb.Frame(ack=99).SerializeToString()),
            "a frame against the rules of its session",
        ),
        "an unknown kind": (
            greeted(hello(target=me, session="kind"), pb.Frame(envelopes=[pb.Envelope(seq=1)]).SerializeToString()),
            "a frame against the rules of its session",
        ),
        "half a frame": (greeted(hello(target=me, session="half")) + framed(run)[:-3], ""),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_strange("")))
def test_strange_bytes_at_an_actors_socket_are_refused_and_counted(target: Any, name: str) -> None:
    address = line_of(target).address
    assert address is not None
    runs = actors.get(target.count.remote(), timeout=30)
    before = actors.get(target.refusals.remote(), timeout=30)
    data, why = _strange(address.process)[name]
    said(address.socket, data)
    after = actors.get(target.refusals.remote(), timeout=30)
    if why:
        assert after.get(why, 0) == before.get(why, 0) + 1, (before, after)
    assert actors.get(target.count.remote(), timeout=30) == runs


def test_the_session_of_another_cannot_be_taken_over(target: Any) -> None:
    """A frame that would be right, with the session of the driver, by somebody who is not the driver."""
    address = line_of(target).address
    assert address is not None
    peer = current()._peers[address.process]
    runs = actors.get(target.count.remote(), timeout=30)
    stolen = hello(target=address.process, session=peer._session, source="driver-thief", received=0)
    number = peer._conversation.control.session.sent + 1
    data = framed(stolen.SerializeToString()) + framed(envelope(number, call(99)).SerializeToString())
    before = actors.get(target.refusals.remote(), timeout=30)
    answer = said(address.socket, data)
    assert b"belongs to another process" in answer
    what = "a hello of a session that is not its own"
    assert actors.get(target.refusals.remote(), timeout=30)[what] == before.get(what, 0) + 1
    assert actors.get(target.run.remote(), timeout=30) == runs + 1


# -- datagrams --------------------------------------------------------------------------------------------------


class Under:
    """The fabric below, which has nothing to say."""

    rank, size, group = 0, 2, "group"
    terrain = scattered(2, None, "")  # type: ignore[arg-type]

    def close(self) -> None: ...


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=100), st.binary(max_size=20).map(lambda b: b"tag\0" + b)), max_size=5))
def test_datagrams_that_no_rank_has_sent_are_passed_over(strange: list[bytes]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="near-", dir="/tmp"))
    fabric = NearFabric(Under(), folder, "key", "n")  # type: ignore[arg-type]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            fabric._open().close()
            sender.connect(str(folder / "n.1"))
            refused = refusals.counts().get("a datagram that no rank has sent", 0)
            bad = [d for d in strange if not (d.startswith(b"tag\0") and d[4:5] in (b"n", b"b", b"p"))]
            for datagram in bad:
                sender.send(datagram)
            sender.send(_frame("tag", b"value") or b"")
            assert fabric._take(fabric._inlets[1], 1, "tag", 10) == b"bvalue"
            plain = [d for d in bad if not _is_of_another_tag(d)]
            now = refusals.counts().get("a datagram that no rank has sent", 0)
            assert now == refused + len(plain)
        finally:
            fabric.close()
            shutil.rmtree(folder)
    assert len(_frame("tag", bytes(100)) or b"") < DATAGRAM_BYTES


def _is_of_another_tag(datagram: bytes) -> bool:
    name, _, frame = datagram.partition(b"\0")
    try:
        return bool(name.decode()) and frame[:1] in (b"n", b"b", b"p")
    except UnicodeDecodeError:
        return False
