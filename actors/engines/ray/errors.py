"""Errors: what Ray raises, as what this package raises."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import ray
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.messages import Payload

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
        return (RaisedError, (self.payload, str(self), self.stillborn))


def raised(error: BaseException, place: Place, *, stillborn: bool = False) -> RaisedError:
    """Returns what is raised in Ray's worker in place of ``error``."""
    return RaisedError(pack(error, place), f"{type(error).__name__}: {error}", stillborn)


def place(actor: str, method: str) -> Place:
    """Returns where this code runs."""
    import os

    return Place(ray.get_runtime_context().get_node_id()[:12], actor, method, os.getpid())


def translated(error: BaseException) -> BaseException:
    """Returns what this package raises for what Ray has raised; what is not Ray's stays as it is."""
    if isinstance(error, rays.RayTaskError):
        return _of_task(error)
    for kind, ours in KINDS:
        if isinstance(error, kind):
            return ours(str(error))
    return error


def _of_task(error: rays.RayTaskError) -> BaseException:
    cause = error.cause
    if not isinstance(cause, RaisedError):
        # Ray itself has failed there, such as in pickling a result; or an argument of the call has failed.
        inner = translated(cause) if isinstance(cause, rays.RayError) else None
        if inner is not None and inner is not cause:
            return inner
        if isinstance(cause, TypeError):  # what the method itself raises comes packed
            return SerializationError(f"Ray cannot send what the call returned: {cause}")
        return TaskError(str(error), verdict=Verdict.RAISED)
    problem = unpack(cause.payload)
    if not cause.stillborn:
        return problem
    what = f"{problem.actor} was not made: its constructor raised {problem}"
    died = ActorDiedError(what, actor=problem.actor, verdict=Verdict.NEVER_STARTED)
    died.__cause__ = problem
    return died


@contextmanager
def translating() -> Iterator[None]:
    """Raises inside the block what this package raises for what Ray does."""
    __tracebackhide__ = True
    try:
        yield
    except rays.RayError as error:
        other = translated(error)
        raise other from other.__cause__


@contextmanager
def sending() -> Iterator[None]:
    """Raises, for arguments that Ray cannot pickle, what this package raises for them."""
    __tracebackhide__ = True
    try:
        yield
    except rays.PendingCallsLimitExceeded as error:
        raise PendingCallsLimitExceeded(str(error)) from None
    except TypeError as error:
        told = [line for line in str(error).splitlines() if "FAIL serialization" in line or "FailTuple" in line]
        raise SerializationError("\n".join([str(error).splitlines()[0], *told[:3]])) from error
