"""Light actors: instances that share a process, whose threads they borrow while they have work."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from actors.crew import dealt, tasks
from actors.instance import Instance
from actors.messages import Outcome, Payload
from actors.runtime import myself
from actors.serialize import dumps, loads
from actors.shortage import NoThreadError, begin
from actors.threads import ThreadLane, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.exceptions import ActorDiedError
    from actors.instance import Ending
    from actors.job import Job
    from actors.runtime import Incarnation
    from actors.spec import Construction

KEPT_CLASSES = 100
NOTHING = dumps(None)


class Stage:
    """What the light actors of a process share: its threads, one event loop for those with async methods, classes.

    Args:
        later: has something done after so many seconds.
    """

    def __init__(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        self.threads = Threads("actors-light", later)
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._classes: OrderedDict[bytes, Any] = OrderedDict()

    def loop(self) -> asyncio.AbstractEventLoop:
        """Returns the event loop, which runs."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                try:
                    begin(partial(self._turn, loop), "actors-light-loop")
                except NoThreadError:
                    loop.close()
                    raise
                self._loop = loop
            return self._loop

    @staticmethod
    def _turn(loop: asyncio.AbstractEventLoop) -> None:
        """Runs the loop for ever: a task that a method has left behind may end its actor, and not the loop."""
        owners: WeakKeyDictionary[asyncio.Task[Any], Incarnation] = WeakKeyDictionary()

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            task = asyncio.Task(coroutine, loop=loop, **options)
            actor = myself()
            if actor is not None:
                owners[task] = actor
            return task

        loop.set_task_factory(make_task)
        asyncio.set_event_loop(loop)
        while True:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt) as error:
                traceback.print_exc()
                for task, actor in list(owners.items()):
                    if task.done() and not task.cancelled() and task.exception() is error and actor.made is not None:
                        actor.leave()

    def load(self, code: Payload) -> Any:
        """Returns the class with this code, made once for all actors here."""
        if code.buffers:  # the pickle alone does not say which it is
            return loads(code)
        with self._lock:
            cls = self._classes.get(code.pickle)
            if cls is None:
                cls = self._classes[code.pickle] = loads(code)
                if len(self._classes) > KEPT_CLASSES:
                    self._classes.popitem(last=False)
            else:
                self._classes.move_to_end(code.pickle)
            return cls


class LightInstance(Instance):
    """A light actor. It is over when it has ended and none of its calls is open any more.

    Args:
        id: of this life of the actor, in its process.
        node: name of its node.
        born: see `Instance`.
        stage: what it shares with others.
        over: told when it is over, once, on any thread.
    """

    def __init__(
        self,
        id: str,
        node: str,
        born: Callable[[Construction], Incarnation],
        stage: Stage,
        over: Callable[[Ending], None],
    ) -> None:
        super().__init__(id, node, born, self.cut_off)
        self._stage = stage
        self._over = over
        self._told = False
        self._cut = False  # nothing is waited for in the end

    def cut_off(self, ending: Ending) -> None:
        """Ends the actor at once. What a method of its does on a thread goes on there, and is not heard of again."""
        self._cut = True
        self._finish(ending.code, ending.epitaph, ending.intended)
        for job in self._mailbox.all_running():  # some may be left where it had begun to end before
            self._cut_off(job)

    def _cut_off(self, job: Job) -> None:
        if self._mailbox.answer(job, Outcome.CUT_OFF, NOTHING):
            job.cancel_children()

    def _stop(self, job: Job, error: ActorDiedError) -> None:
        if self._cut:  # before it can answer for itself
            self._cut_off(job)
        super()._stop(job, error)

    def release(self) -> None:
        """Lets go of the actor's object."""
        self._mailbox.divert(lambda _: None)

    def _begin(self, job: Job) -> None:
        try:
            self._stage.threads.start(self._come_to_life, job)
        except NoThreadError as error:
            self._unborn(job, error)

    def _unborn(self, job: Job, error: NoThreadError) -> None:
        """There is no thread on which it could be made."""
        assert isinstance(job.call.payload, Payload)
        (construction,), _ = loads(job.call.payload)
        self._label = construction.spec.label
        self._mailbox.start(job)
        self._finish(1, f"it never came to life on node {self._node}: {error}", intended=True)
        self._mailbox.answer(job, Outcome.NEVER_STARTED, dumps(self.refusal))

    def _load(self, code: Payload) -> Any:
        return self._stage.load(code)

    def _come_to_life(self, job: Job) -> None:
        made = self._construct(job)
        if made is None:
            return
        construction, execution = made
        widths = self._widths(construction)
        if construction.is_async:
            try:
                loop = self._stage.loop()
            except NoThreadError as error:
                self._finish(1, f"its methods cannot run on node {self._node}: {error}", intended=False)
                return
            self._paces(execution, loop.call_soon_threadsafe)
            self._mailbox.divert(tasks(loop, execution, widths, _nothing))
        else:
            threads = self._stage.threads
            self._paces(execution, threads.start)
            threads.go_on()  # with the first call, which mostly waits already
            lanes = {
                group: ThreadLane(width, threads, execution.run, execution.cannot_run).add
                for group, width in widths.items()
            }
            self._mailbox.divert(dealt(execution, lanes, _nothing))

    def _closed(self) -> None:
        assert self.ending is not None
        self._mailbox.retire(self._ended(self.ending.epitaph))  # it says when the last call is over

    def _emptied(self) -> None:
        super()._emptied()
        with self._lock:
            first, self._told = not self._told, True
        if first:
            assert self.ending is not None
            self._over(self.ending)


def _nothing() -> None:
    """There is nothing to be done after the last call; see `LightInstance._emptied`."""
