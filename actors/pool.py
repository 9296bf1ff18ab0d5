"""A pool: threads of its owner's own, begun as work comes and kept until it is closed."""

from __future__ import annotations

import queue
import threading
import traceback
from typing import TYPE_CHECKING, Any

from actors.shortage import RETRY_SECONDS, NoThreadError, begin

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[..., object]


class Pool:
    """Runs pieces of work in their order, so many at once. Any thread may use it.

    Args:
        width: how many.
        name: of the threads.
        later: has something done after so many seconds; by it threads are begun that could not be at first.
    """

    def __init__(self, width: int, name: str, later: Callable[[float, Callable[[], None]], object]) -> None:
        self._width = width
        self._name = name
        self._later = later
        self._work: queue.SimpleQueue[tuple[Work, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the width and the next three
        self._threads: list[threading.Thread] = []
        self._open = 0  # pieces that wait or run
        self._retries = False

    def start(self, work: Work, *args: Any) -> None:
        """Has ``work`` run; what it raises is only printed. Never blocks.

        Raises:
            NoThreadError: there is no thread, and none can be begun, or the pool is closed: it will not run.
        """
        with self._lock:
            if not self._width:
                raise NoThreadError(self._name)  # for who calls, which is no user
            self._open += 1
            try:
                self._grow()
            except NoThreadError:
                if not self._threads:
                    self._open -= 1
                    raise
                self._try_again()
            self._work.put((work, args))

    def prepare(self) -> None:
        """Begins a thread before there is work, where there is none.

        Raises:
            NoThreadError: it cannot be begun.
        """
        with self._lock:
            if not self._threads:
                self._add()

    def _add(self) -> None:
        self._threads.append(begin(self._serve, f"{self._name}_{len(self._threads)}"))

    def _grow(self) -> None:
        while len(self._threads) < min(self._open, self._width):
            self._add()

    def _try_again(self) -> None:
        """What waits may be what the threads there are wait for."""
        if not self._retries:
            self._retries = True
            self._later(RETRY_SECONDS, self._again)

    def _again(self) -> None:
        with self._lock:
            self._retries = False
            try:
                self._grow()
            except NoThreadError:
                self._try_again()

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            work, args = item
            try:
                work(*args)
            except BaseException:  # such as for want of memory: what waits is to have its turn all the same
                traceback.print_exc()
            del item, work, args  # it may be long until the next
            with self._lock:
                self._open -= 1

    def close(self, seconds: float | None = None) -> None:
        """Ends the threads after what has been started; waits for that, so long at most for each of them."""
        with self._lock:
            threads, self._width = self._threads, 0
        for _ in threads:
            self._work.put(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(seconds)
