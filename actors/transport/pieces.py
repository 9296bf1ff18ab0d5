"""Frames of chunks of large payloads, written and read with the fewest copies and without protobuf's objects.

The bytes are the schema's, in an order in which those of a chunk stand last in its message: a writer puts a head before
them, and a reader takes what follows as it is. What is anything else is left to `actors.transport.codec`.
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
_ACK, _ENVELOPE = 0x10, 0x1A
_NUMBER, _MESSAGE = 0x08, 0x12
_DATA = 0x22


def write(ack: int, messages: Sequence[tuple[int, Message]]) -> bytes | None:
    """Returns a frame's bytes; None where it holds anything but chunks, or an acknowledgement alone."""
    parts: list[Buffer] = [b"\x10" + varint(ack)] if ack else []
    for number, chunk in messages:
        if not isinstance(chunk, Chunk):
            return None
        parts += _written(number, chunk)
    return b"".join(parts)


def _written(number: int, chunk: Chunk) -> tuple[bytes, Buffer]:
    """Returns what comes before a chunk's bytes, and these."""
    header = Header(transfer=chunk.transfer, index=chunk.index, sizes=chunk.sizes)
    content: Buffer = b""
    if isinstance(chunk.data, Shared):
        header.shared.add(name=chunk.data.name, offset=chunk.data.offset, size=chunk.data.size)
    else:
        content = chunk.data
    about, size = header.SerializeToString(), len(content)
    data = b"".join((_KIND, varint(len(about)), about, b"\x22", varint(size)))
    envelope = b"".join((b"\x08", varint(number), b"\x12", varint(len(data) + size), data))
    return b"".join((b"\x1a", varint(len(envelope) + size), envelope)), content


def read(data: bytes) -> tuple[int, list[tuple[int, Chunk]]] | None:
    """Returns what a frame acknowledges, and its chunks, whose bytes are views; None where it is written otherwise.

    Frames one after the other are read as one.
    """
    try:
        return _read(data)
    except (IndexError, DecodeError):  # protobuf says what is wrong with it
        return None


def _read(data: bytes) -> tuple[int, list[tuple[int, Chunk]]] | None:
    ack, at, end = 0, 0, len(data)
    found: list[tuple[int, Chunk]] = []
    while at < end:
        if data[at] == _ACK:
            ack, at = read_varint(data, at + 1)
            continue
        if data[at] != _ENVELOPE:
            return None
        size, at = read_varint(data, at + 1)
        message = _read_envelope(data, at, at + size)
        if message is None:
            return None
        found.append(message)
        at += size
    return (ack, found) if end else None


def _read_envelope(data: bytes, at: int, end: int) -> tuple[int, Chunk] | None:
    if end > len(data) or data[at] != _NUMBER:
        return None
    number, at = read_varint(data, at + 1)
    if data[at] != _MESSAGE:
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
        return number, Chunk(about.transfer, about.index, tuple(about.sizes), memoryview(data)[at:end])
    if size:
        return None
    where = about.shared[0]
    shared = Shared(0, where.name, where.offset, where.size)
    return number, Chunk(about.transfer, about.index, tuple(about.sizes), shared)
