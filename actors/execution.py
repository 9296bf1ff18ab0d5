"""Execution: runs the methods of one actor's object and answers their calls, on a thread or on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from typing import TYPE_CHECKING, Any

from actors import debugging, tracing
from actors.common import COMMON
from actors.convoy import Member
from actors.courier import KeeperGone
from actors.events.recorder import Stretch
from actors.exceptions import ActorUnavailableError, SerializationError, Verdict
from actors.failure import Place, exited, pack, unpicklable
from actors.mailbox import Held
from actors.messages import STREAMING, VALUE, Outcome, Payload
from actors.returned import first, iterator, on_the_loop, several
from actors.runtime import ActorExit, current
from actors.sealed import Several, open_arguments
from actors.serialize import dumps
from actors.transport.answers import is_small
from actors.transport.portal import wait
from actors.untimely import cancelled, too_late

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from actors.convoy import Convoy, Together
    from actors.gathering import Gathering
    from actors.job import Job
    from actors.mailbox import Mailbox
    from actors.record import Record
    from actors.runtime import Incarnation
    from actors.saving import Saver
    from actors.shortage import NoThreadError
    from actors.spec import MethodSpec


AHEAD_CALLS = 256
"""So many calls may have run whose answers wait until their states are safe."""


class Execution:
    """What runs the calls of an actor that has been made.

    Args:
        thing: the actor's object.
        methods: of its class.
        groups: names of its concurrency groups.
        actor: what it is.
        mailbox: where its calls are.
        left: called with an exit code, a reason and whether it was wanted, where a method ends its actor.
        saver: keeps the object's state; None for one whose state is not kept.
        record: writes its calls to a file; None for one whose calls are not recorded.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        thing: Any,
        methods: dict[str, MethodSpec],
        groups: Iterable[str],
        actor: Incarnation,
        mailbox: Mailbox,
        left: Callable[[int, str, bool], None],
        saver: Saver | None,
        record: Record | None = None,
    ) -> None:
        self._object = thing
        self._methods = methods
        self._groups = frozenset(groups)
        self._actor = actor
        self._mailbox = mailbox
        self._left = left
        self._saver = saver
        self._record = record
        self._unsafe: set[Future[None]] = set()  # states on their way, each with a call that waits for its answer
        self._pid = os.getpid()
        self._grouped = bool(self._groups) or any(m.options.concurrency_group for m in methods.values())

    def paced_by(self, pause: Callable[[Callable[[], None]], object], gathering: Gathering | None = None) -> None:
        """Calls are served from now on; see `actors.saving.Saver`."""
        if self._saver is not None:
            self._saver.paced_by(pause, gathering)

    def group_of(self, job: Job) -> str | None:
        """Returns the concurrency group of a call, empty for the default one; answers it if there is none such."""
        name = job.call.terms.group
        if not name and self._grouped:
            method = self._methods.get(job.call.method)
            name = (method.options.concurrency_group or "") if method is not None else ""
        if not name or name in self._groups:
            return name
        there = ", ".join(sorted(self._groups)) or "none"
        self._mailbox.withdraw(
            job,
            ValueError(
                f"{self._place(job)} was called in the concurrency group {name!r}, which the actor does not have; "
                f"there are: {there}. Name them all in concurrency_groups= of the actor"
            ),
        )
        return None

    def cannot_run(self, job: Job, error: NoThreadError) -> None:
        """Answers a call for which there is no thread: it never started."""
        place = self._place(job)
        self._mailbox.withdraw(job, ActorUnavailableError(
            f"{place} never started: {error}",
            node=place.node, actor=place.actor, method=place.method, verdict=Verdict.NEVER_STARTED,
        ))  # fmt: skip

    # -- on a thread --------------------------------------------------------------------------------------------

    def run(self, job: Job, *, more: bool = False) -> None:
        """Runs a call to its end on this thread, unless it was answered already.

        Args:
            job: the call.
            more: whether others wait for this thread, beside those that the mailbox knows of.
        """
        while True:
            try:
                if not self._starts(job):
                    return
                break
            except Held as held:
                self._mailbox.until_released(held)
        token = current.set(job)
        if job.came:
            job.traced = tracing.serve(job)
        try:
            result = self._call(job)
            returns = self._returns(job)
            if returns == STREAMING:
                self._stream(job, result)
                result = None
            elif returns != 1:
                result = several(result, returns, self._place(job))
        except BaseException as error:
            self._failed(job, self._save(job, error) or error)
        else:
            outcome, payload, problem = self._sealed(job, result)
            if self._saver is None:
                self._give(job, outcome, payload, problem)
            else:
                self._give_saved(job, outcome, payload, problem, more)
        finally:
            if job.traced is not None:
                job.traced.end()
            current.reset(token)

    def _give_saved(
        self, job: Job, outcome: Outcome, payload: Payload, problem: BaseException | None, more: bool
    ) -> None:
        """Answers a call once the actor's state is safe, where that is due."""
        try:
            saving = self._saving(job, outcome, payload)
            if saving is not None and self._goes_on(job, more):
                self._give_later(saving, job, outcome, payload, problem)
                return
            if saving is not None:
                self._wait(saving)
        except BaseException as error:
            self._failed(job, error)
        else:
            self._give(job, outcome, payload, problem)

    def run_together(self, convoy: Convoy) -> None:
        """Runs the calls of a convoy on this thread, one after the other."""
        if not self._is_simple(convoy):
            jobs = self._mailbox.disband(convoy)
            for index, one in enumerate(jobs):
                self._mailbox.attend()
                if self.group_of(one) is not None:
                    self.run(one, more=index + 1 < len(jobs))
            return
        token = current.set(None)
        stretch = Stretch(self._actor.spec, convoy.visitor.session, convoy.method, convoy.arrived)
        try:
            while (job := self._next_of(convoy)) is not None:
                self._run_one(job, convoy.visitor, stretch)
        finally:
            current.reset(token)
            stretch.tell()
            convoy.visitor.flush()

    def _is_simple(self, convoy: Convoy) -> bool:
        """Whether all that its calls need is that the method is called."""
        method = self._methods.get(convoy.method)
        if method is None or method.generates or method.options.concurrency_group:
            return False
        return self._saver is None and self._record is None and not convoy.trace

    def _next_of(self, convoy: Convoy) -> Job | None:
        while True:
            self._mailbox.attend()
            try:
                return self._mailbox.next_of(convoy)
            except Held as held:
                held.released.result()

    def _run_one(self, job: Job, visitor: Together, stretch: Stretch) -> None:
        job.actor = self._actor
        job.label = self._actor.spec.label  # it may have come before that was known
        current.set(job)
        try:
            if isinstance(job, Member) and not debugging.armed():
                result = getattr(self._object, job.method)(job.value)
            else:
                result = self._call(job)
        except BaseException as error:
            stretch.tell()
            self._failed(job, error)
            return
        if job.cancelled or not is_small(result):
            stretch.tell()
            self._give(job, *self._sealed(job, result))
            return
        if _forked:
            self._end_forked_child()
        if self._mailbox.finish(job):
            stretch.ended()
            visitor.answered(job.key[1], result)

    def _starts(self, job: Job) -> bool:
        if job.deadline is not None and time.monotonic() >= job.deadline:
            self._mailbox.withdraw(job, too_late(job, self._place(job), started=False))
            return False
        job.actor = self._actor
        job.label = self._actor.spec.label  # it may have come before that was known
        if not self._mailbox.start(job):
            return False
        if self._record is not None:
            self._record.began(job)
        return True

    def _call(self, job: Job) -> Any:
        """Calls the method; what it returns may be a coroutine or a generator."""
        payload, name = job.call.payload, job.method
        assert isinstance(payload, Payload)
        args, kwargs = open_arguments(payload)
        if name not in self._methods:
            if name in COMMON:
                return COMMON[name][1](self._object, *args, **kwargs)
            raise AttributeError(f"{job.label} has no method {name!r}")
        method = getattr(self._object, name)
        if debugging.armed() and (session := debugging.session_for(self._actor.spec.id, name)) is not None:
            return session.run(method, args, kwargs)
        return method(*args, **kwargs)

    def _returns(self, job: Job) -> int:
        # A generator itself cannot be sent: asked for as one value, it can only be meant as its values.
        returns = job.call.terms.returns
        if returns != 1:
            return returns
        method = self._methods.get(job.method)
        return STREAMING if method is not None and method.generates else 1

    def _save(self, job: Job, error: BaseException) -> BaseException | None:
        """Has the state saved, where that is due, after a method that raised ``error``; returns what went wrong."""
        if self._saver is None or isinstance(error, _LEAVING):
            return None
        try:
            if (saving := self._saver.call_over(job)) is not None:
                self._wait(saving)
        except BaseException as problem:
            problem.__context__ = error
            return problem
        return None

    def _stream(self, job: Job, result: Any) -> None:
        values = iterator(result, self._place(job))
        try:
            for index, value in enumerate(values):
                job.wait_for_room(index)
                if job.reason is not None:
                    raise job.reason
                job.post_item(index, dumps(value))
        finally:
            if isinstance(values, Generator):
                values.close()  # its finally clauses run now

    # -- on an event loop ---------------------------------------------------------------------------------------

    async def run_async(self, job: Job) -> None:
        """Runs a call to its end in this task, which is the call's own, unless it was answered already."""
        while True:
            try:
                if not self._starts(job):
                    return
                break
            except Held as held:
                await asyncio.shield(asyncio.wrap_future(held.released))
        current.set(job)
        job.traced = tracing.serve(job)
        try:
            result = self._call(job)
            returns = self._returns(job)
            if inspect.isawaitable(result):
                job.give_way()
                result = await result
            if returns == STREAMING:
                job.give_way()
                await self._stream_async(job, result)
                result = None
            elif returns != 1:
                if returns and isinstance(result, AsyncIterable):
                    job.give_way()
                    result = await first(result, returns + 1)
                result = several(result, returns, self._place(job))
        except BaseException as error:
            self._failed(job, await self._save_async(job, error) or error)
        else:
            outcome, payload, problem = self._sealed(job, result)
            try:
                if (saving := self._saving(job, outcome, payload)) is not None:
                    await asyncio.shield(asyncio.wrap_future(saving))
            except BaseException as error:
                self._failed(job, error)
            else:
                self._give(job, outcome, payload, problem)
        finally:
            if job.traced is not None:
                job.traced.end()
            current.set(None)  # the job knows its task, and the task its context: neither is to be kept

    async def _save_async(self, job: Job, error: BaseException) -> BaseException | None:
        """See `_save`."""
        if self._saver is None or isinstance(error, _LEAVING):
            return None
        try:
            if (saving := self._saver.call_over(job)) is not None:
                await asyncio.shield(asyncio.wrap_future(saving))
        except BaseException as problem:
            problem.__context__ = error
            return problem
        return None

    async def _stream_async(self, job: Job, result: Any) -> None:
        values = aiter(result) if isinstance(result, AsyncIterable) else on_the_loop(iterator(result, self._place(job)))
        index = 0
        try:
            async for value in values:
                await job.room(index)
                job.post_item(index, dumps(value))
                index += 1
        finally:
            if isinstance(values, AsyncGenerator):
                await values.aclose()  # its finally clauses run now

    # -- answering ----------------------------------------------------------------------------------------------

    def _sealed(self, job: Job, result: Any) -> tuple[Outcome, Payload, BaseException | None]:
        """Returns how a call whose method has returned is answered, with what, and what went wrong about it."""
        if _forked:
            self._end_forked_child()
        try:
            payload = dumps(Several(tuple(map(dumps, result))) if job.call.terms.returns > 1 else result)
        except BaseException as error:  # a value's own pickling may raise anything
            problem = error if isinstance(error, SerializationError) else SerializationError(type(error).__name__)
            return Outcome.RAISED, unpicklable(problem, self._place(job)), problem
        return VALUE, payload, None

    def _saving(self, job: Job, outcome: Outcome, payload: Payload) -> Future[None] | None:
        """Returns what that answer has to wait for, if it has; see `actors.saving.Saver.call_over`."""
        if self._saver is None:
            return None
        return self._saver.call_over(job, payload if outcome is VALUE else None)

    def _wait(self, saving: Future[None]) -> None:
        assert self._saver is not None
        self._saver.wait(saving)

    def _goes_on(self, job: Job, more: bool) -> bool:
        """Whether the next call is run while the answer of this one waits for its state to be safe."""
        plain = self._record is None and job.traced is None
        return plain and (more or self._mailbox.has_more) and len(self._unsafe) < AHEAD_CALLS

    def _give_later(
        self, saving: Future[None], job: Job, outcome: Outcome, payload: Payload, problem: BaseException | None
    ) -> None:
        """Has a call answered once its state, or that of a later one, is safe."""
        job.settled = True
        self._unsafe.add(saving)

        def safe(saved: Future[None]) -> None:
            try:
                if (error := saved.exception()) is not None:
                    self._failed(job, error)
                else:
                    self._give(job, outcome, payload, problem)
            finally:
                self._unsafe.discard(saved)

        saving.add_done_callback(safe)

    def _give(self, job: Job, outcome: Outcome, payload: Payload, problem: BaseException | None) -> None:
        if job.cancelled:  # whatever came of it is not wanted
            self._failed(job, asyncio.CancelledError())
            if job.escort is not None and self._saver is not None:
                self._saver.send_alone(job.escort)
        else:
            self._answer(job, outcome, payload, problem)

    def finish(self) -> None:
        """The actor ends, and no method runs any more: who waits for its state has it taken, and its answer."""
        if self._saver is not None:
            self._saver.finish()
        while self._unsafe:
            with contextlib.suppress(Exception):
                wait(next(iter(self._unsafe.copy())))

    def _failed(self, job: Job, error: BaseException) -> None:
        self._end_forked_child(error.code if isinstance(error, SystemExit) else 1)
        if job.traced is not None:
            job.traced.failed(error)
        place = self._place(job)
        if isinstance(error, ActorExit):
            self._answer(job, Outcome.MAY_HAVE_RUN, dumps(exited("called exit_actor()", place)), error)
            self._left(0, LEFT, True)
        elif isinstance(error, SystemExit):
            if error.code == 0:
                self._answer(job, Outcome.MAY_HAVE_RUN, dumps(exited("raised SystemExit(0)", place)), error)
            else:  # its caller hears of the death, after which it may be sent again
                self._answer(job, Outcome.CUT_OFF, dumps(None), error)
            self.left_by(error, f"its method {job.method}")
        elif isinstance(error, KeeperGone):  # as above
            self._answer(job, Outcome.CUT_OFF, dumps(None), error)
        elif error is job.reason or isinstance(error, asyncio.CancelledError) or _interrupted(job, error):
            reason = job.reason or cancelled(job, place, started=True)
            self._answer(job, Outcome.MAY_HAVE_RUN, dumps(reason), error)
        else:
            self._answer(job, Outcome.RAISED, _packed(error, place), error)

    def _answer(self, job: Job, outcome: Outcome, payload: Payload, error: BaseException | None = None) -> None:
        if self._record is not None:
            self._record.ended(job, outcome, payload, error)
        if not self._mailbox.answer(job, outcome, payload) and job.escort is not None and self._saver is not None:
            self._saver.send_alone(job.escort)

    def left_by(self, error: SystemExit, who: str) -> None:
        """The actor's code has asked for its process's end. Only status 0 says that this was meant to be, as in Ray."""
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        self._left(code, f"{who} raised SystemExit({error.code!r})", error.code == 0)

    def _end_forked_child(self, code: object = 0) -> None:
        """Ends a child that a method has forked and not ended itself: it must not answer for its parent."""
        if _forked and os.getpid() != self._pid:  # to ask for it each time would cost as much as the call of a method
            os._exit(code if isinstance(code, int) else 1)

    def _place(self, job: Job) -> Place:
        return Place(self._actor.node, self._actor.spec.label, job.method, self._pid)


def _interrupted(job: Job, error: BaseException) -> bool:
    return job.cancelled and isinstance(error, KeyboardInterrupt)


_forked = False  # this process is the child of one that is what it was


def _is_forked() -> None:
    global _forked  # noqa: PLW0603 - one process, one parent
    _forked = True


os.register_at_fork(after_in_child=_is_forked)

LEFT = "it called exit_actor()"
_LEAVING = (ActorExit, SystemExit)


def _packed(error: BaseException, place: Place) -> Payload:
    try:
        return pack(error, place)
    except BaseException as problem:  # memory may have run out, or the stack
        plain = RuntimeError(f"{type(error).__name__}, which could not be sent: {type(problem).__name__}")
        return pack(plain, place)
