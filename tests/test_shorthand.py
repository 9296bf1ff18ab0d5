"""Plain calls and values are the same bytes by hand as by protobuf, and no bytes are read in another way than by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from actors._wire import distributed_comm_pb2 as pb
from actors.messages import PLAIN, ROOT, Call, Credit, Item, Outcome, Payload, Reply, Terms, Transfer
from actors.transport import shorthand
from actors.transport.codec import MalformedMessageError, decode, encode

if TYPE_CHECKING:
    from actors.messages import Message

NUMBERS = st.integers(1, 2**63 - 1) | st.integers(1, 300)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=200)
PICKLES = st.binary(max_size=300)
PASSED_ON = st.builds(
    Terms, st.none(), st.just(""), st.just(1), st.just("") | TEXTS, st.just("") | st.just(ROOT) | TEXTS
)
CALLS = st.builds(Call, NUMBERS, TEXTS, TEXTS, st.builds(Payload, PICKLES), st.just(PLAIN) | PASSED_ON)
VALUES = st.builds(Reply, NUMBERS, st.just(Outcome.VALUE), st.builds(Payload, PICKLES))
BATCHES = st.lists(st.tuples(NUMBERS, CALLS | VALUES), max_size=5)
OTHERS = st.one_of(
    st.builds(Call, NUMBERS, TEXTS, TEXTS, st.builds(Payload, PICKLES), st.builds(Terms, st.floats(1, 9))),
    st.builds(Call, NUMBERS, TEXTS, TEXTS, st.builds(Payload, PICKLES, st.lists(PICKLES, min_size=1, max_size=2))),
    st.builds(Call, NUMBERS, TEXTS, TEXTS, st.builds(Transfer, NUMBERS)),
    st.builds(Reply, NUMBERS, st.sampled_from(sorted(set(Outcome) - {Outcome.VALUE})), st.builds(Payload, PICKLES)),
    st.builds(Item, NUMBERS, NUMBERS, st.builds(Payload, PICKLES)),
    st.builds(Credit, NUMBERS, NUMBERS),
)


def by_protobuf(ack: int, messages: list[tuple[int, Message]]) -> bytes:
    frame = pb.Frame(ack=ack)
    for number, message in messages:
        envelope = frame.envelopes.add()
        envelope.seq = number
        encode(message, envelope.data)
    return frame.SerializeToString(deterministic=True)


@given(st.integers(0, 2**63 - 1) | st.integers(0, 300), BATCHES)
def test_it_is_written_as_protobuf_writes_it_and_read_back(ack, messages):
    data = shorthand.write(ack, messages)
    assert data == by_protobuf(ack, messages)
    if data:
        assert shorthand.read(data) == (ack, messages)


@given(st.integers(0, 300), BATCHES, OTHERS, st.integers(0, 5))
def test_what_is_more_than_plain_is_left_to_protobuf(ack, messages, other, place):
    messages.insert(place, (7, other))
    assert shorthand.write(ack, messages) is None
    assert shorthand.read(by_protobuf(ack, messages)) is None


def test_what_it_reads_has_the_one_value_for_plain_terms():
    data = by_protobuf(0, [(1, Call(1, "a", "b", Payload(b"c")))])
    found = shorthand.read(data)
    assert found is not None
    assert found[1][0][1].terms is PLAIN


@settings(max_examples=500)
@given(st.integers(0, 300), BATCHES, st.data())
def test_damaged_bytes_are_read_as_protobuf_reads_them_or_left_to_it(ack, messages, data):
    whole = bytearray(by_protobuf(ack, messages))
    if whole:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    kept = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    agrees(kept)


@settings(max_examples=500)
@given(st.binary(max_size=60))
def test_noise_is_read_as_protobuf_reads_it_or_left_to_it(noise):
    agrees(noise)
    agrees(b"\x1a" + noise)
    agrees(b"\x10\x05\x1a\x14\x08\x01\x12\x10\x0a\x04call\x22" + noise)


def agrees(data: bytes) -> None:
    found = shorthand.read(data)
    if found is None:
        return
    try:
        frame = pb.Frame.FromString(data)
        theirs = [(envelope.seq, decode(envelope.data)) for envelope in frame.envelopes]
    except (DecodeError, MalformedMessageError) as error:
        raise AssertionError(f"protobuf refuses what was read as {found}") from error
    assert (frame.ack, theirs) == found
    assert not frame.HasField("hello")
    assert not frame.HasField("goodbye")
