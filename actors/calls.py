"""A call of a method: from a handle to its line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.cluster import joined
from actors.line import OpenCall
from actors.refs import ObjectRef
from actors.stream import ObjectRefGenerator, Stream

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.keeper import Value
    from actors.line import Line
    from actors.sealed import Sealed
    from actors.spec import MethodSpec


class OneCall(OpenCall):
    """A call that gives one value."""

    __slots__ = ("_value",)

    def __init__(self, line: Line, method: str, value: Value) -> None:
        super().__init__(line, method)
        self._value = value

    def settle(self, sealed: Sealed) -> None:
        """See `OpenCall`."""
        self._value.settle(sealed)


def call(line: Line, method: MethodSpec, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls a method of an actor; returns a reference, or a generator of references."""
    process = joined()
    if method.generates:
        stream = Stream(line, method.name, process.keeper, process.address)
        line.submit(method.name, args, kwargs, stream, future_of)
        return ObjectRefGenerator(stream)
    value = process.keeper.new_value()
    opened = OneCall(line, method.name, value)
    line.submit(method.name, args, kwargs, opened, future_of)
    return ObjectRef(value, process.address, opened)


def future_of(value: Any) -> Future[Sealed] | None:
    """Returns the future behind a reference; None for anything else."""
    return value.pending if isinstance(value, ObjectRef) else None
