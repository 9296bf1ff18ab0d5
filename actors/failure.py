"""A remote exception on its way home: what was raised, where, and the traceback, as plain data."""

from __future__ import annotations

import contextlib
import traceback
from dataclasses import dataclass, replace
from functools import lru_cache
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeVar

from actors.exceptions import ActorDiedError, SerializationError, TaskError, Verdict
from actors.frozen import travelling
from actors.packages import Lack, advice, lack_of
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Payload

E = TypeVar("E", bound=BaseException)

_MOST_CAUSES = 20
_MADE_BY_STATEMENT = 1 << 9  # CPython's Py_TPFLAGS_HEAPTYPE, of a class's __flags__
_LEFT_OUT = (BaseException, BaseExceptionGroup)  # what these keep is seen to apart, or in the args already
_MAY_BE_ANYTHING = vars(AttributeError)["obj"]  # the object that lacks the attribute


@travelling
@dataclass(frozen=True, slots=True)
class Place:
    """Where a method ran."""

    node: str
    actor: str
    method: str
    pid: int

    def __str__(self) -> str:
        return f"{self.actor}.{self.method} on node {self.node} (pid {self.pid})"


@travelling
@dataclass(frozen=True, slots=True)
class Parts:
    """An exception taken apart: one with an ``__init__`` of its own pickles and does not unpickle, its parts do.

    Attributes:
        kind: its class.
        args: its ``args``; exceptions among them taken apart as well.
        attributes: its ``__dict__``.
        fields: what built-in classes and ``__slots__`` keep elsewhere, such as the file name of an `OSError`.
        cause: its ``__cause__``.
    """

    kind: type[BaseException]
    args: tuple[Any, ...]
    attributes: dict[str, Any]
    fields: dict[str, Any]
    cause: Parts | None


@travelling
@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it travels.

    Attributes:
        kind: qualified name of its class.
        text: its ``str()``.
        trace: the formatted remote traceback, causes and notes included.
        place: where it was raised.
        exception: its pickled `Parts`; None where its class does not pickle.
        lack: the code that could not be imported there, if that is what was wrong.
    """

    kind: str
    text: str
    trace: str
    place: Place
    exception: Payload | None
    lack: Lack | None = None


# -- where it was raised ----------------------------------------------------------------------------------------


def pack(error: BaseException, place: Place) -> Payload:
    """Returns the payload of a reply that says ``error`` was raised at ``place``."""
    trace = "".join(traceback.format_exception(_without_our_frames(error)))
    error = _users(error)
    kind = type(error)
    return dumps(
        Failure(
            kind=f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__,
            text=_text(error),
            trace=trace,
            place=place,
            exception=_pickled(error),
            lack=lack_of(error),
        )
    )


def _users(error: BaseException) -> BaseException:
    """Returns what the user's code raised, also where the error has come through several actors."""
    return error.cause if isinstance(error, TaskError) and isinstance(error.cause, BaseException) else error


def _text(value: object, render: Callable[[Any], str] = str) -> str:
    try:
        return render(value)
    except Exception as problem:
        return f"<a {type(value).__name__}, whose text cannot be had: {type(problem).__name__}>"


