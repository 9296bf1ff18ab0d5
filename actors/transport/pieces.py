"""Frames of one chunk of a large payload, written and read with the fewest copies and without protobuf's objects.

The bytes are the schema's, in an order in which the chunk stands last: a writer puts a head before it, and a reader
takes the rest of the frame as it is. What is anything else is left to `actors.transport.codec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from actors._wire.distributed_comm_pb2 import Header
from actors.messages import Chunk, Shared
from actors.transport.varint import read_varint, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.messages import Buffer, Message

_KIND = b"\x0a\x05chunk\x32"  # and the tag of the header
_DATA = 0x22


def write(ack: int, messages: Sequence[tuple[int, Message]]) -> bytes | None:
    """Returns a frame's bytes; None where it holds anything but one chunk, or an acknowledgement alone."""
    acknowledged = b"\x10" + varint(ack) if ack else b""
    if not messages:
        return acknowledged
    (number, chunk), *more = messages
    if more or not isinstance(chunk, Chunk):
        return None
    header = Header(transfer=chunk.transfer, index=chunk.index, sizes=chunk.sizes)
    content: Buffer = b""
    if isinstance(chunk.data, Shared):
        header.shared.add(name=chunk.data.name, offset=chunk.data.offset, size=chunk.data.size)
    else:
        content = chunk.data
    about, size = header.SerializeToString(), len(content)
    data = b"".join((_KIND, varint(len(about)), about, b"\x22", varint(size)))
    envelope = b"".join((b"\x08", varint(number), b"\x12", varint(len(data) + size), data))
    return b"".join((acknowledged, b"\x1a", varint(len(envelope) + size), envelope, content))


def read(data: bytes) -> tuple[int, list[tuple[int, Chunk]]] | None:
    """Returns what a frame acknowledges, and its one chunk, which is a view; None where it is written otherwise."""
    try:
        return _read(data)
    except (IndexError, DecodeError):  # protobuf says what is wrong with it
        return None


def _read(data: bytes) -> tuple[int, list[tuple[int, Chunk]]] | None:
    ack, at, end = 0, 0, len(data)
    if data[0] == 0x10:
        ack, at = read_varint(data, 1)
        if at == end:
            return ack, []
    if data[at] != 0x1A:
        return None
    size, at = read_varint(data, at + 1)
    if at + size != end or data[at] != 0x08:
        return None
    number, at = read_varint(data, at + 1)
    if data[at] != 0x12:
        return None
    size, at = read_varint(data, at + 1)
    if at + size != end or not data.startswith(_KIND, at):
        return None
    size, at = read_varint(data, at + len(_KIND))
    about, at = Header.FromString(data[at : at + size]), at + size
    if data[at] != _DATA:
        return None
    size, at = read_varint(data, at + 1)
    if at + size != end:
        return None
    if not about.shared:
        return ack, [(number, Chunk(about.transfer, about.index, tuple(about.sizes), memoryview(data)[at:]))]
    if size:
        return None
    where = about.shared[0]
    shared = Shared(0, where.name, where.offset, where.size)
    return ack, [(number, Chunk(about.transfer, about.index, tuple(about.sizes), shared))]
