"""A call of a method: from a handle to its line."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors import face, runtime, tracing
from actors.messages import STREAMING, Outcome
from actors.opencall import OpenCall
from actors.refs import ObjectRef
from actors.sealed import Sealed, Several, with_slots
from actors.serialize import dumps_arguments, dumps_if_plain, loads
from actors.spec import DEFAULTS
from actors.stream import ObjectRefGenerator, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from actors.keeper import Value
    from actors.line import Line
    from actors.messages import Payload
    from actors.opencall import Way
    from actors.options import MethodOptions, Retry
    from actors.runtime import Running
    from actors.spec import MethodSpec


class OneCall(OpenCall):
    """A call that gives one value."""

    __slots__ = ("_value",)

    def __init__(
        self, way: Way, method: str, payload: Payload, needs: list[Future[Sealed]], value: Value | None
    ) -> None:
        super().__init__(way, method, payload, needs)
        self._value = value

    def settle(self, sealed: Sealed) -> None:
        """See `OpenCall`."""
        if self._value is not None:
            self._value.settle(sealed)


class ManyCall(OpenCall):
    """A call that gives several values at once, a reference each."""

    __slots__ = ("_values",)

    def __init__(
        self, way: Way, method: str, payload: Payload, needs: list[Future[Sealed]], values: list[Value]
    ) -> None:
        super().__init__(way, method, payload, needs)
        self._values = values

    def settle(self, sealed: Sealed) -> None:
        """See `OpenCall`."""
        parts = [sealed] * len(self._values)
        if sealed.outcome is Outcome.VALUE:
            with suppress(Exception):  # there was no room for them: each of them says so
                several = loads(sealed.payload)
                assert isinstance(several, Several)
                parts = [Sealed(Outcome.VALUE, payload) for payload in several.values]
        for value, part in zip(self._values, parts, strict=True):
            value.settle(part)


def call(
    line: Line, method: MethodSpec, args: tuple[Any, ...], kwargs: dict[str, Any], chosen: MethodOptions | None = None
) -> Any:
    """Calls a method of an actor.

    Args:
        line: the actor's.
        method: what is called.
        args: positional arguments; one that is a reference is resolved before the call is sent.
        kwargs: likewise.
        chosen: options of this call, which go before the method's own.

    Returns:
        See `open_call`.

    Raises:
        SerializationError: an argument cannot be pickled.
        PendingCallsLimitExceeded: too many calls wait for their answers.
    """
    if not kwargs and (payload := dumps_if_plain(args)) is not None:
        return call_prepared(line, method, payload, (), chosen)
    args, kwargs, references = with_slots(args, kwargs, is_reference)
    return call_prepared(line, method, dumps_arguments(args, kwargs), references, chosen)


def call_prepared(  # noqa: PLR0917 - as `call`
    line: Line,
    method: MethodSpec,
    payload: Payload,
    references: Sequence[ObjectRef[Any]],
    chosen: MethodOptions | None,
    entered: bool = False,
) -> Any:
    """Calls a method with arguments that are pickled already; see `call`.

    Args:
        line: see `call`.
        method: likewise.
        payload: the arguments, slots in place of the references.
        references: that are to be resolved first.
        chosen: see `call`.
        entered: it is in room.
    """
    settings = settings_of(line, method, chosen)
    opened, given = open_call(line, method.name, payload, references, settings.returns)
    settings.give(opened)
    opened.in_room = entered
    inherit(opened, settings.timeout)
    line.submit(opened)
    return given


@dataclass(frozen=True, slots=True)
class Settings:
    """How a call is to be made: see `actors.opencall.OpenCall`.

    Attributes:
        retries: see there.
        retry_exceptions: see there.
        group: see there.
        returns: how many values it gives, or `STREAMING`.
        timeout: seconds; None for those of the call it is made in.
    """

    retries: int
    retry_exceptions: Retry
    group: str
    returns: int
    timeout: float | None

    def give(self, opened: OpenCall) -> None:
        """Sets them in a call."""
        opened.retries = self.retries
        opened.retry_exceptions = self.retry_exceptions
        opened.group = self.group


def settings_of(line: Line, method: MethodSpec, chosen: MethodOptions | None) -> Settings:
    """Returns how a method is to be called: by its actor's options, its own and those of this call."""
    if chosen is None or chosen is DEFAULTS:
        known = line.settings.get(method.name)
        if known is None:
            known = line.settings[method.name] = _settings(line, method, (method.options,))
        return known
    return _settings(line, method, (method.options, chosen))


def _settings(line: Line, method: MethodSpec, stated: tuple[MethodOptions, ...]) -> Settings:
    """Returns the actor's settings, over which go what options state, the last before the others."""
    retries, retry_exceptions = line.manner.retries, line.manner.retry_exceptions
    group, returns, timeout = "", None, None
    for options in stated:
        if options.max_task_retries is not None:
            retries = options.max_task_retries
        if options.retry_exceptions is not None:
            retry_exceptions = options.retry_exceptions
        if options.concurrency_group is not None:
            group = options.concurrency_group
        if options.num_returns is not None:
            returns = options.num_returns
        if options.timeout is not None:
            timeout = options.timeout
    number = returns_as_number(returns, generates=method.generates)
    return Settings(retries, retry_exceptions, group, number, timeout)


def open_call(
    way: Way, method: str, payload: Payload, references: Sequence[ObjectRef[Any]], returns: int
) -> tuple[OpenCall, Any]:
    """Makes a call that can be submitted to its way, and what stands for its answer.

    Returns:
        The call; and a reference, a list of them where there are several values, None where there is none, or a
        generator of references for a stream.
    """
    process = way.process
    needs: list[Future[Sealed]] = [reference.pending for reference in references] if references else []
    opened: OpenCall
    given: Any
    if returns == 1:
        value = process.keeper.new_value()
        opened = OneCall(way, method, payload, needs, value)
        value.call = opened
        return opened, ObjectRef(value, process.address, opened)
    if returns == STREAMING:
        opened = stream = Stream(way, method, payload, needs, process.keeper, process.address)
        given = ObjectRefGenerator(stream)
    elif returns == 0:
        opened, given = OneCall(way, method, payload, needs, None), None
    else:
        values = [process.keeper.new_value() for _ in range(returns)]
        opened = ManyCall(way, method, payload, needs, values)
        for value in values:
            value.call = opened
        given = [ObjectRef(value, process.address, opened) for value in values]
    opened.returns = returns
    return opened, given


def inherit(opened: OpenCall, timeout: float | None) -> None:
    """Makes a call part of the one it is made in. Its deadline is its own, or that one's, if that comes first."""
    opened.origin, running = runtime.origin(), runtime.running()
    tracing.begin(opened, running)
    if running is not None:
        running.adopt(opened)
    elif face.current.adopt is not None:
        face.current.adopt(opened)
    opened.deadline = deadline_of(timeout, running)
    if opened.deadline is not None:
        opened.line.process.portal.soon(opened.watch_deadline)


def deadline_of(timeout: float | None, running: Running | None) -> float | None:
    """Returns when nobody waits any more for a call that is made in ``running``."""
    own = time.monotonic() + timeout if timeout is not None else None
    if running is None or running.deadline is None:
        return own
    return running.deadline if own is None else min(own, running.deadline)


def returns_as_number(returns: int | str | None, *, generates: bool) -> int:
    """Reads the option ``num_returns``: a number of values, or `STREAMING`."""
    if returns is None:
        return STREAMING if generates else 1
    return STREAMING if isinstance(returns, str) else returns


def is_reference(value: Any) -> bool:
    """Whether a value is a reference."""
    return isinstance(value, ObjectRef)
