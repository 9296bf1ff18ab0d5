"""A call of a method: from a handle to its line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.cluster import joined
from actors.messages import STREAMING, Outcome
from actors.opencall import OpenCall
from actors.refs import ObjectRef
from actors.sealed import Sealed, Several, with_slots
from actors.serialize import dumps_arguments, loads
from actors.spec import DEFAULTS
from actors.stream import ObjectRefGenerator, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.keeper import Value
    from actors.line import Line
    from actors.messages import Payload
    from actors.opencall import Way
    from actors.options import MethodOptions
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
    args, kwargs, references = with_slots(args, kwargs, is_reference)
    payload = dumps_arguments(args, kwargs)
    opened, given = open_call(line, method.name, payload, references, _returns_of(method, chosen))
    opened.retries = line.manner.retries
    opened.retry_exceptions = line.manner.retry_exceptions
    timeout = None
    for options in (method.options, chosen):
        if options is None or options is DEFAULTS:
            continue
        if options.max_task_retries is not None:
            opened.retries = options.max_task_retries
        if options.retry_exceptions is not None:
            opened.retry_exceptions = options.retry_exceptions
        if options.concurrency_group is not None:
            opened.group = options.concurrency_group
        if options.timeout is not None:
            timeout = options.timeout
    inherit(opened, timeout)
    line.submit(opened)
    return given


def open_call(
    way: Way, method: str, payload: Payload, references: list[ObjectRef[Any]], returns: int
) -> tuple[OpenCall, Any]:
    """Makes a call that can be submitted to its way, and what stands for its answer.

    Returns:
        The call; and a reference, a list of them where there are several values, None where there is none, or a
        generator of references for a stream.
    """
    process = joined()
    needs: list[Future[Sealed]] = [reference.pending for reference in references]
    opened: OpenCall
    given: Any
    if returns == STREAMING:
        opened = stream = Stream(way, method, payload, needs, process.keeper, process.address)
        given = ObjectRefGenerator(stream)
    elif returns == 1:
        value = process.keeper.new_value()
        opened = OneCall(way, method, payload, needs, value)
        value.call = opened
        given = ObjectRef(value, process.address, opened)
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
    """Sets a call's deadline: its own, or that of the call it is made in, if that comes first."""
    if timeout is not None:
        opened.deadline = time.monotonic() + timeout
    running = runtime.running()
    if running is not None:
        running.adopt(opened)
        if running.deadline is not None:
            own = opened.deadline
            opened.deadline = running.deadline if own is None else min(own, running.deadline)
    if opened.deadline is not None:
        joined().portal.soon(opened.watch_deadline)


def returns_as_number(returns: int | str | None, *, generates: bool) -> int:
    """Reads the option ``num_returns``: a number of values, or `STREAMING`."""
    if returns is None:
        return STREAMING if generates else 1
    return STREAMING if isinstance(returns, str) else returns


def _returns_of(method: MethodSpec, chosen: MethodOptions | None) -> int:
    returns = chosen.num_returns if chosen is not None else None
    if returns is None:
        returns = method.options.num_returns
    return returns_as_number(returns, generates=method.generates)


def is_reference(value: Any) -> bool:
    """Whether a value is a reference."""
    return isinstance(value, ObjectRef)
