"""A pause: something is done between two calls of an actor, so that none of them is half-way meanwhile."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

from actors.shortage import NoThreadError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.mailbox import Mailbox

PATIENCE_SECONDS = 1.0
"""For the calls that run to end. Then it is done all the same: one of them may wait for a call that is held."""
LATER_SECONDS = 1.0


class Pause:
    """Holds the calls of an actor that runs several at once until ``work`` is done.

    Args:
        mailbox: the actor's.
        own_thread: has something done where the actor's methods run.
        work: what is done.
    """

    def __init__(
        self, mailbox: Mailbox, own_thread: Callable[[Callable[[], None]], object], work: Callable[[], None]
    ) -> None:
        self._mailbox = mailbox
        self._own_thread = own_thread
        self._work = work
        self._once = threading.Lock()
        self._held: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._overdue: asyncio.TimerHandle | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Lets no call start. On the I/O loop."""
        if self._mailbox.is_held:  # it is about to move, or another pause is under way
            loop.call_later(LATER_SECONDS, self.begin, loop)
            return
        self._loop = loop
        self._overdue = loop.call_later(PATIENCE_SECONDS, self._go_on)
        self._mailbox.hold(self._go_on, self._held)

    def _go_on(self) -> None:
        """None runs, or they have had their time. On any thread."""
        if not self._once.acquire(blocking=False):
            return
        try:
            self._own_thread(self._run)
        except NoThreadError:
            self._mailbox.resume(self._held)
            another = Pause(self._mailbox, self._own_thread, self._work)
            self._loop.call_soon_threadsafe(self._loop.call_later, LATER_SECONDS, another.begin, self._loop)

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._mailbox.resume(self._held)
