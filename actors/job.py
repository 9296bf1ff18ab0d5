"""A job: one call at the actor that answers it, from its arrival to its one reply."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from actors.messages import PLAIN, ROOT, STREAM_WINDOW, VALUE, Call, Item, Outcome, Payload, Reply
from actors.runtime import Running
from actors.traceids import of_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.escort import Escort
    from actors.messages import Message
    from actors.transport.bell import Bell


class Visitor(Protocol):
    """Who made the call; see `actors.transport.acceptor.Visitor`."""

    session: str
    process: str
    minor: int

    def post(self, message: Message) -> None:
        """Sends a message there, from any thread."""

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Reads on this thread what comes from there; see `actors.transport.link.QuickLink`."""


class State(Enum):
    """Where a job is in its life."""

    QUEUED = 0
    RUNNING = 1
    OVER = 2


# To look a member up in its class takes Python 3.11 as long as five calls.
QUEUED, RUNNING, OVER = State.QUEUED, State.RUNNING, State.OVER


class Job(Running):
    """A call that waits or runs. Its state is changed by the mailbox alone.

    Attributes:
        call: what is asked for.
        state: where it is in its life.
        reason: why it shall stop, once it shall.
        awaiting: the actor's loop is free while it runs, so that it can be cancelled.
        arrived: when it came (epoch).
        started: when it began to run; 0 before.
        came: the trace it came with; see `actors.messages.Terms`.
        trace: see `actors.events.CallEnded`; ids that nobody has looked at yet are what they follow from.
        escort: the actor's state that goes with its value; None where none does.
        settled: the actor's state may be taken while it runs, see `actors.gathering`.
    """

    call: Call
    # As they are at first; see `Running`.
    escort: Escort | None = None
    settled = False
    started = 0.0
    came = ""
    trace: str | tuple[str, int] = ""
    state = QUEUED
    reason: Exception | None = None
    awaiting = False
    task: asyncio.Task[None] | None = None
    _told = False  # its task was cancelled
    _credit = STREAM_WINDOW
    _more: threading.Condition | None = None  # a stream on a thread waits here
    _room: asyncio.Event | None = None  # and one on the actor's loop here

    def __init__(self, call: Call, visitor: Visitor, label: str) -> None:
        # Not by that of `Running`: what is made for each call is made in as few steps as can be.
        terms = call.terms
        self.key = (visitor.session, call.number)
        self.label = label
        self.method = call.method
        self.deadline = None if terms.remaining is None else time.monotonic() + terms.remaining
        self.call = call
        self._visitor = visitor
        self.arrived = time.time()
        if terms is not PLAIN:
            self.origin = terms.origin
            self.came = terms.trace

    @property
    def roots(self) -> tuple[str, int]:
        """What the ids of a trace follow from that begins with it: see `actors.traceids.of_call`."""
        return f"{self._visitor.process} {self._visitor.session}", self.key[1]

    @property
    def traceparent(self) -> str:  # type: ignore[override]  # few are asked for it
        """See `Running`."""
        return self.came if self.came != ROOT else of_call(*self.roots)[0]

    def post_reply(self, outcome: Outcome, payload: Payload) -> None:
        """Sends the one reply; only for the mailbox, which knows that there was none."""
        if self.escort is not None and outcome is VALUE:
            outcome, payload = Outcome.KEPT, self.escort.beside(payload)
        self._visitor.post(Reply(self.key[1], outcome, payload))
        if self.traced is not None:  # afterwards: nobody waits for it
            self.trace = self.roots if self.came == ROOT else self.traced.traceparent[3:52]

    def knows(self, process: str, minor: int) -> bool:
        """Whether its caller is this process, and knows so much of what was added to the protocol."""
        return self._visitor.process == process and self._visitor.minor >= minor

    def post_item(self, index: int, payload: Payload) -> None:
        """Sends a value of its stream."""
        self._visitor.post(Item(self.key[1], index, payload))

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Reads on this thread what its caller sends next."""
        self._visitor.lead(done, seconds, bell)

    # -- what the caller wants --------------------------------------------------------------------------------------

    def stop(self, reason: Exception) -> None:
        """Says that nobody wants the answer: a stream stops, a coroutine is cancelled, a plain method goes on."""
        if self.reason is None:
            self.reason = reason
        self._wake()
        if self.task is not None and self.awaiting:
            with contextlib.suppress(RuntimeError):  # its loop is closed, and it is over with that
                self.task.get_loop().call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        # Once only, on the loop of its task: a second time would cut short what it does about the first.
        if self.task is not None and not self._told:
            self._told = True
            self.task.cancel()

    @property
    def stoppable(self) -> bool:
        """Whether it can be stopped between two steps: a coroutine, or a generator that has given a value."""
        return self.awaiting or self._more is not None

    def credited(self, upto: int) -> None:
        """The caller takes items up to this count."""
        self._credit = max(self._credit, upto)
        self._wake()

    def _wake(self) -> None:
        more, room, task = self._more, self._room, self.task
        if more is not None:
            with more:
                more.notify_all()
        if room is not None and task is not None:
            with contextlib.suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(room.set)

    # -- what its method does ---------------------------------------------------------------------------------------

    def wait_for_room(self, index: int) -> None:
        """Blocks until item ``index`` of the stream may be sent, or the stream shall stop."""
        if self._more is None:
            self._more = threading.Condition()  # before the credit is looked at: it may come just now
        if index >= self._credit and self.reason is None:
            with self._more:
                self._more.wait_for(lambda: index < self._credit or self.reason is not None)

    async def room(self, index: int) -> None:
        """Waits until item ``index`` of the stream may be sent."""
        if self._room is None:
            self._room = asyncio.Event()
        while index >= self._credit:
            self._room.clear()
            if index >= self._credit:  # else it came just now
                await self._room.wait()

    def give_way(self) -> None:
        """From now on it runs as a coroutine does. On its task; a cancellation that came before is felt inside."""
        self.awaiting = True
        if self.reason is not None:  # `stop` may have looked before
            self._cancel()
