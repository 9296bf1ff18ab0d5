"""The mailbox: which calls of an actor wait, run and are over. It sees to it that each gets exactly one reply."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING

from actors.convoy import Convoy
from actors.events import recorder as recording
from actors.job import OVER, QUEUED, RUNNING, Job
from actors.messages import Outcome
from actors.serialize import dumps
from actors.transport.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.messages import Payload

HELD_SECONDS = 0.002  # between two looks whether something is urgent, while calls are held
LEAD_SECONDS = 0.05  # an actor that is asked less often does not mind another thread's time


class Held(Exception):  # noqa: N818 - nothing is wrong
    """No call may start before ``released`` is done."""

    def __init__(self, released: Future[None]) -> None:
        super().__init__("calls are held")
        self.released = released


def _nothing() -> None:
    """Wakes who waits for a call."""


class Mailbox:
    """Calls in the order of their arrival, until it is closed. Any thread may use it.

    A call is queued, then running, then over; it is answered as it becomes that. One that is answered while it is
    queued never starts.

    Args:
        emptied: called when the last call is over of a mailbox that was `retired`.
    """

    def __init__(self, emptied: Callable[[], None]) -> None:
        self._emptied = emptied
        self._lock = threading.Lock()
        self._order = threading.RLock()  # held while a call is passed on, so that none overtakes another
        self._queue: queue.SimpleQueue[Job | Convoy | Callable[[], None] | None] = queue.SimpleQueue()
        self._convoys: list[Convoy] = []  # that have calls which wait
        self._diverted = False
        self._sink: Callable[[Job | None], None] = self._queue.put
        self._urgent: deque[Callable[[], None]] = deque()
        self._held: Future[None] | None = None  # done when calls may start again
        self._quiet: Callable[[], object] | None = None  # told when none runs, while calls are held
        self._open: dict[tuple[str, int], Job] = {}
        self._refusal: Exception | None = None
        self._retired = False
        self._bell: Bell | None = None  # of the thread that waits for a call at a caller's link
        self._leader = 0  # which that is

    # -- the way of a call --------------------------------------------------------------------------------------

    def arrive(self, job: Job, *, queued: bool = True) -> None:
        """Takes a call in, or refuses it where the mailbox is closed.

        Args:
            job: the call.
            queued: pass it on; the caller sees to it itself if not.
        """
        with self._lock:
            refusal = self._refusal
            if refusal is None:
                self._open[job.key] = job
        if refusal is not None:
            job.state, job.over = OVER, True
            job.post_reply(Outcome.ENDED, dumps(refusal))
        elif queued:
            with self._order:
                self._sink(job)
            if self._bell is not None:
                self._ring()

    def arrive_together(self, convoy: Convoy) -> bool:
        """Takes calls in that are to run one after the other; returns False where they are not to."""
        with self._order:
            if self._diverted:
                return False
            with self._lock:
                refused = self._refusal is not None
                if not refused:
                    self._convoys.append(convoy)
            if not refused:
                self._queue.put(convoy)
        if refused:
            for job in convoy.all():
                self.arrive(job)
        self._ring()
        return True

    def next_of(self, convoy: Convoy) -> Job | None:
        """Starts the next call of a convoy; None where there is no more.

        Raises:
            Held: no call may start just now.
        """
        with self._lock:
            if self._held is not None:
                raise Held(self._held)
            while (job := convoy.next()) is not None:
                if job.state is QUEUED:  # else it was answered while it waited
                    job.state = RUNNING
                    job.started = time.time()
                    self._open[job.key] = job
                    return job
            self._convoys.remove(convoy)
            last = self._is_last
        if last:
            self._emptied()
        return None

    def finish(self, job: Job) -> bool:
        """A call of a convoy is over; returns False where it has had its answer, else the caller has to send it."""
        with self._lock:
            if job.state is OVER:
                return False
            job.state, job.over = OVER, True
            del self._open[job.key]
        if self._quiet is not None:
            self._tell_quiet()
        return True

    def disband(self, convoy: Convoy) -> list[Job]:
        """Returns the calls of a convoy that wait: each goes its own way from now on."""
        with self._lock:
            jobs = self._each_of(convoy)
            while convoy.next() is not None:
                pass
            self._convoys.remove(convoy)
        return jobs

    def _each_of(self, convoy: Convoy) -> list[Job]:
        jobs = [job for job in convoy.all() if job.state is QUEUED]
        self._open.update((job.key, job) for job in jobs)
        return jobs

    @property
    def _is_last(self) -> bool:
        return self._retired and not self._open and not self._convoys

    def start(self, job: Job) -> bool:
        """The call's turn has come; returns False where it was answered while it waited.

        Raises:
            Held: no call may start just now.
        """
        with self._lock:
            if job.state is not QUEUED:
                return False
            if self._held is not None:
                raise Held(self._held)
            job.state = RUNNING
            job.started = time.time()
            return True

    # -- standing still between two calls -----------------------------------------------------------------------

    @property
    def is_held(self) -> bool:
        """Whether no call may start."""
        return self._held is not None

    def hold(self, quiet: Callable[[], object], held: Future[None] | None = None) -> None:
        """Lets no call start until `resume`.

        Args:
            quiet: called once none runs, on any thread; not any more where another hold takes the place of this.
            held: stands for this hold.
        """
        with self._lock:
            self._held, self._quiet = held or Future(), quiet
        self._tell_quiet()

    def conclude(self, job: Job, hold: Future[None]) -> bool:
        """A call's method has ended, and its answer waits for the actor's state.

        Lets no call start until ``hold`` is resumed, or what holds them already. Returns whether no call is half-way.
        """
        with self._lock:
            job.settled = True
            if self._held is None:
                self._held = hold
            return all(other.settled or other.state is not RUNNING for other in self._open.values())

    def outlasted(self) -> None:
        """Calls that run now have outlasted a hold: to `conclude` they are not half-way any more."""
        for job in self.all_running():
            job.settled = True

    def resume(self, only: Future[None] | None = None) -> None:
        """Lets calls start again.

        Args:
            only: the hold that is over; where another has taken its place, that one goes on.
        """
        with self._lock:
            held = self._held if only is None else only
            if held is self._held:
                self._held = self._quiet = None
        if held is not None and not held.done():
            held.set_result(None)

    def _tell_quiet(self) -> None:
        with self._lock:
            if self._quiet is None or any(job.state is RUNNING for job in self._open.values()):
                return
            quiet, self._quiet = self._quiet, None
        quiet()

    def urge(self, work: Callable[[], None]) -> None:
        """Has ``work`` done by the thread that iterates, between two calls and before all those that wait."""
        self._urgent.append(work)
        self._queue.put(_nothing)
        self._ring()

    def withdraw(self, job: Job, reason: Exception, outcome: Outcome = Outcome.NEVER_STARTED) -> bool:
        """Answers a call that has not started, which it never will; returns False where it has."""
        if job.state is not QUEUED:  # seen without the lock: it never becomes that again
            return False
        return self.answer(job, outcome, dumps(reason), started=False)

    def answer(self, job: Job, outcome: Outcome, payload: Payload, *, started: bool = True) -> bool:
        """Answers a call; returns False where it has had its answer, or is not to have started and has."""
        with self._lock:
            state = job.state
            if state is OVER or (state is RUNNING and not started):
                return False
            job.state, job.over = OVER, True
            self._open.pop(job.key, None)
            last = self._retired and self._is_last
        job.post_reply(outcome, payload)
        if (recorder := recording.current) is not None and recorder.records_calls and job.actor is not None:
            recorder.call_ended(job, job.actor.spec, outcome)
        if last:
            self._emptied()
        if self._quiet is not None:
            self._tell_quiet()
        return True

    def find(self, key: tuple[str, int]) -> Job | None:
        """Returns the call with this key, if it is not over."""
        job = self._open.get(key)
        if job is not None or not self._convoys:
            return job
        with self._lock:
            found = next((job for convoy in self._convoys if (job := convoy.find(key)) is not None), None)
            if found is not None and found.state is QUEUED:
                self._open[key] = found
            return self._open.get(key)

    def running(self) -> Job | None:
        """Returns a call that runs, if one does; one whose method has ended only where there is no other."""
        running = self.all_running()
        return next((job for job in running if not job.settled), running[0] if running else None)

    def open(self) -> list[Job]:
        """Returns the calls that wait or run, in the order of their arrival."""
        with self._lock:
            for convoy in self._convoys:
                self._each_of(convoy)
            return sorted(self._open.values(), key=lambda job: job.arrived) if self._convoys else [*self._open.values()]

    def all_running(self) -> list[Job]:
        """Returns the calls that run."""
        with self._lock:
            return [job for job in self._open.values() if job.state is RUNNING]

    def of_session(self, session: str) -> list[Job]:
        """Returns the calls that came by this session and are not over."""
        return [job for job in self.open() if job.key[0] == session]

    # -- the end ------------------------------------------------------------------------------------------------

    def retire(self, refusal: Exception) -> None:
        """Takes no more calls; those there are have their turn."""
        with self._lock:
            self._refusal = self._refusal or refusal
            self._retired = True
            last = self._is_last
        if last:
            self._emptied()

    def close(self, refusal: Exception) -> list[Job]:
        """Takes no more calls and answers those that wait with ``refusal``; returns those that run."""
        with self._lock:
            self._refusal = refusal
        jobs = self.open()
        running = [job for job in jobs if not self.withdraw(job, refusal, Outcome.ENDED) and not job.over]
        self.resume()  # those that were held see that they have had their answer
        with self._order:
            self._sink(None)
        self._ring()
        return running

    def _ring(self) -> None:
        bell = self._bell
        if bell is not None and self._leader != threading.get_ident():
            bell.ring()

    # -- who runs them ------------------------------------------------------------------------------------------

    @property
    def has_more(self) -> bool:
        """Whether something waits for the thread that iterates."""
        return not self._queue.empty()

    def until_released(self, held: Held) -> None:
        """Waits until calls may start again, and does meanwhile what is `urge`d. On the thread that iterates."""
        while not held.released.done():
            self.attend()
            with contextlib.suppress(TimeoutError):
                held.released.result(HELD_SECONDS)

    def attend(self) -> None:
        """Does what was `urge`d. On the thread that iterates, between two calls."""
        while self._urgent:
            self._urgent.popleft()()

    def __iter__(self) -> Iterator[Job | Convoy]:
        """Gives the calls in their order, as they come, until the mailbox is closed.

        After each call it first waits a while at the link of who made it: mostly the next one comes by it too, and
        needs no other thread to hand it over then.
        """
        bell = Bell()
        try:
            while (job := self._queue.get()) is not None:
                if self._urgent:
                    self.attend()
                if not isinstance(job, (Job, Convoy)):  # it was but woken
                    continue
                yield job
                if self._queue.empty():
                    self._wait_at(job, bell)
                del job  # not to be kept while the next is waited for
        finally:
            bell.close()

    def _wait_at(self, job: Job | Convoy, bell: Bell) -> None:
        lead = job.lead
        del job
        self._leader, self._bell = threading.get_ident(), bell
        try:
            if self._queue.empty():  # else it came before there was a bell
                lead(lambda: not self._queue.empty(), LEAD_SECONDS, bell)
        finally:
            self._bell = None
            bell.mute()

    def divert(self, sink: Callable[[Job | None], None]) -> None:
        """Passes the calls on to ``sink`` as they come, those that wait first; None stands for the end."""
        with self._order:
            while not self._queue.empty():
                job = self._queue.get()
                if isinstance(job, Convoy):
                    for one in self.disband(job):
                        sink(one)
                elif job is None or isinstance(job, Job):
                    sink(job)
            self._sink = sink
            self._diverted = True


class Lane:
    """Starts calls in order, so many at a time. For one thread.

    Args:
        width: how many may run at once.
        begin: starts one; what it is given beside the call, it is to call when that one is over.
    """

    def __init__(self, width: int, begin: Callable[[Job, Callable[[], None]], None]) -> None:
        self._free = width
        self._begin = begin
        self._waiting: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """A call came."""
        self._waiting.append(job)
        self._pump()

    def _finished(self) -> None:
        self._free += 1
        self._pump()

    def _pump(self) -> None:
        while self._free and self._waiting:
            job = self._waiting.popleft()
            if not job.over:
                self._free -= 1
                self._begin(job, self._finished)
