"""Collectives that run beside the caller's own work, one after the other."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from actors.shortage import begin

if TYPE_CHECKING:
    from collections.abc import Callable

_Job = tuple["Future[Any]", Context, "Callable[[], Any]"]


class Work:
    """A collective that has been started with ``async_op=True``.

    Until it is done, the arrays that went in must not be changed.
    """

    def __init__(self, future: Future[Any], name: str) -> None:
        self._future = future
        self._name = name

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Work is under way in its process; send what its wait() returns")

    def __repr__(self) -> str:
        return f"<Work {self._name}, {'done' if self.done() else 'under way'}>"

    def done(self) -> bool:
        """Whether it has a result or has failed."""
        return self._future.done()

    def wait(self, timeout: float | None = None) -> Any:
        """Returns the collective's result.

        Args:
            timeout: seconds to wait here; the collective itself has the timeout that it was started with.

        Raises:
            TimeoutError: it is not done yet, and goes on.
            CollectiveError: it failed; see the collective itself.
        """
        try:
            return self._future.result(timeout)
        except FutureTimeoutError:
            if self._future.done():
                raise
            raise TimeoutError(f"{self._name} is not done after {timeout:g} s; it goes on") from None


class Queue:
    """Runs one group's work in the order it was given, on a thread that begins with the first."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._last: Future[Any] | None = None
        self._thread: threading.Thread | None = None

    def start(self, name: str, step: Callable[[], Any]) -> Work:
        """Has ``step`` run after all that was started before.

        Raises:
            NoThreadError: it is the first, and no thread can be begun.
        """
        future: Future[Any] = Future()
        with self._guard:
            if self._thread is None:
                self._thread = begin(self._run, "collectives")
            self._last = future
            self._jobs.put((future, copy_context(), step))
        return Work(future, name)

    def drain(self) -> None:
        """Returns once all that was started is done, so that a call made now comes after it on every rank."""
        last = self._last
        if last is not None and threading.current_thread() is not self._thread:
            wait([last])

    def close(self) -> None:
        """Ends the thread after what was started."""
        with self._guard:
            if self._thread is not None:
                self._jobs.put(None)
                self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, context, step = job
            try:
                future.set_result(context.run(step))
            except BaseException as error:
                future.set_exception(error)
            del job, future, context, step


def alone(name: str, step: Callable[[], Any]) -> Work:
    """Has ``step`` run at once, on a thread of its own: what waits for one other rank holds up no collective."""
    queue = Queue()
    work = queue.start(name, step)
    queue.close()
    return work
