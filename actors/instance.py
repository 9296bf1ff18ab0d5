"""The actor itself: its mailbox, and the thread that runs its methods one after the other."""

from __future__ import annotations

import asyncio
import inspect
import os
import queue
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorDiedError, SerializationError, TaskCancelledError, Verdict
from actors.failure import Place, exited, pack, unpack, unpicklable
from actors.messages import CONSTRUCT, STREAM_WINDOW, Call, Item, Outcome, Payload, Reply
from actors.sealed import open_arguments
from actors.serialize import dumps, loads
from actors.spec import Construction, MethodSpec, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.acceptor import Visitor

ASYNC_CONCURRENCY = 1000


@dataclass(slots=True, eq=False)
class Job:
    """A call that waits or runs."""

    call: Call
    visitor: Visitor
    credit: int = STREAM_WINDOW
    cancelled: bool = False
    more: threading.Condition = field(default_factory=threading.Condition)  # a stream on a thread waits here
    room: asyncio.Event = field(default_factory=asyncio.Event)  # and one on the actor's loop here
    task: asyncio.Task[None] | None = None

    def reply(self, outcome: Outcome, payload: Payload) -> None:
        """Answers the caller."""
        self.visitor.post(Reply(self.call.number, outcome, payload))

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other job of this actor."""
        return self.visitor.session, self.call.number


class _NotRunError(Exception):
    """The method was not called, for this reason."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class Instance:
    """One actor: takes calls on the I/O loop, runs them on the thread that called `run`.

    The first call is the owner's, which brings the class; calls of others that come before it wait.

    Args:
        id: the actor's id.
        node: name of its node.
        born: called with the construction before the constructor runs.

    Attributes:
        epitaph: why the actor has ended, once it has ended by itself.
    """

    def __init__(self, id: str, node: str, born: Callable[[Construction], None]) -> None:
        self.epitaph: str | None = None
        self._node = node
        self._born = born
        self._label = id
        self._object: Any = None
        self._methods: dict[str, MethodSpec] = {}
        self._end: ActorDiedError | None = None  # what calls are told that come too late
        self._exit_code = 0
        self._pid = os.getpid()
        self._mailbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._jobs: dict[tuple[str, int], Job] = {}

    # -- on the I/O loop ----------------------------------------------------------------------------------------

    def called(self, call: Call, visitor: Visitor) -> None:
        """See `actors.service.Target`."""
        job = Job(call, visitor)
        if self._end is not None:
            job.reply(Outcome.NEVER_STARTED, dumps(self._end))
            return
        self._jobs[job.key] = job
        self._mailbox.put(job)

    def credited(self, session: str, number: int, upto: int) -> None:
        """See `actors.service.Target`."""
        job = self._jobs.get((session, number))
        if job is not None:
            with job.more:
                job.credit = max(job.credit, upto)
                job.more.notify_all()
            if job.task is not None:
                job.task.get_loop().call_soon_threadsafe(job.room.set)

    def cancelled(self, session: str, number: int) -> None:
        """See `actors.service.Target`."""
        job = self._jobs.get((session, number))
        if job is not None:
            with job.more:
                job.cancelled = True
                job.more.notify_all()
            if job.task is not None:
                job.task.get_loop().call_soon_threadsafe(job.task.cancel)

    def visitor_gone(self, session: str) -> None:
        """Nobody reads the answers of this session any more: its streams stop, its waiting calls are dropped."""
        for key in [key for key in self._jobs if key[0] == session]:
            self.cancelled(*key)

    # -- on the actor's own thread ------------------------------------------------------------------------------

    def run(self) -> int:
        """Serves calls until the actor ends by itself; returns the exit code of its process."""
        early: list[Job] = []
        while (job := self._mailbox.get()) is not None and job.call.method != CONSTRUCT:
            early.append(job)
        assert job is not None  # only an actor that is there can end
        construction = self._construct(job)
        if construction is None:
            self._run_serial(early)
        elif construction.is_async:
            asyncio.run(self._run_async(early, construction.max_concurrency or ASYNC_CONCURRENCY))
        elif (construction.max_concurrency or 1) > 1:
            self._run_threaded(early, construction.max_concurrency or 1)
        else:
            self._run_serial(early)
        return self._exit_code

    def _construct(self, job: Job) -> Construction | None:
        construction: Construction | None = None
        try:
            assert isinstance(job.call.payload, Payload)
            (construction,), _ = loads(job.call.payload)
            assert isinstance(construction, Construction)
            self._label = construction.spec.label
            cls = loads(construction.code)
            self._methods = describe(cls).methods
            self._born(construction)
            args, kwargs = open_arguments(construction.arguments)
            self._object = cls(*args, **kwargs)
        except BaseException as error:
            died = self._never_constructed(error)
            self._finish(1, f"its constructor raised {type(error).__name__}: {error}", died)
            job.reply(Outcome.NEVER_STARTED, dumps(died))
            construction = None
        else:
            job.reply(Outcome.VALUE, dumps(None))
        finally:
            self._jobs.pop(job.key, None)
        return construction

    def _never_constructed(self, error: BaseException) -> ActorDiedError:
        # As the caller shall see it: of the user's own class, with the traceback of here.
        cause = unpack(pack(error, self._place("__init__")))
        died = ActorDiedError(
            f"{self._label} never came to life: its constructor raised {cause}",
            actor=self._label,
            node=self._node,
            method="__init__",
            verdict=Verdict.NEVER_STARTED,
        )
        died.__cause__ = cause
        return died

    def _finish(self, code: int, epitaph: str, error: ActorDiedError) -> None:
        """Ends the actor: calls that wait are told ``error``, then `run` returns."""
        self.epitaph = epitaph
        self._exit_code = code
        self._end = error
        for key in list(self._jobs):
            self.cancelled(*key)  # a stream that waits for its reader would hold up the end
        self._mailbox.put(None)

    def _queued(self, early: list[Job]) -> Iterator[Job]:
        yield from early
        while (job := self._mailbox.get()) is not None:
            yield job

    def _run_serial(self, early: list[Job]) -> None:
        for job in self._queued(early):
            self._execute(job)

    def _run_threaded(self, early: list[Job], width: int) -> None:
        with ThreadPoolExecutor(width, thread_name_prefix=self._label) as pool:
            for job in self._queued(early):
                pool.submit(self._execute, job)

    def _execute(self, job: Job) -> None:
        try:
            result = self._call(job)
            if self._streams(job):
                self._stream(job, result)
                result = None
        except BaseException as error:
            self._failed(job, error)
        else:
            self._returned(job, result)
        finally:
            self._jobs.pop(job.key, None)

    def _streams(self, job: Job) -> bool:
        return self._methods[job.call.method].generates

    def _end_forked_child(self, code: object = 0) -> None:
        """Ends a child that a method has forked and not ended itself: it must not answer for its parent."""
        if os.getpid() != self._pid:
            os._exit(code if isinstance(code, int) else 1)

    def _returned(self, job: Job, result: Any) -> None:
        self._end_forked_child()
        try:
            payload = dumps(result)
        except BaseException as error:  # a value's own pickling may raise anything
            problem = error if isinstance(error, SerializationError) else SerializationError(type(error).__name__)
            job.reply(Outcome.RAISED, unpicklable(problem, self._place(job.call.method)))
        else:
            job.reply(Outcome.VALUE, payload)

    def _failed(self, job: Job, error: BaseException) -> None:
        self._end_forked_child(error.code if isinstance(error, SystemExit) else 1)
        place = self._place(job.call.method)
        if isinstance(error, _NotRunError):
            job.reply(Outcome.NEVER_STARTED, dumps(error.reason))
        elif isinstance(error, asyncio.CancelledError):
            job.reply(Outcome.MAY_HAVE_RUN, dumps(TaskCancelledError(f"{place} was cancelled while it ran")))
        elif isinstance(error, SystemExit):
            job.reply(Outcome.RAISED, exited(error.code, place))
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            epitaph = f"its method {job.call.method} raised SystemExit({error.code!r})"
            self._finish(code, epitaph, self._ended(epitaph))
        else:
            job.reply(Outcome.RAISED, pack(error, place))

    def _ended(self, epitaph: str) -> ActorDiedError:
        return ActorDiedError(
            f"{self._label} has ended: {epitaph}",
            actor=self._label,
            node=self._node,
            verdict=Verdict.NEVER_STARTED,
        )

    def _place(self, method: str) -> Place:
        return Place(self._node, self._label, method, os.getpid())

    def _call(self, job: Job) -> Any:
        """Calls the method; what it returns may be a coroutine or a generator."""
        if self._end is not None:
            raise _NotRunError(self._end)
        if job.cancelled:
            raise _NotRunError(TaskCancelledError(f"{self._place(job.call.method)} was cancelled before it started"))
        assert isinstance(job.call.payload, Payload)
        args, kwargs = open_arguments(job.call.payload)
        if job.call.method not in self._methods:
            raise AttributeError(f"{self._label} has no method {job.call.method!r}")
        return getattr(self._object, job.call.method)(*args, **kwargs)

    def _stream(self, job: Job, values: Iterator[Any]) -> None:
        try:
            for index, value in enumerate(values):
                with job.more:
                    job.more.wait_for(lambda i=index: i < job.credit or job.cancelled)  # type: ignore[misc]
                if job.cancelled:
                    return
                job.visitor.post(Item(job.call.number, index, dumps(value)))
        finally:
            values.close()  # type: ignore[attr-defined]  # a generator: its finally clauses run now

    # -- on an event loop of the actor's own --------------------------------------------------------------------

    async def _run_async(self, early: list[Job], width: int) -> None:
        limit = asyncio.Semaphore(width)
        running: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        inbox: asyncio.Queue[Job | None] = asyncio.Queue()
        for job in early:
            inbox.put_nowait(job)

        def feed() -> None:
            while True:
                job = self._mailbox.get()
                loop.call_soon_threadsafe(inbox.put_nowait, job)
                if job is None:
                    return

        feeder = threading.Thread(target=feed, name="actors-feeder", daemon=True)
        feeder.start()
        while (next_job := await inbox.get()) is not None:
            await limit.acquire()
            task = next_job.task = asyncio.create_task(self._execute_async(next_job))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: limit.release())
            await asyncio.sleep(0)  # the call starts before the next one is looked at

    async def _execute_async(self, job: Job) -> None:
        try:
            result = self._call(job)
            if self._streams(job):
                await self._stream_async(job, result if isinstance(result, AsyncIterator) else _on_the_loop(result))
                result = None
            elif inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            self._failed(job, error)
        else:
            self._returned(job, result)
        finally:
            self._jobs.pop(job.key, None)

    async def _stream_async(self, job: Job, values: AsyncIterator[Any]) -> None:
        index = 0
        try:
            async for value in values:
                while index >= job.credit:
                    job.room.clear()
                    if index >= job.credit:  # else it came just now
                        await job.room.wait()
                job.visitor.post(Item(job.call.number, index, dumps(value)))
                index += 1
        finally:
            await values.aclose()  # type: ignore[attr-defined]  # an async generator: its finally clauses run now


async def _on_the_loop(values: Generator[Any, None, None]) -> AsyncIterator[Any]:
    """Runs a plain generator of an actor with async methods, whose other methods have their turn between its values."""
    try:
        for value in values:
            yield value
            await asyncio.sleep(0)
    finally:
        values.close()
