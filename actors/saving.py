"""Saving: the state of an actor's object, kept by whoever has charge of it, so that it survives a restart."""

from __future__ import annotations

import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorDiedError, SerializationError
from actors.options import parse_checkpoint
from actors.serialize import dumps

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.address import Address
    from actors.messages import Payload
    from actors.options import ActorOptions
    from actors.process import Process
    from actors.spec import Construction

SAVE, LOAD = "__actor_save__", "__actor_load__"


class KeeperGone(ActorDiedError):  # noqa: N818 - as the errors it is among
    """Whoever has charge of the actor is gone, with whom it ends: its callers shall hear of that and no answer."""


def checkpoint_of(cls: type, options: ActorOptions) -> tuple[int | None, float | None] | None:
    """Returns after how many calls, or seconds, the state of such an actor is to be taken; None for never.

    Raises:
        TypeError: the class has only one of the two hooks, or one that is a coroutine.
        ValueError: ``checkpoint=`` is given for an actor that has no hooks or is never made anew.
    """
    hooks = [name for name in (SAVE, LOAD) if callable(getattr(cls, name, None))]
    if len(hooks) == 1:
        other = LOAD if hooks == [SAVE] else SAVE
        raise TypeError(
            f"{cls.__name__} has {hooks[0]} and no {other}: state needs both, one to take it, one to set it"
        )
    for name in hooks:
        if inspect.iscoroutinefunction(getattr(cls, name)):
            raise TypeError(f"{cls.__name__}.{name} must be a plain method, not a coroutine: no call runs meanwhile")
    if options.checkpoint is None:
        return (1, None) if hooks and options.max_restarts else None
    if not hooks:
        raise ValueError(
            f"checkpoint={options.checkpoint!r} needs {cls.__name__} to have {SAVE}(self), which returns its state, "
            f"and {LOAD}(self, state), which sets it"
        )
    if not options.max_restarts:
        raise ValueError(f"checkpoint={options.checkpoint!r} needs max_restarts=: only a restart uses the saved state")
    return parse_checkpoint(options.checkpoint)


def moves(cls: type) -> bool:
    """Whether such an actor can be moved: it has both hooks."""
    return all(callable(getattr(cls, name, None)) for name in (SAVE, LOAD))


def taken(thing: Any, label: str) -> Payload:
    """Returns the state of an actor's object.

    Raises:
        SerializationError: it cannot be pickled.
        Exception: whatever ``__actor_save__`` raises.
    """
    try:
        state = thing.__actor_save__()
    except Exception as error:
        error.add_note(f"(raised by {SAVE} of {label}, between two calls)")
        raise
    try:
        return dumps(state)
    except SerializationError as error:
        raise SerializationError(f"the state that {SAVE} of {label} returned was not saved: {error}") from error


class Saver:
    """Takes an object's state when it is due and gives it to whoever has charge of the actor.

    Args:
        thing: the actor's object.
        actor: its id.
        label: how it is called in messages.
        calls: after so many calls.
        seconds: or at the end of the first call after so much time.
        keeper: process in whose charge the actor is.
        process: this process.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        thing: Any,
        actor: str,
        label: str,
        calls: int | None,
        seconds: float | None,
        keeper: Address,
        process: Process,
    ) -> None:
        self._object = thing
        self._actor = actor
        self._label = label
        self._every = calls
        self._seconds = seconds
        self._keeper = keeper
        self._process = process
        self._lock = threading.Lock()  # states arrive in the order in which they were taken
        self._calls = 0
        self._last = time.monotonic()

    @classmethod
    def of(cls, construction: Construction, thing: Any, process: Process | None) -> Saver | None:
        """Returns the saver of an actor's object; None for one whose state is not kept."""
        if construction.checkpoint is None:
            return None
        assert construction.keeper is not None
        assert process is not None
        calls, seconds = construction.checkpoint
        spec = construction.spec
        return cls(thing, spec.id, spec.label, calls, seconds, construction.keeper, process)

    def call_over(self) -> Future[None] | None:
        """A call's method has ended. Returns what its answer has to wait for: that the state is in safe keeping.

        Raises:
            SerializationError: the state cannot be pickled.
            Exception: whatever ``__actor_save__`` raises.
        """
        with self._lock:
            self._calls += 1
            if not self._is_due():
                return None
            state = self._take()
            self._calls = 0
            self._last = time.monotonic()
            return self._process.portal.start(self._give(state))

    def _is_due(self) -> bool:
        if self._every is not None:
            return self._calls >= self._every
        assert self._seconds is not None
        return time.monotonic() - self._last >= self._seconds

    def _take(self) -> Payload:
        return taken(self._object, self._label)

    async def _give(self, state: Payload) -> None:
        try:
            await self._process.ask(self._keeper, "keeper", "saved", self._actor, state, timeout=None)
        except ActorDiedError as error:
            raise KeeperGone(f"the state of {self._label} was not saved: {error}", actor=self._label) from error
