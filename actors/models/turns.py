"""The thread of MLX: it does what it is given in turn, and sleeps where what comes by a cable wakes it itself."""

from __future__ import annotations

import atexit
import select
import threading
from collections import deque
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from actors.cable import Bell

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Source(Protocol):
    """Where work comes from besides."""

    def fileno(self) -> int:
        """What can be read when there is some; -1 where only `Turns.ring` tells."""

    def lead(self, done: Callable[[], bool], bell: Bell) -> bool:
        """Waits, where there is no file, for a while if that can be, until ``done`` or something has come.

        Must not raise.

        Args:
            done: whether there is something else to do; it changes only as ``bell`` is rung.
            bell: wakes this thread.

        Returns:
            Whether something has come.
        """

    def come(self) -> None:
        """Does what there is, without waiting; must not raise."""


class Turns(Executor):
    """One thread, to which MLX's lazy arrays belong. What it is given goes before what comes from its source."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._source: Source | None = None
        self._ended = False
        self._heard = -1  # which file of the source is polled
        self._bell = Bell()
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._thread = threading.Thread(target=self._work, name="mlx", daemon=True)
        self._thread.start()
        atexit.register(self.shutdown)  # before the interpreter takes away what a job may be using

    def submit(self, what: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Has something done after all that was given before."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                value = what(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        self._jobs.append(job)
        self.ring()
        return future

    def ring(self) -> None:
        """Wakes the thread; from any one."""
        if not self._bell.rung:
            self._bell.ring()

    def hear(self, source: Source | None) -> None:
        """Has work come from a source as well, or from none any more. On the thread itself."""
        self._source = source

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the thread after what it has been given."""
        if cancel_futures:
            self._jobs.clear()
        self._ended = True
        self.ring()
        atexit.unregister(self.shutdown)
        if wait and self._thread is not threading.current_thread():
            self._thread.join()

    def _work(self) -> None:
        while True:
            self._bell.mute()  # who comes after this rings again
            while self._jobs:
                self._jobs.popleft()()
            if self._ended:
                break
            if self._source is not None:
                self._source.come()
            if not self._jobs and not self._bell.rung:
                self._sleep(self._source)
        self._bell.close()

    def _sleep(self, source: Source | None) -> None:
        other = -1 if source is None else source.fileno()
        if source is not None and other < 0 and (source.lead(lambda: self._bell.rung, self._bell) or self._bell.rung):
            return
        if other != self._heard:
            if self._heard >= 0:
                self._poll.unregister(self._heard)
            if other >= 0:
                self._poll.register(other, select.POLLIN)
            self._heard = other
        self._poll.poll()
