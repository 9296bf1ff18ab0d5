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
from actors.stream import ObjectRefGenerator, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.keeper import Value
    from actors.line import Line
    from actors.messages import Payload
    from actors.options import MethodOptions
    from actors.spec import MethodSpec


class OneCall(OpenCall):
    """A call that gives one value."""

    __slots__ = ("_value",)

    def __init__(
        self, line: Line, method: str, payload: Payload, needs: list[Future[Sealed]], value: Value | None
    ) -> None:
        super().__init__(line, method, payload, needs)
        self._value = value

    def settle(self, sealed: Sealed) -> None:
        """See `OpenCall`."""
        if self._value is not None:
            self._value.settle(sealed)


class ManyCall(OpenCall):
    """A call that gives several values at once, a reference each."""

    __slots__ = ("_values",)

    def __init__(
        self, line: Line, method: str, payload: Payload, needs: list[Future[Sealed]], values: list[Value]
    ) -> None:
        super().__init__(line, method, payload, needs)
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
        A reference; a list of them where there are several values, None where there is none; a generator of
        references for a stream.

    Raises:
        SerializationError: an argument cannot be pickled.
        PendingCallsLimitExceeded: too many calls wait for their answers.
    """
    process = joined()
    args, kwargs, references = with_slots(args, kwargs, _is_reference)
    payload = dumps_arguments(args, kwargs)
    needs: list[Future[Sealed]] = [reference.pending for reference in references]
    returns = returns_of(method, chosen)
    opened: OpenCall
    given: Any
    if returns == STREAMING:
        opened = stream = Stream(line, method.name, payload, needs, process.keeper, process.address)
        given = ObjectRefGenerator(stream)
    elif returns == 1:
        value = process.keeper.new_value()
        opened = OneCall(line, method.name, payload, needs, value)
        value.cancel = opened.cancel
        given = ObjectRef(value, process.address, opened)
    elif returns == 0:
        opened, given = OneCall(line, method.name, payload, needs, None), None
    else:
        values = [process.keeper.new_value() for _ in range(returns)]
        opened = ManyCall(line, method.name, payload, needs, values)
        for value in values:
            value.cancel = opened.cancel
        given = [ObjectRef(value, process.address, opened) for value in values]
    opened.returns = returns
    _set_terms(opened, method, chosen)
    line.submit(opened)
    return given


def returns_of(method: MethodSpec, chosen: MethodOptions | None) -> int:
    """Returns how many values a call gives, or `STREAMING`."""
    returns = chosen.num_returns if chosen is not None else None
    if returns is None:
        returns = method.options.num_returns
    if returns is None:
        returns = "streaming" if method.generates else 1
    return STREAMING if isinstance(returns, str) else returns


def _set_terms(opened: OpenCall, method: MethodSpec, chosen: MethodOptions | None) -> None:
    manner = opened.line.manner
    opened.retries = manner.retries
    opened.retry_exceptions = manner.retry_exceptions
    for options in (method.options, chosen):
        if options is None:
            continue
        if options.max_task_retries is not None:
            opened.retries = options.max_task_retries
        if options.retry_exceptions is not None:
            opened.retry_exceptions = options.retry_exceptions
        if options.concurrency_group is not None:
            opened.group = options.concurrency_group
        if options.timeout is not None:
            opened.deadline = time.monotonic() + options.timeout
    running = runtime.running()
    if running is not None:
        running.adopt(opened)
        if running.deadline is not None:
            deadline = opened.deadline
            opened.deadline = running.deadline if deadline is None else min(deadline, running.deadline)


def _is_reference(value: Any) -> bool:
    return isinstance(value, ObjectRef)


def future_of(value: Any) -> Future[Sealed] | None:
    """Returns the future behind a reference; None for anything else."""
    return value.pending if isinstance(value, ObjectRef) else None
