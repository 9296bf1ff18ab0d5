"""Frames of chunks are read alike by hand and by protobuf, and no bytes are read in another way than by it."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from actors._wire import distributed_comm_pb2 as pb
from actors.messages import Cancel, Chunk
from actors.transport import pieces
from actors.transport.codec import MalformedMessageError, decode

NUMBERS = st.integers(1, 2**63 - 1) | st.integers(1, 300)
ACKS = st.integers(0, 2**63 - 1) | st.integers(0, 300)
CHUNKS = st.builds(
    Chunk, NUMBERS, st.integers(0, 2**40), st.lists(st.integers(0, 2**63), max_size=4).map(tuple), st.binary(min_size=1)
)


MESSAGES = st.lists(st.tuples(NUMBERS, CHUNKS), min_size=1, max_size=4)


@given(ACKS, MESSAGES)
def test_chunks_are_read_back_by_hand_and_by_protobuf(ack, messages):
    data = pieces.write(ack, messages)
    assert pieces.read(data) == judged(data) == (ack, messages)


@given(st.lists(st.tuples(ACKS, st.lists(st.tuples(NUMBERS, CHUNKS), max_size=3)), min_size=1, max_size=4))
def test_frames_one_after_the_other_are_read_as_one(frames):
    data = b"".join(pieces.write(ack, messages) for ack, messages in frames)
    found = pieces.read(data)
    assert found == (judged(data) if data else None)
    assert not data or found[1] == [message for _, messages in frames for message in messages]


@given(ACKS)
def test_an_acknowledgement_alone(ack):
    data = pieces.write(ack, [])
    assert data == pb.Frame(ack=ack).SerializeToString()
    assert not ack or pieces.read(data) == (ack, [])


@given(ACKS, CHUNKS)
def test_what_is_no_chunk_is_left_to_protobuf(ack, chunk):
    assert pieces.write(ack, [(1, Cancel(1))]) is None
    assert pieces.write(ack, [(1, chunk), (2, Cancel(1))]) is None


def test_the_data_of_a_chunk_are_not_copied():
    data = pieces.write(0, [(1, Chunk(1, 0, (3,), b"abc"))])
    ((_, chunk),) = pieces.read(data)[1]
    assert isinstance(chunk.data, memoryview)
    assert chunk.data.obj is data


def judged(data):
    """What protobuf makes of a frame, as far as a lane looks at it; None where it is refused."""
    try:
        frame = pb.Frame.FromString(data)
        return frame.ack, [(envelope.seq, decode(envelope.data)) for envelope in frame.envelopes]
    except (DecodeError, MalformedMessageError):
        return None


@settings(max_examples=300)
@given(ACKS, MESSAGES, st.data())
def test_broken_frames_are_read_as_protobuf_reads_them_or_left_to_it(ack, messages, draw):
    data = bytearray(pieces.write(ack, messages))
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data) - 1)) :]
    else:
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    found = pieces.read(bytes(data))
    assert found is None or found == judged(bytes(data))
