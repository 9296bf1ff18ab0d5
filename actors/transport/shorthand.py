"""Shorthand: frames of nothing but plain calls and plain values, written and read without protobuf's objects.

These are most of all frames, and the objects would take a quarter of a small call's time. Plain is also a call from a
cell of a notebook, or one that is part of a trace. The bytes are the schema's own, as protobuf writes them
(https://protobuf.dev/programming-guides/encoding), so the other side need not know. What is anything else, or was
written in another order, is left to `actors.transport.codec`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from actors.messages import PLAIN, ROOT, ROOTED, VALUE, Call, Payload, Reply, Terms
from actors.transport.varint import SHORT, read_varint, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.messages import Message

# Field numbers of the schema, as tags: number << 3 | wire type.
_ACK, _ENVELOPE = 0x10, 0x1A
_SEQ, _DATA = 0x08, 0x12
_HEADER = 0x32
_TARGET, _METHOD, _NUMBER = 0x0A, 0x12, 0x18
_ORIGIN, _TRACE = b"\x8a\x01", b"\x92\x01"
_TRACED = _TRACE + b"\x37"  # a traceparent, all of which are as long
_TRACED_BYTES = len(_TRACED) + 0x37
_ROOTED = _TRACE + b"\x01" + ROOT.encode()
_ROOTED_BYTES = len(_ROOTED)
_CALL_HEAD = b"\x0a\x04call\x22"  # the kind, and the tag of the pickle
_REPLY_HEAD = b"\x0a\x05reply\x22"

Plain = Call | Reply


def write(ack: int, messages: Sequence[tuple[int, Message]]) -> bytes | None:
    """Returns a frame's bytes; None where something in it is more than a plain call or value.

    Args:
        ack: what has been received.
        messages: with their numbers.
    """
    parts = [b"\x10" + varint(ack)] if ack else []
    for number, message in messages:
        if type(message) is Call:
            kind = _CALL_HEAD
            header = _addressed(message.target, message.method) + varint(message.number)
            if (terms := message.terms) is ROOTED:
                header += _ROOTED
            elif terms is not PLAIN:
                if terms.remaining is not None or terms.group or terms.returns != 1:
                    return None
                if terms.origin:
                    header += _text(_ORIGIN, terms.origin)
                header += _text(_TRACE, terms.trace)
        elif type(message) is Reply and message.outcome is VALUE:
            kind = _REPLY_HEAD
            header = b"\x18" + varint(message.number)
        else:
            return None
        payload = message.payload
        if type(payload) is not Payload or payload.buffers or payload.holds or payload.shared:
            return None
        pickle = payload.pickle
        nbytes = len(pickle)
        # A length is mostly of one byte, and to call for that takes longer than to look.
        size = SHORT[nbytes] if nbytes < 0x80 else varint(nbytes)
        nbytes += len(kind) + len(size) + 1
        length = len(header)
        head = SHORT[length] if length < 0x80 else varint(length)
        nbytes += len(head) + length
        seq = b"\x08" + varint(number) + b"\x12" + (SHORT[nbytes] if nbytes < 0x80 else varint(nbytes))
        nbytes += len(seq)
        whole = SHORT[nbytes] if nbytes < 0x80 else varint(nbytes)
        parts += (b"\x1a", whole, seq, kind, size, pickle, b"\x32", head, header)
    return b"".join(parts)


def read(data: bytes) -> tuple[int, list[tuple[int, Plain]]] | None:
    """Returns what a frame acknowledges, and its messages with their numbers; None where it is not plain."""
    try:
        return _read(data)
    except (IndexError, UnicodeDecodeError):  # cut short, or no text: protobuf says what is wrong with it
        return None


def _read(data: bytes) -> tuple[int, list[tuple[int, Plain]]] | None:
    ack, at, end = 0, 0, len(data)
    if data[0] == _ACK:
        ack, at = read_varint(data, 1)
    messages: list[tuple[int, Plain]] = []
    while at < end:
        if data[at] != _ENVELOPE:
            return None
        size = data[at + 1]
        at += 2
        if size >= 0x80:
            size, at = read_varint(data, at - 1)
        stop = at + size
        if stop > end or data[at] != _SEQ:
            return None
        seq, at = read_varint(data, at + 1)
        if data[at] != _DATA:
            return None
        size = data[at + 1]
        at += 2
        if size >= 0x80:
            size, at = read_varint(data, at - 1)
        message = _message(data, at, stop) if at + size == stop else None
        if message is None:
            return None
        messages.append((seq, message))
        at = stop
    return ack, messages


def _message(data: bytes, at: int, stop: int) -> Plain | None:
    is_call = data.startswith(_CALL_HEAD, at)
    if not is_call and not data.startswith(_REPLY_HEAD, at):
        return None
    at += len(_CALL_HEAD) if is_call else len(_REPLY_HEAD)
    size = data[at]
    at += 1
    if size >= 0x80:
        size, at = read_varint(data, at - 1)
    pickle = data[at : at + size]
    at += size
    if data[at] != _HEADER:
        return None
    size = data[at + 1]
    at += 2
    if size >= 0x80:
        size, at = read_varint(data, at - 1)
    if at + size != stop:
        return None
    target = method = ""
    if is_call:
        begin = at
        if data[at] != _TARGET:
            return None
        size, at = read_varint(data, at + 1)
        at += size
        if data[at] != _METHOD:
            return None
        size, at = read_varint(data, at + 1)
        at += size
        address = data[begin:at]
        target, method = _read_address(address) if len(address) <= _LONG else _take_apart(address)
    if data[at] != _NUMBER:
        return None
    number, at = read_varint(data, at + 1)
    terms = PLAIN
    if stop - at == _ROOTED_BYTES and is_call and data.startswith(_ROOTED, at):
        terms, at = ROOTED, stop
    elif stop - at == _TRACED_BYTES and is_call and data.startswith(_TRACED, at):
        terms = Terms(None, "", 1, "", data[at + len(_TRACED) : stop].decode())
        at = stop
    elif at != stop and is_call:
        origin, at = _read_text(data, at, _ORIGIN)
        trace, at = _read_text(data, at, _TRACE)
        terms = Terms(origin=origin, trace=trace)
    if at != stop:
        return None
    payload = Payload(pickle)
    return Call(number, target, method, payload, terms) if is_call else Reply(number, VALUE, payload)


def _text(tag: bytes, text: str) -> bytes:
    if not text:
        return b""
    data = text.encode()
    nbytes = len(data)
    return tag + (SHORT[nbytes] if nbytes < 0x80 else varint(nbytes)) + data


def _read_text(data: bytes, at: int, tag: bytes) -> tuple[str, int]:
    """Returns a field's text, if it is there, and where the next begins."""
    if not data.startswith(tag, at):
        return "", at
    size, at = read_varint(data, at + len(tag))
    return data[at : at + size].decode(), at + size


def _take_apart(address: bytes) -> tuple[str, str]:
    """Reads what `_addressed` writes, but for the last tag."""
    size, at = read_varint(address, 1)
    target = address[at : at + size].decode()
    size, at = read_varint(address, at + size + 1)
    return target, address[at : at + size].decode()


_LONG = 256  # bytes of an address that is not kept
_read_address = lru_cache(maxsize=1024)(_take_apart)


@lru_cache(maxsize=1024)  # an actor's methods are called again and again
def _addressed(target: str, method: str) -> bytes:
    """The header of a call, up to its number."""
    return _text(b"\x0a", target) + _text(b"\x12", method) + b"\x18"
