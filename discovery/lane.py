"""A thread with an event loop of its own that holds one thing open, entered from plain or from async code.

Zeroconf wants a loop that nobody blocks, and a notebook's is blocked by every cell that waits. So it gets one here, and
both kinds of caller wait for it through futures.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from .errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

WAIT_S = 20.0
"""The longest that opening or closing may take; both are over in well under a second."""


class Lane:
    """Holds an async context open on its own thread, from ``__enter__`` to ``__exit__`` or their async kin.

    It can be entered once. When the exit returns, the thread and all that was opened on it are gone; an error that
    ended the context early is raised there.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[None]], name: str) -> None:
        self._opening = opening
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._ready = _promise()
        self._stop = _promise()
        self._done = _promise()

    def __enter__(self) -> Self:
        self._start()
        try:
            self._ready.result(WAIT_S)
        except BaseException as error:
            self._request_stop()
            if isinstance(error, TimeoutError):
                raise _stuck("open") from error
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request_stop()
        try:
            self._done.result(WAIT_S)
        except TimeoutError as late:
            raise _stuck("close") from late
        self._thread.join()

    async def __aenter__(self) -> Self:
        self._start()
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.wrap_future(self._ready)
        except BaseException as error:
            self._request_stop()
            if isinstance(error, TimeoutError):
                raise _stuck("open") from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._request_stop()
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.wrap_future(self._done)
        except TimeoutError as late:
            raise _stuck("close") from late
        self._thread.join()  # its last statement has run, so this does not hold up the caller's loop

    def _start(self) -> None:
        if self._thread.ident is not None:
            raise DiscoveryError(f"{self._thread.name} was entered before; make a new one for another `with` block")
        self._thread.start()

    def _request_stop(self) -> None:
        if threading.current_thread() is self._thread:
            raise DiscoveryError("a callback of discovery cannot end the discovery that calls it: end it elsewhere")
        if not self._stop.done():
            self._stop.set_result(None)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            asyncio.run(self._hold())
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            failure = error
        if failure is None:
            self._done.set_result(None)
        elif self._ready.done():
            self._done.set_exception(failure)
        else:
            self._done.set_result(None)
            self._ready.set_exception(failure)

    async def _hold(self) -> None:
        async with self._opening():
            self._ready.set_result(None)
            await asyncio.wrap_future(self._stop)


def _promise() -> Future[None]:
    """A future that a cancelled waiter cannot cancel for the thread that will fulfil it."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _stuck(what: str) -> DiscoveryError:
    return DiscoveryError(f"discovery did not {what} within {WAIT_S:.0f} s: this machine is overloaded or suspended")