def _without_our_frames(error: BaseException) -> BaseException:
    """Drops the frames of this package from the top of the traceback: they are no part of the user's story."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("actors."):
        trace = trace.tb_next
    return error if trace is None else error.with_traceback(trace)


def _pickled(error: BaseException) -> Payload | None:
    try:
        parts = _take_apart(error, _MOST_CAUSES)
        return _proved(parts) or _proved(_pruned(parts))
    except Exception:
        return None


def _proved(value: object) -> Payload | None:
    """Returns the pickle of a value that can be unpickled again, at least here."""
    try:
        payload = dumps(value)
        loads(payload)
    except Exception:
        return None
    return payload


def _take_apart(error: BaseException, depth: int) -> Parts:
    error = _users(error)
    cause = error.__cause__
    return Parts(
        kind=type(error),
        args=tuple(_apart(argument, depth) for argument in error.args),
        attributes={name: _apart(value, depth) for name, value in error.__dict__.items()},
        fields={name: _apart(value, depth) for name, value in _fields(error).items()},
        cause=_take_apart(cause, depth - 1) if cause is not None and depth > 0 else None,
    )


def _apart(value: Any, depth: int) -> Any:
    if isinstance(value, BaseException):
        return _take_apart(value, depth - 1) if depth > 0 else None
    if type(value) in (list, tuple) and any(isinstance(part, BaseException) for part in value):
        return type(value)(_apart(part, depth) for part in value)
    return value


def _fields(error: BaseException) -> dict[str, Any]:
    fields = {}
    for cls in type(error).__mro__:
        if cls in _LEFT_OUT:
            continue
        for name, member in vars(cls).items():
            if name.startswith("__") or member is _MAY_BE_ANYTHING:
                continue
            if not isinstance(member, MemberDescriptorType | GetSetDescriptorType):
                continue
            with contextlib.suppress(AttributeError):  # it is not set
                value = member.__get__(error)
                # What is not set in a class made by C reads as None, and would not be the same if set to that.
                if value is not None or cls.__flags__ & _MADE_BY_STATEMENT:
                    fields[name] = value
    return fields


def _pruned(parts: Parts) -> Parts:
    """Leaves out the attributes that cannot be sent, and puts in place of such arguments what they look like."""
    return replace(
        parts,
        args=tuple(_text(part.value, repr) if isinstance(part, _Unfit) else part for part in map(_prune, parts.args)),
        attributes=_fit(parts.attributes),
        fields=_fit(parts.fields),
        cause=_pruned(parts.cause) if parts.cause is not None else None,
    )


@travelling
@dataclass(frozen=True, slots=True)
class _Unfit:
    """A value that cannot be sent."""

    value: Any


def _fit(values: dict[str, Any]) -> dict[str, Any]:
    pruned = {name: _prune(value) for name, value in values.items()}
    return {name: value for name, value in pruned.items() if not isinstance(value, _Unfit)}


def _prune(value: Any) -> Any:
    if isinstance(value, Parts):
        return _pruned(value)
    if type(value) in (list, tuple) and any(isinstance(part, Parts) for part in value):
        return type(value)(map(_prune, value))
    return value if _proved(value) is not None else _Unfit(value)


# -- where it is caught -----------------------------------------------------------------------------------------


def unpack(payload: Payload) -> TaskError:
    """Returns the exception to raise at the caller: a `TaskError` that is also of the user's own class.

    Only where that class is no `Exception`, such as `KeyboardInterrupt`, or cannot be had here, is it a `TaskError`
    alone: the interrupt of another process is none of this one's.
    """
    try:
        failure = loads(payload)
        assert isinstance(failure, Failure)
    except Exception as error:
        return TaskError(f"the call raised, and what it raised cannot be read here: {error}", verdict=Verdict.RAISED)
    return _restored(failure)


def raised_kind(payload: Payload) -> type[BaseException]:
    """Returns the class of what was raised; `TaskError` where that class cannot be had here."""
    try:
        failure = loads(payload)
        assert isinstance(failure, Failure)
        parts, _ = _own(failure)
    except BaseException:  # by code of the user's, and on no thread of theirs: the call is to have its answer
        return TaskError
    return parts.kind if parts is not None else TaskError


def _restored(failure: Failure, notes: list[str] | None = None) -> TaskError:
    parts, cause = _own(failure)
    error = _dual(parts, failure)
    error.__dict__.update(
        node=failure.place.node,
        actor=failure.place.actor,
        method=failure.place.method,
        verdict=Verdict.RAISED,
        remote_traceback=failure.trace,
        cause=cause,
        _failure=failure,
    )
    rays = {"pid": failure.place.pid, "function_name": failure.place.method, "traceback_str": failure.trace}
    for name, value in rays.items():
        error.__dict__.setdefault(name, value)
    if notes is not None:
        error.__dict__["__notes__"] = notes
    if cause is not None and cause.__cause__ is not None:
        object.__setattr__(error, "__cause__", cause.__cause__)
    return error


def _own(failure: Failure) -> tuple[Parts | None, BaseException | None]:
    """Returns the exception as it was raised; nothing where it cannot be had here."""
    if failure.exception is None:
        return None, None
    try:
        parts = loads(failure.exception)
        assert isinstance(parts, Parts)
        return parts, _put_together(parts, parts.kind)
    except (Exception, SystemExit):  # which would end who asks for a result
        return None, None


def _dual(parts: Parts | None, failure: Failure) -> TaskError:
    if parts is not None:
        kind: Any = parts.kind
        with contextlib.suppress(Exception):
            return _put_together(parts, _dual_class(kind))
    return _put_together(Parts(TaskError, (_message(failure),), {}, {}, None), _dual_class(TaskError))


def _put_together(parts: Parts, kind: type[E]) -> E:
    native: Any = kind
    while native.__flags__ & _MADE_BY_STATEMENT:
        native = native.__base__
    args = tuple(_together(argument) for argument in parts.args)
    # Past the class's own __new__ and __init__, which may want other arguments, check them or act on them.
    error: E = native.__new__(kind, *args)
    object.__setattr__(error, "args", args)
    error.__dict__.update({name: _together(value) for name, value in parts.attributes.items()})
    for name, value in parts.fields.items():
        with contextlib.suppress(AttributeError, TypeError):  # read-only: __new__ has set it
            object.__setattr__(error, name, _together(value))
    if parts.cause is not None:
        object.__setattr__(error, "__cause__", _put_together(parts.cause, parts.cause.kind))
    return error


def _together(value: Any) -> Any:
    if isinstance(value, Parts):
        return _put_together(value, value.kind)
    if type(value) in (list, tuple) and any(isinstance(part, Parts) for part in value):
        return type(value)(map(_together, value))
    return value


@lru_cache(maxsize=256)
def _dual_class(kind: type) -> type[TaskError]:
    """Makes the class of an error that `except` catches as the user's own."""
    members = {"__str__": _message_of, "__reduce__": _reduce, "__reduce_ex__": lambda error, _: _reduce(error)}
    if issubclass(kind, Exception) and not issubclass(kind, TaskError):
        named = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
        with contextlib.suppress(Exception):  # a class may forbid subclassing, or ask something of its subclasses
            return type(kind.__name__, (TaskError, kind), {**members, **named})
    return type("TaskError", (TaskError,), {**members, "__module__": TaskError.__module__})


