"""The portal: one event loop on a thread of its own, which does all I/O of this process."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
import time
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from actors.pool import Pool
from actors.shortage import NoThreadError, begin
from actors.slices import ask_to_run_soon

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future
    from typing import Any

log = logging.getLogger(__name__)
T = TypeVar("T")

STOP_SECONDS = 5.0
DRAIN_SECONDS = 0.02
NAG_SECONDS = 60.0  # between two complaints of the same kind
SLICE_SECONDS = 0.1  # an unbounded wait would miss a Ctrl-C that another thread's signal handler took


class Portal:
    """Runs coroutines on the I/O thread for callers on other threads.

    Raises:
        NoThreadError: it cannot be begun.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._callbacks = Pool(1, "actors-callbacks", partial(self.soon, self.loop.call_later))
        self._complained = -NAG_SECONDS
        self.loop.set_exception_handler(self._report)
        self._ident = 0
        try:
            self._thread = begin(self._run, "actors-io")
        except NoThreadError:
            self.loop.close()
            raise

    def _run(self) -> None:
        self._ident = threading.get_ident()
        ask_to_run_soon()
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self._end_tasks()
        # gRPC still has the ends of cancelled operations to report, and would report them to the next loop.
        self.loop.run_until_complete(asyncio.sleep(DRAIN_SECONDS))
        self._end_tasks()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        with suppress(RuntimeError):  # at the interpreter's end no thread can be started to wait for the others
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio has to complain of. It tries once a second to accept who waits, and says so each time."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
            self._nag(
                f"this process has no file descriptor left ({error.strerror}): whoever is not connected yet waits "
                "until it closes some; `ulimit -n` has the limit"
            )
        elif isinstance(error, NoThreadError):
            self._nag(str(error))
        else:
            loop.default_exception_handler(context)

    def _nag(self, complaint: str) -> None:
        if self.loop.time() - self._complained >= NAG_SECONDS:
            self._complained = self.loop.time()
            log.warning("%s", complaint)

    def _end_tasks(self) -> None:
        """Cancels all tasks, those too that others begin while they end."""
        while pending := asyncio.all_tasks(self.loop):
            for task in pending:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Runs a coroutine on the loop and returns its result; Ctrl-C cancels it.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
            RuntimeError: called on the loop itself, which would wait for ever.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a blocking call on the I/O thread would never return; await it instead")
        # In an empty context: what begins here may live long, and must not keep the notebook cell it began in.
        future = Context().run(asyncio.run_coroutine_threadsafe, work, self.loop)
        try:
            return wait(future, timeout)
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs a coroutine on the loop, whatever becomes of it."""
        return Context().run(asyncio.run_coroutine_threadsafe, work, self.loop)

    def soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Calls ``callback`` on the loop soon."""
        self.loop.call_soon_threadsafe(callback, *args, context=Context())

    def aside(self, callback: Callable[..., object], *args: Any) -> None:
        """Runs what may be slow, or end by SystemExit, on a thread of its own, one after the other."""

        def run() -> None:
            try:
                callback(*args)
            except Exception:
                log.exception("what was to be done aside failed")
            except BaseException as error:
                log.info("what was done aside ended by %s", type(error).__name__)

        try:
            self._callbacks.start(run)
        except NoThreadError:  # it is to be done all the same, here: somebody waits for what comes of it
            run()

    def expect_aside(self) -> None:
        """Begins the thread of `aside` before there is work for it.

        Raises:
            NoThreadError: it cannot be begun.
        """
        self._callbacks.prepare()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the I/O thread."""
        return threading.get_ident() == self._ident

    def close(self) -> None:
        """Lets what runs aside end, stops the loop and waits for its thread; for each a while."""
        try:
            self._callbacks.close(STOP_SECONDS)  # at the program's end it would be cut short
        finally:
            if self._thread.is_alive():
                self.loop.call_soon_threadsafe(self.loop.stop)
                self._thread.join(STOP_SECONDS)


def wait(future: Future[T], timeout: float | None = None) -> T:
    """Returns a future's result; interruptible, since it waits in slices.

    Raises:
        TimeoutError: ``timeout`` seconds went by.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, max(0.0, deadline - time.monotonic()))
        try:
            return future.result(left)
        except TimeoutError:
            # The future's own exception may be a TimeoutError too.
            if future.done():
                return future.result()
            if deadline is not None and time.monotonic() >= deadline:
                raise
