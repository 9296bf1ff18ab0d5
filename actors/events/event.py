"""Events: what happened, when and to whom. Plain data that pickles, and turns into JSON by `as_plain`."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from actors.frozen import travelling

if TYPE_CHECKING:
    from actors.spec import ActorSpec

PENDING, ALIVE, RESTARTING, DEAD = "PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD"
"""States of an actor, in Ray's words."""


@travelling
@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node was met, or is gone.

    Attributes:
        at: when, in seconds since the epoch, by the clock of the node that says it; likewise below.
        node: its name.
        alive: whether it answers.
    """

    at: float
    id: str
    node: str
    address: str
    alive: bool


@travelling
@dataclass(frozen=True, slots=True)
class ActorChanged:
    """An actor came to life, ended, or is on its way there.

    Attributes:
        id: the actor's.
        class_name: name of its class; ``"task"`` for a worker of tasks.
        name: its name in the namespace, if it has one.
        node: name of its node; None while it has none.
        state: one of Ray's words.
        reason: why, as a clause; empty where there is nothing to say.
        life: how often it was made before.
        process: id of the process it is in; empty while it has none.
        guest: its id there where it shares that process; else empty.
        pid: of that process; None while it has none.
        restarts: whether it may be made anew.
        ours: it is no actor of the user's but runs tasks, or hosts light actors.
    """

    at: float
    id: str
    class_name: str
    name: str | None
    namespace: str
    node: str | None
    state: str
    reason: str = ""
    life: int = 0
    process: str = ""
    guest: str = ""
    pid: int | None = None
    restarts: bool = False
    ours: bool = False

    @classmethod
    def of(cls, spec: ActorSpec, state: str, **more: Any) -> ActorChanged:
        """Returns the event that an actor has come to a state just now; what is not given is as it was."""
        known: dict[str, Any] = {
            "node": None, "life": spec.life, "restarts": spec.restarts, "ours": spec.task or spec.host, **more
        }  # fmt: skip
        return cls(time.time(), spec.id, spec.class_name, spec.name, spec.namespace, state=state, **known)


@travelling
@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call has had its answer.

    Attributes:
        at: when it was answered.
        actor: id of the actor.
        method: its name; ``"__init__"`` for the constructor, a task's function for a task.
        caller: id of the process that called.
        queued: seconds it waited at the actor.
        ran: seconds it ran; 0 where it never started.
        outcome: ``"ok"``, ``"raised"``, ``"never started"``, ``"may have run"``, ``"ended"`` or ``"cut off"``.
        process: id of the process that answered.
        trace: trace id and span id of OpenTelemetry, ``"<32 hex>-<16 hex>"``, where there was a trace.
    """

    at: float
    actor: str
    class_name: str
    method: str
    caller: str
    queued: float
    ran: float
    outcome: str
    node: str
    process: str
    pid: int
    trace: str = ""


@travelling
@dataclass(frozen=True, slots=True)
class GroupChanged:
    """A member of a group has opened or closed its end of it.

    Attributes:
        id: of the group.
        rank: of the member.
        size: how many members there are.
        members: how each is called, in rank order.
        backend: what carries arrays.
        state: ``"OPEN"`` or ``"CLOSED"``.
        actor: id of the member; empty where it is a program.
        life: how often that was made before.
    """

    at: float
    id: str
    rank: int
    size: int
    members: tuple[str, ...]
    backend: str
    state: str
    node: str
    reason: str = ""
    actor: str = ""
    life: int = 0


@travelling
@dataclass(frozen=True, slots=True)
class CollectivesEnded:
    """Collectives of one kind that a member of a group took part in since it last said so.

    Attributes:
        group: id of the group.
        rank: the member's.
        op: such as ``"allreduce"``.
        count: how many.
        nbytes: bytes of the arrays that went in, all together.
        seconds: how long they took, all together.
        failed: how many of them raised.
    """

    at: float
    group: str
    rank: int
    op: str
    count: int
    nbytes: int
    seconds: float
    failed: int
    node: str


@travelling
@dataclass(frozen=True, slots=True)
class ModelChanged:
    """A model was laid out over nodes, or given up.

    Attributes:
        id: of this copy of it.
        model: its name.
        stages: node, first and last layer (both inclusive) of each stage, in layer order.
        state: ``"LOADED"`` or ``"CLOSED"``.
    """

    at: float
    id: str
    model: str
    stages: tuple[tuple[str, int, int], ...]
    state: str


@travelling
@dataclass(frozen=True, slots=True)
class TokensMade:
    """Tokens that a model has made since it last said so.

    Attributes:
        id: see `ModelChanged`.
        tokens: how many.
        seconds: that it took.
    """

    at: float
    id: str
    model: str
    tokens: int
    seconds: float


@travelling
@dataclass(frozen=True, slots=True)
class LogPrinted:
    """An actor has printed a line; a very long one is cut."""

    at: float
    actor: str | None
    class_name: str | None
    name: str | None
    node: str
    pid: int
    stream: str
    text: str


Event = (
    NodeChanged | ActorChanged | CallEnded | GroupChanged | CollectivesEnded | ModelChanged | TokensMade | LogPrinted
)


def as_plain(event: Event) -> dict[str, Any]:
    """Returns an event as JSON shows it; ``kind`` is the name of its class."""
    return {"kind": type(event).__name__, **{field.name: getattr(event, field.name) for field in fields(event)}}