def _message_of(error: TaskError) -> str:
    return _message(error.__dict__["_failure"])


def _message(failure: Failure) -> str:
    told = advice(failure.lack, failure.place.node) if failure.lack is not None else ""
    return _plain_message(failure).replace("\n\n", f"\n{told}\n\n", 1) if told else _plain_message(failure)


def advised(error: E) -> E:
    """Returns a death that was put into words where something is missing, with what this process has of it."""
    failure = getattr(error.__cause__, "_failure", None)
    if isinstance(failure, Failure):
        error.args = (str(error).replace(_plain_message(failure), _message(failure), 1), *error.args[1:])
    return error


def _plain_message(failure: Failure) -> str:
    return f"{failure.kind}: {failure.text}\n\nIt was raised in {failure.place}:\n{failure.trace.rstrip()}"


def _reduce(error: TaskError) -> tuple[Any, ...]:
    return (_restored, (error.__dict__["_failure"], error.__dict__.get("__notes__")))


# -- failures of our own ----------------------------------------------------------------------------------------


def unpicklable(error: SerializationError, place: Place) -> Payload:
    """Returns the failure for a result that cannot be sent."""
    named = SerializationError(f"the result of {place} cannot be sent: {error}")
    return pack(named, place)


def exited(how: str, place: Place) -> ActorDiedError:
    """Returns the error of a method that has ended its actor because it wished to."""
    return ActorDiedError(
        f"{place} {how}, which ends the actor",
        node=place.node,
        actor=place.actor,
        method=place.method,
        verdict=Verdict.RAISED,
    )
