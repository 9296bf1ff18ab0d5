"""Saving: the state of an actor's object, kept by whoever has charge of it, so that it survives a restart."""

from __future__ import annotations

import inspect
import threading
import time
import traceback
from itertools import count
from typing import TYPE_CHECKING, Any

from actors import escort
from actors.courier import Courier
from actors.escort import Escort
from actors.exceptions import SerializationError
from actors.options import parse_checkpoint
from actors.serialize import dumps

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from actors.address import Address
    from actors.gathering import Gathering
    from actors.job import Job
    from actors.messages import Payload
    from actors.options import ActorOptions
    from actors.process import Process
    from actors.spec import Construction

SAVE, LOAD = "__actor_save__", "__actor_load__"


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
        seconds: or so long after the last time, if there has been a call since.
        keeper: process in whose charge the actor is.
        process: this process.
        numbered: whether the keeper knows of states with numbers, which may go with an answer.
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
        *,
        numbered: bool,
    ) -> None:
        self._object = thing
        self._actor = actor
        self._label = label
        self._every = calls
        self._seconds = seconds
        self._keeper = keeper
        self._process = process
        self._courier = Courier(actor, label, keeper, process)
        self._lock = threading.Lock()  # states arrive in the order in which they were taken
        self._numbers = count(1) if numbered else None
        self._calls = 0
        self._last = time.monotonic()
        self._pause: Callable[[Callable[[], None]], object] | None = None
        self._gathering: Gathering | None = None
        self._timed = False  # whether a timer runs, or the pause that it has asked for

    @classmethod
    def of(cls, construction: Construction, thing: Any, process: Process | None, maker: Job) -> Saver | None:
        """Returns the saver of an actor's object, made by this call; None for one whose state is not kept."""
        if construction.checkpoint is None:
            return None
        assert construction.keeper is not None
        assert process is not None
        calls, seconds = construction.checkpoint
        spec = construction.spec
        keeper = construction.keeper
        numbered = maker.knows(keeper.process, escort.MINOR)
        return cls(thing, spec.id, spec.label, calls, seconds, keeper, process, numbered=numbered)

    def call_over(self, job: Job, value: Payload | None = None) -> Future[None] | None:
        """A call's method has ended. Returns what its answer has to wait for: that the state is in safe keeping.

        Where the caller is the keeper and ``value`` is light, the state goes with it as its escort, and nothing waits.

        Raises:
            SerializationError: the state cannot be pickled.
            Exception: whatever ``__actor_save__`` raises.
        """
        with self._lock:
            self._calls += 1
            if self._seconds is not None:
                if not self._timed:
                    self._timed = True
                    self._process.portal.soon(self._set_timer, self._last + self._seconds - time.monotonic())
                return None
            if self._every is None or self._calls < self._every:
                return None
            if self._gathering is None:
                return self._save_after(job, value)
        done = self._gathering.ended(job)
        if done is not None:
            return done
        try:
            with self._lock:
                return self._save_after(job, value)
        finally:
            self._gathering.over()

    def _save_after(self, job: Job, value: Payload | None) -> Future[None] | None:
        state, number = self._taken()
        if number is not None and self._may_escort(job, value, state):
            job.escort = Escort(self._actor, number, state)
            return None
        return self._save(state, number)

    def _save_for_all(self) -> Future[None]:
        with self._lock:
            return self._save(*self._taken())

    def finish(self) -> None:
        """The actor ends: no call is half-way any more."""
        if self._gathering is not None:
            self._gathering.finish()

    def _may_escort(self, job: Job, value: Payload | None, state: Payload) -> bool:
        if value is None or self._keeper.is_node or not job.knows(self._keeper.process, escort.MINOR):
            return False
        return escort.is_light(value) and escort.is_light(state)

    def send_alone(self, lost: Escort) -> None:
        """Sends a state that was to go with an answer which nobody takes any more."""
        self._save(lost.state, lost.number)

    def _taken(self) -> tuple[Payload, int | None]:
        state = taken(self._object, self._label)
        self._calls = 0
        self._last = time.monotonic()
        return state, None if self._numbers is None else next(self._numbers)

    def _save(self, state: Payload, number: int | None) -> Future[None]:
        return self._courier.send(state, number)

    def wait(self, safe: Future[None]) -> None:
        """Waits, on a thread that may block, for what `call_over` has returned; raises why the state is not safe."""
        self._courier.wait(safe)

    def paced_by(self, pause: Callable[[Callable[[], None]], object], gathering: Gathering | None) -> None:
        """Calls are served from now on.

        Args:
            pause: has something done between two of them, from any thread.
            gathering: where several may run at once, sees to it that the state is taken between them.
        """
        self._pause = pause
        if gathering is not None:
            gathering.take = self._save_for_all
            self._gathering = gathering

    def _set_timer(self, seconds: float) -> None:
        self._process.loop.call_later(max(0.0, seconds), self._time_is_up)

    def _time_is_up(self) -> None:
        """There has been a call, and its effect is to be kept. On the I/O loop."""
        assert self._pause is not None
        self._pause(self._save_in_pause)

    def _save_in_pause(self) -> None:
        with self._lock:
            self._timed = False
            try:
                self._save(*self._taken())
            except Exception:
                # No call waits for it; the next one has it tried again.
                self._last = time.monotonic()
                traceback.print_exc()
