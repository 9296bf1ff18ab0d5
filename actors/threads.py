"""Threads: as many as are needed at once, borrowed for a piece of work and kept for the next."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from actors.shortage import RETRY_SECONDS, NoThreadError, begin

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.job import Job

FEW = 8
STUCK_SECONDS = 0.01
KEEP_SECONDS = 5.0


class Threads:
    """Runs pieces of work on threads, without limit: what blocks one holds up no other.

    A few threads are enough for much that is quick. Where work waits and no thread comes free for
    `STUCK_SECONDS`, their number is doubled; one that has nothing to do for `KEEP_SECONDS` ends.

    Args:
        name: of the threads.
        later: has something done after so many seconds. By it more threads are tried for again where none could be
            begun, since what waits may be what those there are wait for; without it, as soon as more is started.
    """

    def __init__(self, name: str, later: Callable[[float, Callable[[], None]], object] = lambda *_: None) -> None:
        self._name = name
        self._later = later
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._count = 0
        self._idle = 0
        self._taken = 0  # pieces of work so far
        self._watched = False
        self._retries = False
        self._own = threading.local()

    def go_on(self) -> None:
        """Says that what the calling thread runs is nearly over: what it starts next, it runs itself, after that."""
        self._own.goes_on = True

    def start(self, work: Callable[..., object], *args: Any) -> None:
        """Has ``work`` run soon; it must not raise. Never blocks.

        Raises:
            NoThreadError: there is no thread, and none can be begun: it will not run.
        """
        if getattr(self._own, "goes_on", False):
            self._own.goes_on, self._own.next = False, (work, args)
            return
        with self._changed:
            self._waiting.append((work, args))
            if self._idle >= len(self._waiting):
                self._changed.notify()
                return
            try:
                if self._count < FEW:
                    self._add()
                else:
                    self._look_on()
            except NoThreadError:  # those there are go on
                if not self._count:
                    self._waiting.pop()
                    raise
                self._try_again()

    def _add(self) -> None:
        begin(self._serve, self._name)
        self._count += 1

    def _look_on(self) -> None:
        if not self._watched:
            begin(self._watch, self._name)
            self._watched = True

    def _try_again(self) -> None:
        if not self._retries:
            self._retries = True
            self._later(RETRY_SECONDS, self._again)

    def _again(self) -> None:
        with self._changed:
            self._retries = False
            try:
                if self._waiting:
                    self._look_on()
            except NoThreadError:
                self._try_again()

    def _serve(self) -> None:
        own = self._own
        own.next = None
        while (work := own.next or self._next()) is not None:
            own.next = None
            run, args = work
            run(*args)
            own.goes_on = False
            del run, args, work  # it may be long until the next

    def _next(self) -> tuple[Callable[..., object], tuple[Any, ...]] | None:
        with self._changed:
            while not self._waiting:
                self._idle += 1
                woken = self._changed.wait(KEEP_SECONDS)
                self._idle -= 1
                if not woken and not self._waiting:
                    self._count -= 1
                    return None
            self._taken += 1
            return self._waiting.popleft()

    def _watch(self) -> None:
        """Adds threads as long as work waits."""
        seen = -1
        while True:
            time.sleep(STUCK_SECONDS)
            with self._changed:
                if not self._waiting:
                    self._watched = False
                    return
                stuck, seen = self._taken == seen, self._taken
                with suppress(NoThreadError):  # it looks again soon
                    for _ in range(min(len(self._waiting), self._count) if stuck else 1):
                        self._add()


class ThreadLane:
    """Runs calls in order on borrowed threads, so many at a time. Any thread may add to it.

    Args:
        width: how many may run at once.
        threads: where from.
        run: runs one to its end; must not raise.
        cannot_run: is told of one for which there is no thread.
    """

    def __init__(
        self,
        width: int,
        threads: Threads,
        run: Callable[[Job], None],
        cannot_run: Callable[[Job, NoThreadError], None],
    ) -> None:
        self._width = width
        self._cannot_run = cannot_run
        self._free = width
        self._threads = threads
        self._run = run
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()

    def add(self, job: Job) -> None:
        """A call came."""
        with self._lock:
            self._waiting.append(job)
            if not self._free:
                return
            self._free -= 1
        try:
            self._threads.start(self._work)
        except NoThreadError as error:
            for one in self._given_up():
                self._cannot_run(one, error)

    def _given_up(self) -> list[Job]:
        """Returns the calls that nobody comes to."""
        with self._lock:
            self._free += 1
            if self._free < self._width:  # who runs others comes to these
                return []
            waiting, self._waiting = self._waiting, deque()
            return [*waiting]

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                job = self._waiting.popleft()
            self._run(job)
            del job  # its arguments, and what they refer to, are not kept
