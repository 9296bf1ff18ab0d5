"""Everything this package raises, in one small tree split by who is at fault.

Every message says what was wrong and what to do next. Where a remote call failed, the exception also says
where: ``node``, ``actor`` and ``method``, and by ``verdict`` whether the call ran.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING


class Verdict(Enum):
    """What is known of a call that failed."""

    RAISED = "it raised"
    NEVER_STARTED = "it never started"
    MAY_HAVE_RUN = "it may have run"


class ActorsError(Exception):
    """Root of all errors of this package."""


class RemoteError(ActorsError):
    """An error that happened elsewhere, or on the way there.

    Attributes:
        node: name of the node concerned, if known.
        actor: name or id of the actor concerned, if known.
        method: method that was called, if any.
        verdict: whether the failed call ran.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        actor: str | None = None,
        method: str | None = None,
        verdict: Verdict = Verdict.MAY_HAVE_RUN,
    ) -> None:
        super().__init__(message)
        self.node = node
        self.actor = actor
        self.method = method
        self.verdict = verdict

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__cause__), self.__dict__)


def _rebuild(cls: type[RemoteError], args: tuple[object, ...], cause: BaseException | None) -> RemoteError:
    error = cls.__new__(cls)
    error.args = args
    error.__cause__ = cause
    return error


class TaskError(RemoteError):
    """A method raised. What is caught is also an instance of the user's own exception class.

    ``str()`` of it holds the remote traceback; ``cause`` is the user's own exception, where it could be rebuilt.

    Attributes:
        pid: number of the process it raised in.
        function_name: what was called there.
        traceback_str: the remote traceback.

    These three, which Ray's errors have, give way to attributes that the user's own class has by such a name.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""

    if TYPE_CHECKING:
        pid: int
        function_name: str
        traceback_str: str

    def as_instanceof_cause(self) -> TaskError:
        """Returns this error, which is of the user's own class already."""
        return self

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else super().__str__()


class ActorError(RemoteError):
    """The actor could not answer."""


class ActorDiedError(ActorError):
    """The actor is gone: its constructor raised, its process ended, or it was killed."""


class ActorUnavailableError(ActorError):
    """The actor cannot be reached at present; it may still be alive."""


class NodeDiedError(ActorDiedError):
    """The node that hosted the actor is gone, and the actor with it."""


class ActorCycleError(ActorError):
    """Actors wait for each other in a circle."""


class ObjectLostError(RemoteError):
    """The value of a reference is gone, with the process that owned it."""


class TaskCancelledError(RemoteError):
    """The call was cancelled."""


class ArgumentError(ActorsError, TypeError, ValueError):
    """An argument is of the wrong kind. Python's word for it is TypeError, Ray's is mostly ValueError."""


class WorkerCrashedError(RemoteError):
    """The process that ran a task has died."""


class GetTimeoutError(ActorsError, TimeoutError):
    """The value did not arrive in time; the call goes on."""


class ClusterTimeoutError(ActorsError, TimeoutError):
    """The cluster did not come up in time."""


class PendingCallsLimitExceeded(ActorsError):  # noqa: N818 - Ray's name
    """Too many calls wait for an answer."""


class ActorAlreadyExistsError(ActorsError, ValueError):
    """Another actor of this namespace has the name."""


class PlacementError(ActorsError):
    """No node can take the actor."""


class ActorUnplacedError(ActorDiedError, PlacementError):
    """The actor never came to be, since no node can take it."""


class NoClusterError(ActorsError):
    """There is no cluster to use: ``actors.init()`` was not called, or it is shut down."""


class SerializationError(ActorsError, TypeError):
    """A value cannot be sent; the message names the part that cannot."""


class RuntimeEnvError(ActorsError):
    """The environment an actor asked for cannot be made."""


class ActorEnvironmentError(ActorDiedError, RuntimeEnvError):
    """The actor never came to be, since its environment cannot be made."""


class VersionMismatchError(ActorsError):
    """Two devices run versions that do not work together."""


class AuthenticationError(ActorsError):
    """The other device does not trust this one, or this one does not trust it."""


class CollectiveError(ActorsError):
    """A collective failed on all ranks; the message names the rank that caused it."""


class ModelError(ActorsError):
    """A model cannot be loaded, cut or run; the message says why."""


# By these names Ray's users know them.
RayError = ActorsError
RayTaskError = TaskError
RayActorError = ActorError
ActorUnschedulableError = PlacementError
TaskUnschedulableError = PlacementError
RuntimeEnvSetupError = RuntimeEnvError
# The system ends a process that takes too much, and what ended it cannot be told from any other crash.
OutOfMemoryError = WorkerCrashedError
LocalRayletDiedError = NodeDiedError
ObjectFreedError = ObjectLostError
ObjectFetchTimedOutError = ObjectLostError
OwnerDiedError = ObjectLostError
ReferenceCountingAssertionError = ObjectLostError
ObjectReconstructionFailedError = ObjectLostError
