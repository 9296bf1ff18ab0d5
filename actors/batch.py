"""Batches: calls of one method with one argument each, sent in as few messages as can be."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from actors import face, runtime, tracing
from actors.calls import OneCall, call_prepared, deadline_of, is_reference, settings_of
from actors.cluster import joined
from actors.exceptions import GetTimeoutError, Verdict
from actors.keeper import Value, settle_plain
from actors.messages import PLAIN, PLAIN_TYPES, Outcome, Payload, Terms
from actors.refs import ObjectRef
from actors.sealed import of_error, of_reply, with_slots
from actors.serialize import dumps_arguments, dumps_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from actors.calls import Settings
    from actors.keeper import Keeper
    from actors.line import Line
    from actors.messages import Item, Reply
    from actors.options import MethodOptions
    from actors.spec import MethodSpec
    from actors.transport.peer import Caller, Death, Party

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


class Plain:
    """Arguments of calls that go together: plain values, pickled once for all.

    Attributes:
        payload: as the message has it.
        nbytes: room that all take.
    """

    def __init__(self, values: Sequence[Any], payload: Payload | None = None) -> None:
        self._values = values
        self.payload = payload if payload is not None else dumps_plain(values)
        self._each = len(self.payload.pickle) // len(values) + 1
        self.nbytes = self._each * len(values)

    def __len__(self) -> int:
        return len(self._values)

    def room(self, places: Sequence[int]) -> int:
        """Returns the room that some of them take."""
        return self._each * len(places)

    def pickled(self, index: int) -> Payload:
        """Returns the arguments for a call of its own."""
        return dumps_arguments((self._values[index],), {})


class Pickled:
    """Arguments of calls that go together, pickled one by one; see `Plain`."""

    def __init__(self, arguments: list[Argument]) -> None:
        self._arguments = arguments
        self.payload = Payload(b"", tuple(argument.pickled().pickle for argument in arguments))
        self.nbytes = sum(argument.nbytes for argument in arguments)

    def __len__(self) -> int:
        return len(self._arguments)

    def room(self, places: Sequence[int]) -> int:
        """See `Plain`."""
        return sum(self._arguments[place].nbytes for place in places)

    def pickled(self, index: int) -> Payload:
        """See `Plain`."""
        return self._arguments[index].pickled()


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
    settings = settings_of(line, method, chosen)
    single = settings.returns == 1
    runs: Iterable[Plain | list[Argument]] | None = _plain_runs(values) if single else None
    if runs is None:
        arguments = [Argument(value) for value in values]
        runs = _runs(arguments)
    entered = not line.blocks
    if entered:
        runs = list(runs)
        line.enter(sum(map(_room_of, runs)), len(values))
    given: list[Any] = []
    for run in runs:
        if isinstance(run, Plain):
            given += Batch(line, method, run, settings).begin(entered)
        elif single and len(run) >= _LEAST:
            together = Plain([one.value for one in run]) if run[0].kind == 1 else Pickled(run)
            given += Batch(line, method, together, settings).begin(entered)
        else:
            for one in run:
                given.append(call_prepared(line, method, one.pickled(), one.references, chosen, entered))
    return given


def _plain_runs(values: Sequence[Any]) -> list[Plain] | None:
    """Cuts values that are all plain and small into runs that go in one message each; None where they are not."""
    if len(values) < _LEAST or not PLAIN_TYPES.issuperset(map(type, values)):
        return None
    runs = []
    for start in range(0, len(values), MOST_CALLS):
        run = values[start : start + MOST_CALLS]
        payload = dumps_plain(run)
        if len(payload.pickle) > MOST_BYTES:
            return None
        runs.append(Plain(run, payload))
    return runs


def _room_of(run: Plain | list[Argument]) -> int:
    return run.nbytes if isinstance(run, Plain) else sum(argument.nbytes for argument in run)


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

    def __init__(self, line: Line, method: MethodSpec, arguments: Plain | Pickled, settings: Settings) -> None:
        self.line = line
        self.method = method.name
        self.peer: Party | None = None
        self.target = ""
        self.settings = settings
        self.deadline: float | None = None
        self.origin = runtime.origin()
        self.span, self.trace = tracing.begin_batch(line.label.partition("(")[0], method.name, len(arguments))
        self.retries = settings.retries
        self._arguments: Plain | Pickled | None = arguments
        self._size = len(arguments)
        self._room_of = arguments.room
        self._hold: object = line.hold  # keeps the actor alive until it has answered
        self._open = self._size
        self._counting = threading.Lock()
        self._place = 0
        self._parts: Sequence[Part] = ()  # while they are sent

    def __len__(self) -> int:
        return self._size

    def begin(self, entered: bool) -> list[ObjectRef[Any]]:
        """Sends the calls, or lets each stand in line; returns a reference for each.

        Args:
            entered: they are in room.
        """
        process = joined()
        keeper = process.keeper
        parts = [Part(self, index, keeper) for index in range(self._size)]
        running = runtime.running()
        if running is not None:
            for part in parts:
                running.adopt(part)
        elif face.current.adopt is not None:
            for part in parts:
                face.current.adopt(part)
        self.deadline = deadline_of(self.settings.timeout, running)
        assert self._arguments is not None
        if not entered:
            self.line.enter(self._arguments.nbytes, self._size)
        self._parts = parts
        if not self.line.send_together(self):
            for part in parts:
                self.line.submit(part.on_its_own())
        self._parts = ()
        if self.deadline is not None:
            process.portal.soon(self._watch_deadline, parts)
        address = process.address
        return [ObjectRef(part, address, part) for part in parts]

    def send(self, peer: Party, target: str, place: int) -> None:
        """See `actors.opencall.Together`."""
        parts, arguments = self._parts, self._arguments
        assert arguments is not None
        numbers = peer.numbers(len(parts))
        self.peer, self.target, self._place = peer, target, place
        for part, number in zip(parts, numbers, strict=True):
            part.number = number
        if not (self.line.manner.follows or self.retries):
            self._arguments = None
        peer.call_together(numbers, target, self.method, arguments.payload, parts, self._terms())

    def _terms(self) -> Terms:
        if self.deadline is None and not (self.settings.group or self.origin or self.trace):
            return PLAIN
        remaining = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        return Terms(remaining, self.settings.group, origin=self.origin, trace=self.trace)

    def _watch_deadline(self, parts: list[Part]) -> None:
        assert self.deadline is not None
        self.line.process.loop.call_later(max(0.0, self.deadline - time.monotonic()), _expire, parts)

    def answered(self, places: Sequence[int]) -> None:
        """Calls have had their values."""
        self.line.left(self._room_of(places), len(places))
        self.given_up(len(places))

    def given_up(self, calls: int = 1) -> None:
        """So many calls less."""
        with self._counting:
            self._open -= calls
            last = not self._open
        if last:
            self._hold = self._arguments = None

    def on_its_own(self, part: Part, index: int) -> Own:
        """Makes one of the calls a call of its own."""
        payload = self._arguments.pickled(index) if self._arguments is not None else None
        call = Own(self.line, self.method, payload, self._room_of([index]), part)
        self.settings.give(call)
        call.deadline = self.deadline
        call.origin = self.origin
        call.trace = self.trace
        call.span = self.span if not part.over else None
        call.place = self._place + index if self.peer is not None else 0
        call.peer, call.target = self.peer, self.target
        self.given_up()
        return call


class Part(Value):
    """One call of a batch, and what it will give; see `actors.transport.peer.Caller`.

    Attributes:
        batch: which.
        index: its place there.
        number: by which its peer knows it, while that has it.
        over: it has had its answer.
    """

    __slots__ = ("_own", "batch", "index", "number", "over")

    anywhere = False

    def __init__(self, batch: Batch, index: int, keeper: Keeper) -> None:
        super().__init__(keeper)
        self.batch = batch
        self.index = index
        self._own: Own | None = None
        self.number: int | None = None
        self.over = False
        self.call = self

    @property
    def line(self) -> Line:
        """What it goes by."""
        return self.batch.line

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.batch.method

    @property
    def peer(self) -> Party | None:
        """Where it was sent."""
        return self.batch.peer

    @property
    def target(self) -> str:
        """Whom it was sent to."""
        return self.batch.target

    def returned(self, callers: Sequence[Caller | None], values: Sequence[object]) -> None:
        """See `Caller`."""
        there = [
            (part, value) for part, value in zip(callers, values, strict=True)
            if isinstance(part, Part) and part.number is not None
        ]  # fmt: skip
        settle_plain(there)
        batch, places = self.batch, list[int]()
        for part, _ in there:
            if not part.over:
                part.over = True
                part.told(None)
            part.number = None
            if part.batch is not batch:
                batch.answered(places)
                batch, places = part.batch, []
            places.append(part.index)
        batch.answered(places)

    def replied(self, reply: Reply) -> None:
        """See `Caller`."""
        self.number = None
        if reply.outcome is Outcome.VALUE:
            self.batch.answered([self.index])
            if not self.over:
                self.over = True
                self.settle(of_reply(reply))
                self.told(None)
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
        own = self._own = self.batch.on_its_own(self, self.index)
        own.over = self.over
        self.call = own
        return own

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Says that the answer is no longer wanted; safe for any thread. See `actors.cancel`."""
        own, number, peer = self._own, self.number, self.batch.peer
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
            self.settle(of_error(GetTimeoutError(f"{what}: {Verdict.MAY_HAVE_RUN.value}")))
            self.told("timeout")

    def told(self, error: str | None) -> None:
        """Its part of the trace of its batch is over, where there is one."""
        if self.batch.span is not None:
            tracing.answered(self.batch.span, error)


def _expire(parts: list[Part]) -> None:
    for part in parts:
        part.expire()


class Own(OneCall):
    """What was a part of a batch."""

    __slots__ = ("_part",)

    def __init__(self, line: Line, method: str, payload: Payload | None, nbytes: int, part: Part) -> None:
        super().__init__(line, method, payload or Payload(b""), [], part)
        if payload is None:
            self.payload = None
        self.nbytes = nbytes
        self._part = part  # which the call that made it knows
        self.in_room = True
