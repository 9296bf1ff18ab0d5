"""The actor itself: takes calls on the I/O loop, and runs them on its own thread, on several, or on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from actors import tracing
from actors.convoy import Convoy
from actors.crew import Pools, tasks
from actors.deadlines import Deadlines
from actors.departure import Departure
from actors.events import event, recorder
from actors.exceptions import ActorDiedError, ArgumentError, Verdict
from actors.execution import LEFT, Execution
from actors.failure import Place, pack, unpack
from actors.gathering import Gathering
from actors.job import Job, State
from actors.mailbox import Mailbox
from actors.messages import CONSTRUCT, DEPART, GO, PLAIN, PREPARE, RETIRE, ROOTED, STAY, Call, Cancel, Outcome, Payload
from actors.pause import Pause
from actors.record import Record
from actors.runtime import ActorExit, current, joined
from actors.saving import Saver
from actors.sealed import open_arguments
from actors.serialize import dumps, loads
from actors.spec import Construction, describe
from actors.untimely import cancelled, too_late

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.convoy import Together
    from actors.job import Visitor
    from actors.messages import Calls
    from actors.runtime import Incarnation
    from actors.spec import ActorSpec

ASYNC_CONCURRENCY = 1000
FORCE_SECONDS = 2.0  # for what can be stopped otherwise to do so
NOTHING = Payload(b"")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an actor has ended.

    Attributes:
        code: exit code of its process.
        epitaph: why, as a clause.
        intended: see `actors.transport.peer.Death`.
        moved: likewise.
    """

    code: int
    epitaph: str
    intended: bool
    moved: bool = False


