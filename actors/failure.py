"""A remote exception on its way home: what was raised, where, and the traceback, as plain data."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from actors.exceptions import ActorDiedError, SerializationError, TaskError, Verdict
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from actors.messages import Payload


@dataclass(frozen=True, slots=True)
class Place:
    """Where a method ran."""

    node: str
    actor: str
    method: str
    pid: int

    def __str__(self) -> str:
        return f"{self.actor}.{self.method} on node {self.node} (pid {self.pid})"


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as it travels.

    Attributes:
        kind: qualified name of its class.
        text: its ``str()``.
        trace: the formatted remote traceback, causes and notes included.
        place: where it was raised.
        exception: pickled ``(class, args, attributes)``; None where these do not pickle.
    """

    kind: str
    text: str
    trace: str
    place: Place
    exception: Payload | None


def pack(error: BaseException, place: Place) -> Payload:
    """Returns the payload of a reply that says ``error`` was raised at ``place``."""
    kind = type(error)
    return dumps(
        Failure(
            kind=f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__,
            text=_text(error),
            trace="".join(traceback.format_exception(_without_our_frames(error))),
            place=place,
            exception=_pickled(error),
        )
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as problem:
        return f"<its __str__ raised {type(problem).__name__}>"


def _without_our_frames(error: BaseException) -> BaseException:
    """Drops the frames of this package from the top of the traceback: they are no part of the user's story."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("actors."):
        trace = trace.tb_next
    if trace is not None:
        error.__traceback__ = trace
    return error


def _pickled(error: BaseException) -> Payload | None:
    # An exception with an __init__ of its own pickles and does not unpickle; its class, args and attributes do.
    try:
        payload = dumps((type(error), error.args, error.__dict__, error.__cause__))
        loads(payload)
    except Exception:
        return None
    return payload


def unpack(payload: Payload) -> BaseException:
    """Returns the exception to raise at the caller: a `TaskError` that is also of the user's own class."""
    try:
        failure = loads(payload)
        assert isinstance(failure, Failure)
    except Exception as error:
        return TaskError(f"the call raised, and what it raised cannot be read here: {error}", verdict=Verdict.RAISED)
    cause = _rebuild(failure)
    error = _dual(cause, failure)
    error.node, error.actor, error.method = failure.place.node, failure.place.actor, failure.place.method
    error.verdict = Verdict.RAISED
    error.remote_traceback = failure.trace
    error.cause = cause
    error.__cause__ = cause.__cause__ if cause is not None else None
    return error


def _message(failure: Failure) -> str:
    return f"{failure.kind}: {failure.text}\n\nIt was raised in {failure.place}:\n{failure.trace.rstrip()}"


def _rebuild(failure: Failure) -> BaseException | None:
    if failure.exception is None:
        return None
    try:
        kind, args, attributes, cause = loads(failure.exception)
        error = kind.__new__(kind, *args)
        error.args = args
        error.__dict__.update(attributes)
        error.__cause__ = cause
        assert isinstance(error, BaseException)
    except Exception:
        return None
    return error


def _dual(cause: BaseException | None, failure: Failure) -> TaskError:
    message = _message(failure)
    if cause is None:
        return TaskError(message)
    kind = _dual_class(type(cause))
    try:
        error = kind.__new__(kind, *cause.args)
        error.args = cause.args
        error.__dict__.update(cause.__dict__)
        object.__setattr__(error, "_remote_message", message)
    except Exception:
        return TaskError(message)
    return error


@lru_cache(maxsize=256)
def _dual_class(kind: type[BaseException]) -> type[TaskError]:
    """Makes the class of an error that `except` catches as the user's own."""
    try:
        return type(
            kind.__name__,
            (TaskError, kind),
            {
                "__module__": kind.__module__,
                "__qualname__": kind.__qualname__,
                "__str__": lambda self: self.__dict__.get("_remote_message", self.__class__.__name__),
                "__reduce__": _reduce_dual,
            },
        )
    except TypeError:  # a class that forbids subclassing
        return TaskError


def _reduce_dual(error: TaskError) -> tuple[object, ...]:
    return (_restore_dual, (type(error).__bases__[1], error.args, error.__dict__))


def _restore_dual(kind: type[BaseException], args: tuple[object, ...], attributes: dict[str, object]) -> TaskError:
    dual = _dual_class(kind)
    error = dual.__new__(dual, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


def unpicklable(error: SerializationError, place: Place) -> Payload:
    """Returns the failure for a result that cannot be sent."""
    named = SerializationError(f"the result of {place} cannot be sent: {error}")
    return pack(named, place)


def exited(code: object, place: Place) -> Payload:
    """Returns the failure for a method that ended its actor by ``SystemExit``."""
    return pack(ActorDiedError(f"{place} raised SystemExit({code!r}), which ends the actor"), place)
