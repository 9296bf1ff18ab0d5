"""Messages ↔ the schema's `CommData`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.address import Address
from actors.messages import (
    PLAIN,
    Call,
    Calls,
    Cancel,
    Chunk,
    Claim,
    Credit,
    Item,
    Message,
    Outcome,
    Payload,
    Replies,
    Reply,
    Shared,
    Tally,
    Tensor,
    Terms,
    Transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors._wire import distributed_comm_pb2 as pb
    from actors.holdings import Hold


_OUTCOMES = {outcome.value: outcome for outcome in Outcome}
_DIGITS = 20  # of a token's number
SOONEST = 1e-6  # seconds; a deadline that has passed must not read as none


class MalformedMessageError(ValueError):
    """A peer sent what is not a message of the runtime."""


def encode(message: Message, data: pb.CommData) -> None:
    """Writes ``message`` into ``data``, an empty `CommData`."""
    header = data.header
    match message:
        case Call(number, target, method, payload, terms):
            data.comm_type = "call"
            header.call, header.target, header.method = number, target, method
            if terms is not PLAIN:
                _encode_terms(terms, header)
        case Calls(numbers, target, method, payload, terms):
            data.comm_type = "calls"
            header.sizes.extend(numbers)
            header.target, header.method = target, method
            if terms is not PLAIN:
                _encode_terms(terms, header)
        case Replies(numbers, payload):
            data.comm_type = "replies"
            header.sizes.extend(numbers)
        case Reply(number, outcome, payload):
            data.comm_type = "reply"
            header.call, header.outcome = number, outcome
        case Item(number, index, payload):
            data.comm_type = "item"
            header.call, header.index = number, index
        case Tensor(group, source, tag, payload):
            data.comm_type = "tensor"
            header.target, header.source_rank, header.tag = group, source, tag
        case Tally(payload):
            data.comm_type = "tally"
        case Credit(number, upto):
            data.comm_type = "credit"
            header.call, header.index = number, upto
            return
        case Cancel(number, force, recursive):
            data.comm_type = "cancel"
            header.call, header.force, header.alone = number, force, not recursive
            return
        case Chunk(transfer, index, sizes, chunk):
            data.comm_type = "chunk"
            header.transfer, header.index = transfer, index
            header.sizes.extend(sizes)
            if isinstance(chunk, Shared):
                header.shared.add(name=chunk.name, offset=chunk.offset, size=chunk.size)
            else:
                data.pickle_data = bytes(chunk)
            return
    if payload.holds:
        _encode_claims(payload.holds, header)
    if isinstance(payload, Transfer):
        header.transfer = payload.number
    else:
        data.pickle_data = payload.pickle
        data.buffers.extend(bytes(buffer) for buffer in payload.buffers)
        for part in payload.shared:
            header.shared.add(index=part.index, name=part.name, offset=part.offset, size=part.size)


def decode(data: pb.CommData) -> Message:
    """Reads a message out of ``data``.

    Raises:
        MalformedMessageError: ``data`` is of no kind the runtime knows.
    """
    reader = _READERS.get(data.comm_type)
    if reader is None:
        raise MalformedMessageError(f"{data.comm_type[:100]!r} is no kind of message; known are {', '.join(_READERS)}")
    return reader(data, data.header)


def _payload(data: pb.CommData, header: pb.Header) -> Payload | Transfer:
    claims = _claims(header) if header.claims else ()
    if header.transfer:
        return Transfer(header.transfer, claims)
    shared = tuple(Shared(s.index, s.name, s.offset, s.size) for s in header.shared) if header.shared else ()
    return Payload(data.pickle_data, tuple(data.buffers), claims, shared)


def _calls(data: pb.CommData, header: pb.Header) -> Calls:
    if data.buffers and (data.pickle_data or len(data.buffers) != len(header.sizes)):
        raise MalformedMessageError(f"{len(header.sizes)} calls came with {len(data.buffers)} arguments")
    return Calls(tuple(header.sizes), header.target, header.method, _together(data), _terms(header))


def _replies(data: pb.CommData, header: pb.Header) -> Replies:
    if not data.pickle_data and len(data.buffers) != len(header.sizes):
        raise MalformedMessageError(f"{len(header.sizes)} replies came with {len(data.buffers)} values")
    return Replies(tuple(header.sizes), _together(data))


def _piece(data: pb.CommData, header: pb.Header) -> bytes | Shared:
    if not header.shared:
        return data.pickle_data
    if data.pickle_data:
        raise MalformedMessageError("a chunk came with its bytes and with a place where they lie")
    where = header.shared[0]
    return Shared(0, where.name, where.offset, where.size)


def _together(data: pb.CommData) -> Payload:
    return Payload(data.pickle_data, tuple(data.buffers))


def _encode_claims(claims: tuple[Hold | Claim, ...], header: pb.Header) -> None:
    owner: Address | None = None
    for claim in claims:
        assert isinstance(claim, Claim)  # a conversation has seen to it
        wire = header.claims.add(id=claim.id, token=f"{claim.passage}#{claim.number}")
        # A list of references mostly has one owner: it is written where it is another than before.
        if claim.owner != owner:
            owner = claim.owner
            place = wire.owner
            place.process, place.host, place.socket, place.node = owner.process, owner.host, owner.socket, owner.node
            place.node_name, place.arena = owner.node_name, owner.arena
            place.doors.extend(owner.doors)


def _claims(header: pb.Header) -> tuple[Claim, ...]:
    claims = []
    owner: Address | None = None
    for wire in header.claims:
        if wire.HasField("owner"):
            p = wire.owner
            owner = Address(p.process, p.host, p.socket, p.node, tuple(p.doors), p.node_name, arena=p.arena)
        passage, _, number = wire.token.rpartition("#")
        if owner is None or not number.isdecimal() or len(number) > _DIGITS:
            raise MalformedMessageError("a claim to a value or an actor says not whose it is, or has no token")
        claims.append(Claim(wire.id, owner, passage, int(number)))
    return tuple(claims)


def _encode_terms(terms: Terms, header: pb.Header) -> None:
    # Zero is what is not written: for ever, the method's own group, one value.
    header.remaining = max(terms.remaining, SOONEST) if terms.remaining is not None else 0.0
    header.group = terms.group
    header.returns = terms.returns - 1
    header.origin = terms.origin
    header.trace = terms.trace


def _terms(header: pb.Header) -> Terms:
    if not (header.remaining or header.group or header.returns or header.origin or header.trace):
        return PLAIN
    return Terms(header.remaining or None, header.group, header.returns + 1, header.origin, header.trace)


def _reply(data: pb.CommData, header: pb.Header) -> Reply:
    outcome = _outcome(header.outcome)
    if outcome is Outcome.KEPT and not _has_state(data):
        raise MalformedMessageError("a reply was to bring its actor's state, and has none")
    return Reply(header.call, outcome, _payload(data, header))


def _has_state(data: pb.CommData) -> bool:
    if data.header.transfer or data.header.claims or data.header.shared or len(data.buffers) != 3:
        return False
    actor, number, _ = data.buffers
    return actor.isascii() and number.isdigit() and len(number) <= _DIGITS


def _outcome(value: int) -> Outcome:
    outcome = _OUTCOMES.get(value)
    if outcome is None:
        raise MalformedMessageError(f"{value} is no outcome of a call")
    return outcome


_READERS: dict[str, Callable[[pb.CommData, pb.Header], Message]] = {
    "call": lambda data, h: Call(h.call, h.target, h.method, _payload(data, h), _terms(h)),
    "reply": _reply,
    "item": lambda data, h: Item(h.call, h.index, _payload(data, h)),
    "tensor": lambda data, h: Tensor(h.target, h.source_rank, h.tag, _payload(data, h)),
    "tally": lambda data, h: Tally(_payload(data, h)),
    "credit": lambda _, h: Credit(h.call, h.index),
    "cancel": lambda _, h: Cancel(h.call, h.force, not h.alone),
    "calls": _calls,
    "replies": _replies,
    "chunk": lambda data, h: Chunk(h.transfer, h.index, tuple(h.sizes), _piece(data, h)),
}
