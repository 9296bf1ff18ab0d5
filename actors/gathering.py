"""A gathering: calls of an actor that runs several at once, whose answers wait for a state that none is half in.

As the state falls due, no further call starts until those that run have ended; the last one to end has it taken, for
all that have waited. So one state stands for many calls.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from actors.pause import PATIENCE_SECONDS
from actors.shortage import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.job import Job
    from actors.mailbox import Mailbox


class Gathering:
    """Any thread may use it.

    Args:
        mailbox: the actor's.
        own_thread: has something done where the actor's methods run.
        later: has something done on the I/O loop after so many seconds.
    """

    def __init__(
        self,
        mailbox: Mailbox,
        own_thread: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.take: Callable[[], Future[None]]  # takes the state, and says when it is safe; set by who does
        self._mailbox = mailbox
        self._own_thread = own_thread
        self._later = later
        self._lock = threading.Lock()
        self._waiting: list[Future[None]] = []
        self._hold: Future[None] = Future()

    def ended(self, job: Job) -> Future[None] | None:
        """A call's method has ended, and the state is due.

        Returns:
            What its answer is to wait for. None where no call is half-way: then the state is to be taken now, and
            `over` to be called after.
        """
        with self._lock:
            hold = self._hold
            alone = self._mailbox.conclude(job, hold)
            if alone and not self._waiting:
                return None
            done: Future[None] = Future()
            self._waiting.append(done)
            first = len(self._waiting) == 1
        if alone:
            self.finish()
        elif first:
            self._later(PATIENCE_SECONDS, lambda: self._overdue(hold))
        return done

    def over(self) -> None:
        """The state has been taken: calls may start again."""
        with self._lock:
            hold, self._hold = self._hold, Future()
            self._mailbox.resume(hold)  # before another call that has ended sees what holds them

    def finish(self) -> None:
        """Has the state taken for all that wait."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            safe = self.take()
        except BaseException as error:
            for done in waiting:
                done.set_exception(error)
        else:
            safe.add_done_callback(lambda safe: _settle(waiting, safe))
        finally:
            self.over()

    def _overdue(self, hold: Future[None]) -> None:
        """A call still runs that may wait for one which is held: from now on it is left out of account."""
        if hold is self._hold and self._waiting:
            self._mailbox.outlasted()
            try:
                self._own_thread(self.finish)
            except NoThreadError:
                self._later(PATIENCE_SECONDS, lambda: self._overdue(hold))


def _settle(waiting: list[Future[None]], safe: Future[None]) -> None:
    for done in waiting:
        if (error := safe.exception()) is None:
            done.set_result(None)
        else:
            done.set_exception(error)
