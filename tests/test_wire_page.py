"""The page on the wire names every call, message kind and field of the schema, and the limits that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors._wire import distributed_comm_pb2 as pb
from actors.messages import STREAM_WINDOW
from actors.transport import acceptor, bulk, lane, local_link, peer, public, reception, standstill, together
from actors.transport.codec import _READERS
from actors.transport.letterbox import Limits
from actors.transport.manner import BULK, CONTROL
from actors.version import PROTOCOL

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text()
MESSAGES = pb.DESCRIPTOR.message_types_by_name
SELF_EVIDENT = {  # in words there: the answers of the five calls, and the parts of a place
    "success", "message", "result", "offset", "doors", "node_name", "envelopes",
}  # fmt: skip


@pytest.mark.parametrize("message", MESSAGES)
def test_each_field_is_named(message: str) -> None:
    named = set(re.findall(r"\w+", PAGE))
    fields = {field.name for field in MESSAGES[message].fields}
    assert fields - named <= SELF_EVIDENT


def test_each_call_and_each_kind_of_message_is_named() -> None:
    for method in pb.DESCRIPTOR.services_by_name["DistributedComm"].methods:
        assert f"| `{method.name}` |" in PAGE
    for kind in _READERS:
        assert f"| `{kind}` |" in PAGE


@pytest.mark.parametrize(
    ("sentence", "value"),
    [
        ("protocol version {}.", PROTOCOL),
        ("`protocol` {},", PROTOCOL),
        ("The server waits {} s for it", reception.HELLO_SECONDS),
        ("The client waits {} s", peer.HELLO_SECONDS),
        ("gives a session up {} s after", peer.RESUME_SECONDS),
        ("The accepting side does so after {} s", acceptor.RESUME_SECONDS),
        ("slept with its host, for {} s", standstill.STANDSTILL_SECONDS),
        ("dials again every {} s", peer.REDIAL_SECONDS),
        ("up to {} messages or 4 MiB", CONTROL.messages),
        ("512 messages or {} MiB", CONTROL.nbytes >> 20),
        ("on the bulk lane up to {} that", BULK.messages),
        ("a frame of its own {} ms after", lane.ACK_DELAY * 1000),
        ("or after {} (8 on the bulk lane)", CONTROL.ack_after),
        ("or after 512 ({} on the bulk lane)", BULK.ack_after),
        ("A payload of more than {} MiB", bulk.INLINE_BYTES >> 20),
        ("Each is cut at every {} MiB", bulk.CHUNK_BYTES >> 20),
        ("at most {} MiB are under way", bulk.WINDOW_BYTES >> 20),
        ("Up to {} of a part that is not whole", together.MOST_FRAMES),
        ("together, in one frame, {} ms after the first", together.HELD_SECONDS * 1000),
        ("A stream may have {} items", STREAM_WINDOW),
        ("little-endian, at most {} MiB", local_link.MAX_FRAME_BYTES >> 20),
        ("Messages are at most {} characters", public.MOST_CHARACTERS),
        ("carries, and {} minutes without one", public.PATIENCE_SECONDS / 60),
        ("at most {:,} messages and 4 GiB", Limits().messages),
        ("10,000 messages and {} GiB", Limits().stored >> 30),
        ("brought more than {} GiB to unfinished", Limits().held >> 30),
        ("A rank that is {:,} rounds ahead", Limits().rounds),
    ],
)
def test_each_limit_is_that_of_the_code(sentence: str, value: float) -> None:
    whole = int(value) if value == int(value) else value
    assert sentence.format(whole) in " ".join(PAGE.split())
