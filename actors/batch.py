"""Batches: calls of one method with one argument each, sent in as few messages as can be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from actors import face, runtime, tracing
from actors.calls import OneCall, call_prepared, deadline_of, is_reference, returns_of, settings_of
from actors.cluster import joined
from actors.exceptions import GetTimeoutError, Verdict
from actors.messages import PLAIN, PLAIN_TYPES, Outcome, Payload, Terms
from actors.refs import ObjectRef
from actors.sealed import of_error, of_reply, with_slots
from actors.serialize import dumps_arguments, dumps_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.calls import Settings
    from actors.keeper import Value
    from actors.line import Line
    from actors.messages import Item, Reply
    from actors.options import MethodOptions
    from actors.spec import MethodSpec
    from actors.transport.peer import Death, Party

MOST_CALLS = 512  # in one message: its receiver is to begin while the next is made
MOST_BYTES = 256 << 10  # of the arguments in one message
MOST_BYTES_EACH = 16 << 10  # of one that goes with others
_PLAIN_BYTES = 16  # room that a number takes
_LEAST = 2  # calls that are worth a message of their own kind
_INT_BITS = 64


class Argument:
    """The argument of one call, as it was when the batch was made.

    Attributes:
        value: itself, where it is plain: it cannot change, and is pickled with others.
        payload: else the call's arguments, pickled.
        references: that have to be there first.
        nbytes: room that it takes.
        kind: those of one kind, but for 0, go together: 1 is plain, 2 pickled one by one.
    """

    __slots__ = ("kind", "nbytes", "payload", "references", "value")

    def __init__(self, value: object) -> None:
        self.value: object = None
        self.payload: Payload | None = None
        self.references: list[ObjectRef[Any]] = []
        self.nbytes = _plain_bytes(value)
        self.kind = 1
        if self.nbytes:
            self.value = value
            return
        args, kwargs, self.references = with_slots((value,), {}, is_reference)
        payload = self.payload = dumps_arguments(args, kwargs)
        self.nbytes = payload.nbytes
        alone = self.references or payload.buffers or payload.holds or self.nbytes > MOST_BYTES_EACH
        self.kind = 0 if alone else 2

    def pickled(self) -> Payload:
        """Returns the arguments for a call of its own."""
        return self.payload if self.payload is not None else dumps_arguments((self.value,), {})


def _plain_bytes(value: object) -> int:
    """Returns the room that a plain value takes; 0 for one that does not go among plain ones."""
    if type(value) not in PLAIN_TYPES:
        return 0
    if isinstance(value, str | bytes):
        return len(value) + _PLAIN_BYTES if len(value) <= MOST_BYTES_EACH else 0
    return 0 if type(value) is int and value.bit_length() > _INT_BITS else _PLAIN_BYTES


def call_each(line: Line, method: MethodSpec, values: Sequence[Any], chosen: MethodOptions | None) -> list[Any]:
    """Calls a method once for each value, in order.

    Returns:
        What a call gives, for each; see `actors.calls.call`.

    Raises:
        TypeError: the method does not take one argument.
        SerializationError: a value cannot be pickled; nothing was sent.
        PendingCallsLimitExceeded: there is not room for all, and this caller does not wait; nothing was sent.
    """
    if not values:
        return []
    method.check((values[0],), {})
    arguments = [Argument(value) for value in values]
    entered = not line.blocks
    if entered:
        line.enter(sum(argument.nbytes for argument in arguments), len(arguments))
    settings = settings_of(line, method, chosen)
    single = returns_of(method, chosen) == 1
    given: list[Any] = []
    for run in _runs(arguments):
        if single and len(run) >= _LEAST:
            given += Batch(line, method, run, settings).begin(entered)
            continue
        for one in run:
            given.append(call_prepared(line, method, one.pickled(), one.references, chosen, entered))
    return given


def _runs(arguments: list[Argument]) -> Iterator[list[Argument]]:
    """Cuts arguments into runs that can go in one message each."""
    run: list[Argument] = []
    size = 0
    for argument in arguments:
        full = len(run) == MOST_CALLS or size + argument.nbytes > MOST_BYTES
        if run and (full or not argument.kind or argument.kind != run[0].kind):
            yield run
            run, size = [], 0
        run.append(argument)
        size += argument.nbytes
    yield run


class Batch:
    """Calls that are sent in one message; each has an answer of its own.

    What goes wrong with one makes it a call of its own, an `OneCall`, which knows about deaths and retries.

    Attributes:
        line: what they go by.
        method: name of the method.
        peer: where they were sent.
        target: whom to.
    """

    def __init__(self, line: Line, method: MethodSpec, arguments: list[Argument], settings: Settings) -> None:
        self.line = line
        self.method = method.name
        self.peer: Party | None = None
        self.target = ""
        self.settings = settings
        self.deadline: float | None = None
        self.origin = runtime.origin()
        self.span, self.trace = tracing.begin_batch(line.label.partition("(")[0], method.name, len(arguments))
        self.retries = settings.retries
        self._arguments: list[Argument] | None = arguments
        self._sizes = [argument.nbytes for argument in arguments]
        self._hold: object = line.hold  # keeps the actor alive until it has answered
        self._open = len(arguments)
        self._place = 0
        self._parts: Sequence[Part] = ()  # while they are sent

    def __len__(self) -> int:
        return len(self._sizes)

    def begin(self, entered: bool) -> list[ObjectRef[Any]]:
        """Sends the calls, or lets each stand in line; returns a reference for each.

        Args:
            entered: they are in room.
        """
        process = joined()
        new_value = process.keeper.new_value
        parts = [Part(self, index, new_value()) for index in range(len(self._sizes))]
        running = runtime.running()
        if running is not None:
            for part in parts:
                running.adopt(part)
        elif face.current.adopt is not None:
            for part in parts:
                face.current.adopt(part)
        self.deadline = deadline_of(self.settings.timeout, running)
        if not entered:
            self.line.enter(sum(self._sizes), len(self))
        self._parts = parts
        if not self.line.send_together(self):
            for part in parts:
                self.line.submit(part.on_its_own())
        self._parts = ()
        if self.deadline is not None:
            process.portal.soon(self._watch_deadline, parts)
        address = process.address
        return [ObjectRef(part.value, address, part) for part in parts]

    def send(self, peer: Party, target: str, place: int) -> None:
        """See `actors.opencall.Together`."""
        parts, arguments = self._parts, self._arguments
        assert arguments is not None
        numbers = peer.numbers(len(parts))
        self.peer, self.target, self._place = peer, target, place
        for part, number in zip(parts, numbers, strict=True):
            part.number = number
        if arguments[0].kind == 1:
            payload = dumps_plain([argument.value for argument in arguments])
        else:
            payload = Payload(b"", tuple(argument.pickled().pickle for argument in arguments))
        if not (self.line.manner.follows or self.retries):
            self._arguments = None
        peer.call_together(numbers, target, self.method, payload, parts, self._terms())

    def _terms(self) -> Terms:
        if self.deadline is None and not (self.settings.group or self.origin or self.trace):
            return PLAIN
        remaining = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        return Terms(remaining, self.settings.group, origin=self.origin, trace=self.trace)

    def _watch_deadline(self, parts: list[Part]) -> None:
        assert self.deadline is not None
        self.line.process.loop.call_later(max(0.0, self.deadline - time.monotonic()), _expire, parts)

    def answered(self, index: int) -> None:
        """A call has had its value. On the I/O loop."""
        self.line.left(self._sizes[index])
        self.given_up()

    def given_up(self) -> None:
        """One call less."""
        self._open -= 1
        if not self._open:
            self._hold = self._arguments = None

    def on_its_own(self, part: Part, index: int) -> Own:
        """Makes one of the calls a call of its own."""
        argument = self._arguments[index] if self._arguments is not None else None
        call = Own(self.line, self.method, argument, self._sizes[index], part)
        self.settings.give(call)
        call.deadline = self.deadline
        call.origin = self.origin
        call.trace = self.trace
        call.span = self.span if not part.over else None
        call.place = self._place + index if self.peer is not None else 0
        call.peer, call.target = self.peer, self.target
        self.given_up()
        return call


class Part:
    """One call of a batch; see `actors.transport.peer.Caller`.

    Attributes:
        value: what it will give.
        number: by which its peer knows it, while that has it.
    """

    __slots__ = ("__weakref__", "_batch", "_index", "_own", "number", "over", "value")

    anywhere = False

    def __init__(self, batch: Batch, index: int, value: Value) -> None:
        self._batch = batch
        self._index = index
        self._own: Own | None = None
        self.number: int | None = None
        self.over = False
        self.value = value
        value.call = self

    @property
    def line(self) -> Line:
        """What it goes by."""
        return self._batch.line

    @property
    def method(self) -> str:
        """Name of the method."""
        return self._batch.method

    @property
    def peer(self) -> Party | None:
        """Where it was sent."""
        return self._batch.peer

    @property
    def target(self) -> str:
        """Whom it was sent to."""
        return self._batch.target

    def replied(self, reply: Reply) -> None:
        """See `Caller`."""
        self.number = None
        if reply.outcome is Outcome.VALUE:
            self._batch.answered(self._index)
            if not self.over:
                self.over = True
                self.value.settle(of_reply(reply))
                self._told(None)
        else:
            self.on_its_own().replied(reply)

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `Caller`."""
        self.number = None
        self.on_its_own().lost(death, verdict)

    def yielded(self, item: Item) -> None:
        """See `Caller`: it gives one value."""

    def on_its_own(self) -> Own:
        """Makes it a call of its own."""
        own = self._own = self._batch.on_its_own(self, self._index)
        own.over = self.over
        self.value.call = own
        return own

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Says that the answer is no longer wanted; safe for any thread. See `actors.cancel`."""
        own, number, peer = self._own, self.number, self._batch.peer
        if own is not None:
            own.cancel(force=force, recursive=recursive)
        elif number is not None and peer is not None:
            peer.cancel(number, force=force, recursive=recursive)

    def expire(self) -> None:
        """Its deadline has come."""
        if self._own is not None:
            self._own.expire()
        elif not self.over:
            self.over = True
            what = f"{self.line.label}.{self.method} was not answered within its timeout"
            self.value.settle(of_error(GetTimeoutError(f"{what}: {Verdict.MAY_HAVE_RUN.value}")))
            self._told("timeout")

    def _told(self, error: str | None) -> None:
        if self._batch.span is not None:
            tracing.answered(self._batch.span, error)


def _expire(parts: list[Part]) -> None:
    for part in parts:
        part.expire()


class Own(OneCall):
    """What was a part of a batch."""

    __slots__ = ("_part",)

    def __init__(self, line: Line, method: str, argument: Argument | None, nbytes: int, part: Part) -> None:
        payload = argument.pickled() if argument is not None else Payload(b"")
        super().__init__(line, method, payload, [], part.value)
        if argument is None:
            self.payload = None
        self._nbytes = nbytes
        self._part = part  # which the call that made it knows
        self.in_room = True
