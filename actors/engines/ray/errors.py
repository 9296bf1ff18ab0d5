"""Errors: what Ray raises, as what this package raises."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import ray
from ray import cloudpickle
from ray import exceptions as rays

from actors.exceptions import (
    ActorDiedError,
    ActorsError,
    ActorUnavailableError,
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    PendingCallsLimitExceeded,
    PlacementError,
    RuntimeEnvError,
    SerializationError,
    TaskCancelledError,
    TaskError,
    Verdict,
    WorkerCrashedError,
)
from actors.failure import Place, pack, unpack
from actors.serialize import dumps, dumps_arguments

from .translation import node_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.messages import Payload

PicklingError: type[Exception] = cloudpickle.cloudpickle.pickle.PicklingError

KINDS: tuple[tuple[type[BaseException], type[ActorsError]], ...] = (
    (rays.ActorUnavailableError, ActorUnavailableError),
    (rays.ActorUnschedulableError, PlacementError),
    (rays.TaskUnschedulableError, PlacementError),
    (rays.RayActorError, ActorDiedError),
    (rays.NodeDiedError, NodeDiedError),
    (rays.TaskCancelledError, TaskCancelledError),
    (rays.GetTimeoutError, GetTimeoutError),
    (rays.WorkerCrashedError, WorkerCrashedError),
    (rays.OutOfMemoryError, WorkerCrashedError),
    (rays.PendingCallsLimitExceeded, PendingCallsLimitExceeded),
    (rays.RuntimeEnvSetupError, RuntimeEnvError),
    (rays.ObjectLostError, ObjectLostError),
)


class RaisedError(Exception):
    """What a method has raised, packed where it was raised: Ray hands it on as it is.

    Attributes:
        payload: see `actors.failure.pack`.
        stillborn: whether it was the actor's constructor.
    """

    def __init__(self, payload: Payload, text: str, stillborn: bool = False) -> None:
        super().__init__(text)
        self.payload = payload
        self.stillborn = stillborn

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.payload, str(self), self.stillborn))


class TransientError(RaisedError):
    """The same where the call is to be tried again for it."""


def raised(
    error: BaseException, place: Place, again: tuple[type[BaseException], ...] = (), *, stillborn: bool = False
) -> RaisedError:
    """Returns what is raised in Ray's worker in place of ``error``; ``again``, what the call is tried again for."""
    kind = TransientError if isinstance(error, again) else RaisedError
    return kind(pack(error, place), _text(error), stillborn)


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # one of the user's own may have no words
        return type(error).__name__


def place(actor: str, method: str) -> Place:
    """Returns where this code runs."""
    id = ray.get_runtime_context().get_actor_id()
    return Place(node_name(), f"{actor}({short(id)})" if id is not None else actor, method, os.getpid())


def short(id: str) -> str:
    """Returns an actor's id as messages have it; Ray's are long, and end in what those of a program have in common."""
    return f"actor-{id[:8]}"


def translated(error: BaseException, what: str = "") -> BaseException:
    """Returns what this package raises for what Ray has raised; what is not Ray's stays as it is.

    Args:
        error: what was raised.
        what: was called, if that is known; the words are Ray's.
    """
    if isinstance(error, rays.RayTaskError):
        return _of_task(error)
    if isinstance(error, rays.RaySystemError) and "deserialize" in (error.traceback_str or ""):
        return SerializationError(f"the value was pickled, and cannot be unpickled here: {error.client_exc}")
    for kind, ours in KINDS:
        if isinstance(error, kind):
            words = str(error).replace("User requested to exit the actor", "exit_actor() was called in it")
            return ours(f"{what}: {words}" if what else words)
    return error


def _of_task(error: rays.RayTaskError) -> BaseException:
    cause = error.cause
    if not isinstance(cause, RaisedError):
        # Ray itself has failed there, such as in pickling a result; or an argument of the call has failed.
        inner = translated(cause) if isinstance(cause, rays.RayError) else None
        if isinstance(inner, SerializationError):
            return SerializationError(
                f"an argument was pickled, and cannot be unpickled where it is used: {cause.client_exc}"
            )
        if inner is not None and inner is not cause:
            return inner
        if isinstance(cause, TypeError | PicklingError):  # what the method itself raises comes packed
            return SerializationError(f"Ray cannot send what the call returned: {cause}")
        return TaskError(str(error), verdict=Verdict.RAISED)
    problem = unpack(cause.payload)
    if not cause.stillborn:
        return problem
    what = f"{problem.actor} was not made: its constructor raised {problem}"
    died = ActorDiedError(what, actor=problem.actor, verdict=Verdict.NEVER_STARTED)
    died.__cause__ = problem
    return died


class translating:  # noqa: N801 - a function to those who use it; a generator could not raise a StopIteration
    """Raises inside the block what this package raises for what Ray does."""

    def __init__(self, what: str = "") -> None:
        self._what = what

    def __enter__(self) -> None:
        """Begins the block."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        __tracebackhide__ = True
        if isinstance(error, rays.RayError):
            other = translated(error, self._what)
            raise other from other.__cause__


@contextmanager
def sending(args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None, code: object = None) -> Iterator[None]:
    """Raises, for arguments or for the class of an actor that Ray cannot pickle, what this package raises for them."""
    __tracebackhide__ = True
    try:
        yield
    except rays.PendingCallsLimitExceeded as error:
        raise PendingCallsLimitExceeded(str(error)) from None
    except (TypeError, RecursionError, PicklingError) as error:
        dumps(code)  # one of both says which part it is
        dumps_arguments(tuple(args), kwargs or {})
        raise SerializationError(str(error).splitlines()[0]) from error
