"""Messages on the wire: each kind there and back, and nothing but a clear refusal for what is none."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from actors._wire import distributed_comm_pb2 as pb
from actors.escort import Escort
from actors.messages import (
    Call,
    Calls,
    Cancel,
    Chunk,
    Credit,
    Item,
    Message,
    Outcome,
    Payload,
    Replies,
    Reply,
    Shared,
    Tensor,
    Terms,
    Transfer,
)
from actors.transport.codec import MalformedMessageError, decode, encode

u64 = st.integers(0, 2**64 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shared = st.builds(Shared, st.integers(0, 2**32 - 1), words, u64, u64)
pickles = st.builds(Payload, st.binary(max_size=50))
payloads = st.one_of(
    st.builds(
        Payload,
        st.binary(max_size=50),
        st.lists(st.binary(max_size=50), max_size=4).map(tuple),
        shared=st.lists(shared, max_size=3).map(tuple),
    ),
    st.builds(Transfer, st.integers(1, 2**64 - 1)),
)
terms = st.builds(Terms, st.none() | st.floats(1e-6, 1e9), words, st.integers(-1, 1000))
numbers = st.lists(u64, min_size=1, max_size=5).map(tuple)
plain = st.builds(Payload, st.binary(min_size=1, max_size=50))


def one_each(numbers: tuple[int, ...]) -> Payload:
    return Payload(b"", tuple(str(number).encode() for number in numbers))


messages = st.one_of(
    st.builds(Calls, numbers, words, words, plain, terms),
    st.builds(lambda n, t, m, how: Calls(n, t, m, one_each(n), how), numbers, words, words, terms),
    st.builds(lambda n: Replies(n, one_each(n)), numbers),
    st.builds(Call, u64, words, words, payloads, terms),
    st.builds(Reply, u64, st.sampled_from([outcome for outcome in Outcome if outcome is not Outcome.KEPT]), payloads),
    st.builds(
        lambda call, value, *escort: Reply(call, Outcome.KEPT, Escort(*escort).beside(value)),
        u64,
        pickles,
        st.text("abc-1"),
        u64,
        pickles,
    ),
    st.builds(Item, u64, u64, payloads),
    st.builds(Credit, u64, u64),
    st.builds(Cancel, u64, st.booleans(), st.booleans()),
    st.builds(Tensor, words, i32, words, payloads),
    st.builds(Chunk, u64, u64, st.lists(u64, max_size=4).map(tuple), st.binary(max_size=50)),
)


def over_the_wire(message: Message) -> Message:
    data = pb.CommData()
    encode(message, data)
    return decode(pb.CommData.FromString(data.SerializeToString()))


@given(messages)
def test_every_kind_there_and_back(message: Message) -> None:
    assert over_the_wire(message) == message


@pytest.mark.parametrize(
    "message",
    [
        Calls((1, 2), "a", "m", Payload(b"", (b"x",))),
        Calls((1,), "a", "m", Payload(b"p", (b"x",))),
        Replies((1, 2), Payload(b"", (b"x",))),
        Replies((1,), Payload(b"")),
    ],
)
def test_what_comes_together_has_one_value_each(message: Message) -> None:
    with pytest.raises(MalformedMessageError, match="came with"):
        over_the_wire(message)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(b * 2)[::2]])
def test_buffers_of_every_kind_arrive_as_bytes(kind: object) -> None:
    buffer = kind(b"a" * 9)  # type: ignore[operator]
    assert over_the_wire(Reply(1, Outcome.VALUE, Payload(b"p", (buffer,)))) == Reply(
        1, Outcome.VALUE, Payload(b"p", (b"a" * 9,))
    )
    assert over_the_wire(Chunk(1, 0, (9,), buffer)) == Chunk(1, 0, (9,), b"a" * 9)


def test_an_unknown_kind_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(MalformedMessageError, match="'gossip' is no kind of message; known are call, reply, item"):
        decode(pb.CommData(comm_type="gossip"))


def test_a_long_kind_is_not_quoted_at_length() -> None:
    with pytest.raises(MalformedMessageError) as caught:
        decode(pb.CommData(comm_type="x" * 1_000_000))
    assert len(str(caught.value)) < 300


def test_an_unknown_outcome_is_refused() -> None:
    with pytest.raises(MalformedMessageError, match="17 is no outcome"):
        decode(pb.CommData(comm_type="reply", header=pb.Header(outcome=17)))


@pytest.mark.parametrize("buffers", [(), (b"actor", b"1"), (b"actor", b"one", b""), (b"\xff", b"1", b"")])
def test_a_state_that_is_none_is_refused(buffers: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedMessageError, match="bring its actor's state"):
        decode(pb.CommData(comm_type="reply", header=pb.Header(outcome=6), buffers=buffers))


KINDS = ["call", "reply", "item", "tensor", "credit", "cancel", "chunk", "CALL", "send", ""]


@given(st.one_of(st.sampled_from(KINDS), words), st.binary(max_size=200), st.binary(max_size=100))
def test_garbage_is_refused_and_nothing_else(kind: str, garbage: bytes, header: bytes) -> None:
    data = pb.CommData()
    try:
        data.MergeFromString(garbage)
        data.header.MergeFromString(header)
    except DecodeError:
        pass  # what was read up to there is looked at
    data.comm_type = kind
    try:
        message = decode(data)
    except MalformedMessageError:
        return
    assert isinstance(message, Message)


@given(st.sampled_from(KINDS[:7]), messages, st.data())
def test_fields_that_belong_to_other_kinds_do_no_harm(kind: str, message: Message, data: st.DataObject) -> None:
    wire = pb.CommData()
    encode(message, wire)
    wire.comm_type = kind
    wire.header.outcome = data.draw(st.integers(0, 2**32 - 1))
    if data.draw(st.booleans()):
        wire.tensor_data.dtype = "float32"  # takes the place of pickle_data
    try:
        assert isinstance(decode(wire), Message)
    except MalformedMessageError:
        assert kind in {"reply", "chunk"}