class Instance:
    """One actor: takes calls on the I/O loop, runs them under the thread that called `run`.

    The first call is the owner's, which brings the class; calls of others that come before it wait.

    Args:
        id: the actor's id.
        node: name of its node.
        born: called with the construction before the constructor runs; returns what the actor is.
        abort: called on the I/O loop where the actor is to end at once, whatever its methods do.
        rooted: returns why it cannot live elsewhere, if it cannot, as a clause.

    Attributes:
        spec: what it is, once that is known.
        ending: how it has ended, once it has.
        refusal: what calls are told that come after that.
    """

    def __init__(
        self,
        id: str,
        node: str,
        born: Callable[[Construction], Incarnation],
        abort: Callable[[Ending], None],
        rooted: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.spec: ActorSpec | None = None
        self.ending: Ending | None = None
        self.refusal: ActorDiedError | None = None
        self._id = id
        self._node = node
        self._born = born
        self._abort = abort
        self._rooted = rooted
        self._departure: Departure | None = None
        self._departing: list[Job] = []  # asked to depart before it was made
        self._thing: Any = None
        self._own_thread: Callable[[Callable[[], None]], object] | None = None  # once it serves
        self._label = id
        self._lock = threading.Lock()
        self._mailbox = Mailbox(self._emptied)
        self._construction: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._begun = False
        self._serial = True  # one call at a time, as the constructor is too
        self._retiring: list[Job] = []
        self._deadlines = Deadlines(self._too_late)

    # -- on the I/O loop ----------------------------------------------------------------------------------------

    def called(self, call: Call, visitor: Visitor) -> None:
        """See `actors.service.Target`."""
        job = Job(call, visitor, self._label)
        if self._begun and not call.method.startswith("__"):
            self._arrive(job)
        elif call.method == RETIRE:
            self._retire(job)
        elif call.method == DEPART:
            self._depart(job)
        elif call.method == STAY:
            if self._departure is not None:
                self._departure.stay()
            self._mailbox.answer(job, Outcome.VALUE, dumps(None))
        elif call.method == GO:
            self._go(job)
        elif call.method == PREPARE and not self._begun:
            self._mailbox.arrive(job, queued=False)
            self._construction.put(job)
        elif call.method == CONSTRUCT and not self._begun:
            self._begun = True
            self._mailbox.arrive(job, queued=False)
            self._begin(job)
        else:
            self._arrive(job)

    def _arrive(self, job: Job) -> None:
        self._mailbox.arrive(job)
        if job.deadline is not None and not job.over:
            self._deadlines.add(job, asyncio.get_running_loop())

    def called_together(self, calls: Calls, visitor: Together) -> bool:
        """Takes calls in that came in one message; returns False where each is to be `called` by itself."""
        if not self.anywhere(calls) or not self._serial or not isinstance(calls.payload, Payload):
            return False
        if not calls.payload.pickle:
            return False
        return self._mailbox.arrive_together(Convoy(calls, loads(calls.payload), visitor, self._label))

    def anywhere(self, call: Call | Calls) -> bool:
        """See `actors.service.Target`."""
        return (
            self._begun
            and (call.terms is PLAIN or call.terms is ROOTED or call.terms.plain)
            and not call.method.startswith("__")
        )

    def _begin(self, job: Job) -> None:
        """Has the object made by a call of `CONSTRUCT`."""
        self._construction.put(job)

    def credited(self, session: str, number: int, upto: int) -> None:
        """See `actors.service.Target`."""
        job = self._mailbox.find((session, number))
        if job is not None:
            job.credited(upto)

    def cancelled(self, session: str, cancel: Cancel) -> None:
        """See `actors.service.Target`."""
        job = self._mailbox.find((session, cancel.number))
        if job is None or self._mailbox.withdraw(job, cancelled(job, self._place(job.method), started=False)):
            return
        job.cancelled = True
        job.stop(cancelled(job, self._place(job.method), started=True))
        if job.actor is not None and job.actor.spec.task:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # see `actors.runner`
        if cancel.recursive:
            job.cancel_children(force=cancel.force)
        if cancel.force:
            patience = FORCE_SECONDS if job.stoppable else 0.0
            asyncio.get_running_loop().call_later(patience, self._end_by_force, job)

    def in_the_way(self, key: tuple[str, int]) -> Job | None:
        """See `actors.service.Target`."""
        job = self._mailbox.find(key)
        if job is None or job.state is not State.QUEUED:
            return job
        return self._mailbox.running() if self._serial else None

    def visitor_gone(self, session: str) -> None:
        """Nobody reads the answers of this session any more: its streams stop, its waiting calls are dropped."""
        for job in self._mailbox.of_session(session):
            self.cancelled(session, Cancel(job.key[1], recursive=False))

    def _too_late(self, job: Job) -> None:
        if not self._mailbox.withdraw(job, too_late(job, self._place(job.method), started=False)):
            job.stop(too_late(job, self._place(job.method), started=True))
            job.cancel_children()

    def _end_by_force(self, job: Job) -> None:
        error = cancelled(job, self._place(job.method), started=True)
        if not self._mailbox.answer(job, Outcome.MAY_HAVE_RUN, dumps(error)):
            return  # it has ended meanwhile
        self._finish(1, f"its method {job.method} was cancelled by force", intended=False)
        assert self.ending is not None
        self._abort(self.ending)

    def _retire(self, job: Job) -> None:
        self._retiring.append(job)
        if self.ending is not None:
            self._answer_retiring()
        else:
            self._mailbox.retire(self._ended("its last handle is gone"))

    # -- its move, on the I/O loop ------------------------------------------------------------------------------

    def _depart(self, job: Job) -> None:
        """Its owner wants its state between two calls, to have it made elsewhere."""
        with self._lock:
            if self._own_thread is None and self.ending is None:
                self._departing.append(job)
                return
        if self.refusal is not None:
            self._mailbox.answer(job, Outcome.NEVER_STARTED, dumps(self.refusal))
            return
        process = joined()
        assert process is not None
        assert self._own_thread is not None
        self._departure = Departure(job, self._mailbox, self._place("__actor_save__"), process.id)
        if (why := self._rooted()) is not None:
            self._departure.refuse(ArgumentError(f"{self._label} cannot be moved: {why}"))
        else:
            self._departure.begin(self._thing, self._own_thread, asyncio.get_running_loop())

    def _go(self, job: Job) -> None:
        """It lives elsewhere: calls that it has not begun go there."""
        assert isinstance(job.call.payload, Payload)
        (node,), _ = loads(job.call.payload)
        self._finish(0, f"it has moved to node {node}", intended=False, moved=True)
        self._mailbox.answer(job, Outcome.VALUE, dumps(None))

    def withdraw(self) -> None:
        """Ends it after the calls that it runs; what it has not begun is sent elsewhere."""
        self._finish(0, "its node is to be closed", intended=False, moved=True)

    def _serves(self, own_thread: Callable[[Callable[[], None]], object]) -> None:
        """Calls are served from now on. Where its methods run."""
        with self._lock:
            self._own_thread = own_thread
            departing, self._departing = self._departing, []
        process = joined()
        for job in departing:
            assert process is not None
            process.portal.soon(self._depart, job)

    def _paces(self, execution: Execution, own_thread: Callable[[Callable[[], None]], object]) -> None:
        """Has the state that is due taken while no call is half-way."""
        process = joined()
        assert process is not None
        execution.paced_by(
            lambda work: Pause(self._mailbox, own_thread, work).begin(asyncio.get_running_loop()),  # on the I/O loop
            Gathering(self._mailbox, own_thread, process.later),
        )

    # -- the end, from any thread -------------------------------------------------------------------------------

    def leave(self) -> None:
        """Ends the actor by its own wish: calls that wait are told so, those that run go on."""
        self._finish(0, LEFT, intended=True)

    def _emptied(self) -> None:
        self._answer_retiring()
        self._finish(0, "its last handle is gone", intended=True)

    def _answer_retiring(self) -> None:
        while self._retiring:
            with contextlib.suppress(IndexError):  # another thread was quicker
                self._mailbox.answer(self._retiring.pop(), Outcome.VALUE, dumps(None))

    def _finish(
        self, code: int, epitaph: str, intended: bool, error: ActorDiedError | None = None, *, moved: bool = False
    ) -> None:
        """Ends the actor, once: calls that wait are told ``error``, then `run` returns."""
        with self._lock:
            if self.ending is not None:
                return
            self.ending = Ending(code, epitaph, intended, moved)
            departing, self._departing = self._departing, []
        self.refusal = error = error or self._ended(epitaph)
        for job in self._mailbox.close(error):
            if not moved:
                self._stop(job, self._ended(epitaph, Verdict.MAY_HAVE_RUN))
        for job in departing:
            self._mailbox.answer(job, Outcome.NEVER_STARTED, dumps(error))
        self._answer_retiring()
        self._closed()

    def _stop(self, job: Job, error: ActorDiedError) -> None:
        """A call runs while the actor ends."""
        job.stop(error)  # a stream that waits for its reader would hold up the end

    def _closed(self) -> None:
        """No call is taken any more, and no waiting one is left."""
        self._construction.put(None)

    def _ended(self, epitaph: str, verdict: Verdict = Verdict.NEVER_STARTED) -> ActorDiedError:
        return ActorDiedError(
            f"{self._label} has ended: {epitaph}",
            actor=self._label,
            node=self._node,
            verdict=verdict,
        )

    def _place(self, method: str) -> Place:
        return Place(self._node, self._label, method, os.getpid())

    # -- on the actor's own thread ------------------------------------------------------------------------------

    def run(self) -> Ending:
        """Serves calls until the actor ends; returns how it has."""
        while (job := self._construction.get()) is not None and job.call.method == PREPARE:
            self._prepare(job)
        if job is not None:
            made = self._construct(job)
            del job  # its arguments, and what they refer to, are not kept
            if made is not None:
                self._serve(*made)
                made[1].finish()
        assert self.ending is not None
        return self.ending

    def _prepare(self, job: Job) -> None:
        """Loads what the class needs, while the actor's state is on its way here."""
        assert isinstance(job.call.payload, Payload)
        with contextlib.suppress(Exception):  # it will be raised again where it is told
            (code,), _ = loads(job.call.payload)
            self._load(code)
        self._mailbox.answer(job, Outcome.VALUE, dumps(None))

    def _construct(self, job: Job) -> tuple[Construction, Execution] | None:
        if not self._mailbox.start(job):
            self._finish(1, "its maker gave it up before it was made", intended=True)
            return None
        token = current.set(job)
        step = "__init__"
        try:
            assert isinstance(job.call.payload, Payload)
            (construction,), _ = loads(job.call.payload)
            assert isinstance(construction, Construction)
            self._label = job.label = construction.spec.label
            cls = self._load(construction.code)
            actor = job.actor = self._born(construction)
            self._tell(construction.spec, event.PENDING)
            job.traced = tracing.serve_making(job, construction)
            record = self._recorded(construction)
            args, kwargs = open_arguments(construction.arguments)
            thing = cls(*args, **kwargs)
            if construction.state is not None:
                step = "__actor_load__"
                thing.__actor_load__(loads(construction.state))
            self._thing = thing
            execution = Execution(
                thing,
                describe(cls).methods,
                construction.concurrency_groups or (),
                actor,
                self._mailbox,
                self._finish,
                Saver.of(construction, thing, joined(), job),
                record,
            )
        except BaseException as error:
            died = self._never_constructed(error, step)
            if job.traced is not None:
                job.traced.failed(error)
            # Made anew it would raise again.
            what = "its constructor" if step == "__init__" else f"its {step}"
            self._finish(1, f"{what} raised {type(error).__name__}: {error}", intended=True, error=died)
            self._mailbox.answer(job, Outcome.NEVER_STARTED, dumps(died))
            return None
        finally:
            if job.traced is not None:
                job.traced.end()
            current.reset(token)
        self._mailbox.answer(job, Outcome.VALUE, dumps(None))
        self._tell(construction.spec, event.ALIVE)
        return replace(construction, code=NOTHING, arguments=NOTHING), execution

    def _tell(self, spec: ActorSpec, state: str) -> None:
        """Says who is here; of one that is made anew not before it lives."""
        here = recorder.current
        self.spec = spec
        if here is not None:
            here.born(spec.id, self)
            if state == event.ALIVE or not spec.life:
                guest = self._id if spec.light else ""
                here.emit(
                    event.ActorChanged.of(
                        spec, state, node=self._node, process=here.process, guest=guest, pid=os.getpid()
                    )
                )

    def methods(self) -> list[str] | None:
        """Returns the names of what can be called; None before it has been made."""
        return sorted(describe(type(self._thing)).methods) if self._thing is not None else None

    def open_calls(self) -> list[Job]:
        """Returns the calls that wait or run, in the order of their arrival."""
        return self._mailbox.open()

    def _recorded(self, construction: Construction) -> Record | None:
        if not construction.record:
            return None
        record = Record(construction, self._node)
        print(f"its calls are recorded: actors replay {record.path}", file=sys.stderr)
        return record

    def _load(self, code: Payload) -> Any:
        return loads(code)

    def _never_constructed(self, error: BaseException, step: str) -> ActorDiedError:
        # As the caller shall see it: of the user's own class, with the traceback of here.
        cause = unpack(pack(error, self._place(step))) if not isinstance(error, ActorExit) else None
        died = ActorDiedError(
            f"{self._label} never came to life: its {'constructor' if step == '__init__' else step} "
            + (f"raised {cause}" if cause is not None else "called exit_actor()"),
            actor=self._label,
            node=self._node,
            method=step,
            verdict=Verdict.NEVER_STARTED,
        )
        died.__cause__ = cause
        return died

    def _serve(self, construction: Construction, execution: Execution) -> None:
        widths = self._widths(construction)
        if construction.is_async:
            try:
                asyncio.run(self._on_a_loop(execution, widths))
            except SystemExit as error:  # of a task that a method has left behind
                execution.left_by(error, "a task of its own")
        elif self._serial:
            execution.paced_by(self._mailbox.urge)
            self._serves(self._mailbox.urge)
            for job in self._mailbox:
                if isinstance(job, Convoy):
                    execution.run_together(job)
                elif execution.group_of(job) is not None:
                    execution.run(job)
                del job  # while the next is waited for, this one's arguments are not kept
        else:
            self._on_threads(execution, widths)

    def _widths(self, construction: Construction) -> dict[str, int]:
        """Returns how many calls may run at once, by concurrency group; the default one has no name."""
        width = construction.max_concurrency or (ASYNC_CONCURRENCY if construction.is_async else 1)
        widths = {"": width, **(construction.concurrency_groups or {})}
        self._serial = not construction.is_async and sum(widths.values()) == 1
        return widths

    def _on_threads(self, execution: Execution, widths: dict[str, int]) -> None:
        process = joined()
        assert process is not None
        pools = Pools(execution, widths, self._label, process.later)
        self._paces(execution, pools.beside)  # before the first call begins
        self._mailbox.divert(pools.take)
        self._serves(pools.beside)
        pools.serve()

    async def _on_a_loop(self, execution: Execution, widths: dict[str, int]) -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._paces(execution, loop.call_soon_threadsafe)
        self._mailbox.divert(tasks(loop, execution, widths, over.set))
        self._serves(loop.call_soon_threadsafe)
        await over.wait()
