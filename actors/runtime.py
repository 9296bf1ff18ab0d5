"""Which cluster this process is part of, and on whose behalf code of an actor's runs."""

from __future__ import annotations

import threading
import time
import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from actors import arena, face, holdings
from actors.events import recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.process import Process
    from actors.spec import ActorSpec, GroupSpec


class ActorExit(BaseException):
    """Raised by `actors.exit_actor`: it unwinds the method that has asked for its actor's end."""


@dataclass(frozen=True, slots=True)
class Incarnation:
    """An actor that runs in this process.

    Attributes:
        spec: what it is.
        group: its place in its group, if it has one.
        node: name of its node.
        leave: ends the actor by its own wish.
        made: ids of the actors it has made, which end with it; None where they end with its process.
    """

    spec: ActorSpec
    group: GroupSpec | None
    node: str
    leave: Callable[[], None]
    made: list[str] | None = None


class Child(Protocol):
    """A call that a running call has made."""

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Says that its answer is no longer wanted; one that has had its answer is left alone."""


class Traced(Protocol):
    """A running call's part of a trace; see `actors.tracing`."""

    @property
    def traceparent(self) -> str:
        """What the calls that it makes are part of."""

    @property
    def here(self) -> Any:
        """See `actors.lateserved.LateServed`."""

    @property
    def context(self) -> Any:
        """Likewise."""

    def failed(self, error: BaseException) -> None:
        """Its method has raised."""

    def end(self) -> None:
        """It is over. On the thread, or in the task, that it ran in."""


class Running:
    """A call that this process serves: what the code that runs for it can find out and hand on.

    Attributes:
        key: what tells it from every other call of its actor: the session it came by, and its number there.
        label: of its actor, for messages.
        method: that was called; for a task the function's name.
        deadline: by `time.monotonic`, when nobody waits for its answer any more; None for never.
        actor: that runs it.
        cancelled: the caller no longer wants the answer.
        origin: by what in the driver it was made in the end; see `actors.face.Face`.
        traceparent: of the trace it is part of; empty for none. See `actors.tracing`.
        traced: that part, which it makes itself; None where it makes none.
        over: it has been answered.
    """

    # Most calls leave these as they are, and a call is made often.
    actor: Incarnation | None = None
    cancelled = False
    origin = ""
    traceparent = ""
    traced: Traced | None = None
    over = False
    _children: list[weakref.ref[Child]] | None = None

    def __init__(self, key: tuple[str, int], label: str, method: str, deadline: float | None = None) -> None:
        self.key = key
        self.label = label
        self.method = method
        self.deadline = deadline

    def remaining(self) -> float | None:
        """Returns the seconds until its deadline, at least 0; None where it has none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def adopt(self, child: Child) -> None:
        """Remembers a call that this one has made, as long as somebody else does."""
        with _adopting:
            if self._children is None:
                self._children = []
            elif len(self._children) >= _MANY and len(self._children).bit_count() == 1:
                self._children = [known for known in self._children if known() is not None]
            self._children.append(weakref.ref(child))

    def cancel_children(self, *, force: bool = False) -> None:
        """Cancels the calls that this one has made, and theirs."""
        with _adopting:
            children = [child for known in self._children or () if (child := known()) is not None]
            self._children = None
        for child in children:
            child.cancel(force=force, recursive=True)


_MANY = 64  # calls of one call, from which on those that are over are looked for
_adopting = threading.Lock()  # a method may call from threads of its own
_process: Process | None = None
_self: Incarnation | None = None
_renamed: dict[str, str] = {}  # actors of this process that have lost their names, by id
current: ContextVar[Running | None] = ContextVar("actors_running", default=None)
"""The call that this code runs for. Set by the actor around each method; use `running`."""


def joined() -> Process | None:
    """Returns this process's part in the cluster, None where it has none."""
    return _process


def join(process: Process | None) -> None:
    """Sets, or with None ends, this process's part in a cluster."""
    global _process  # noqa: PLW0603 - the one place that knows
    _process = process
    holdings.use(process.holdings if process is not None else None)
    arena.use(process.arena if process is not None else None)
    recorder.use(process.recorder if process is not None else None)


def rename(actor: str, name: str) -> None:
    """An actor of this process has lost its name, and is found by this one from now on."""
    _renamed[actor] = name


def name_of(spec: ActorSpec) -> str:
    """Returns what an actor of this process is called; empty where it has no name."""
    return _renamed.get(spec.id, spec.name or "")


def become(actor: Incarnation) -> None:
    """This whole process is an actor from now on."""
    global _self  # noqa: PLW0603 - the one place that knows
    _self = actor


def myself() -> Incarnation | None:
    """Returns the actor that this code belongs to; None in a driver."""
    call = current.get()
    return call.actor if call is not None and call.actor is not None else _self


def myself_is(actor: str) -> bool:
    """Whether this whole process is that actor."""
    return _self is not None and _self.spec.id == actor


def driver() -> Address | None:
    """Returns the driver that this code works for, which shows what its actors print."""
    actor = myself()
    if actor is not None:
        return actor.spec.driver
    return _process.address if _process is not None else None


def running() -> Running | None:
    """Returns the call that this code runs for; None outside of one, and in what has outlived it."""
    call = current.get()
    return call if call is not None and not call.over else None


def origin() -> str:
    """Returns by what a call is made that is made here; see `actors.face.Face`."""
    call = current.get()
    return call.origin if call is not None else face.current.origin()


def remaining() -> float | None:
    """Returns the seconds the current call has left; None where nothing limits it."""
    call = running()
    return call.remaining() if call is not None else None


def cancelled() -> bool:
    """Whether the current call was cancelled: a plain method goes on then, and may look."""
    call = current.get()
    return call is not None and call.cancelled
