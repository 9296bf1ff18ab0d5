"""Answers to calls that came together: they go back together too."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

from actors.messages import Outcome, Payload, Replies, Reply

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.messages import Message
    from actors.transport.bell import Bell

MOST_TOGETHER = 512  # answers in one message
MOST_BYTES = 16 << 10  # of one that goes with others: so all of a message stay below what goes by the bulk lane
_MOST_BYTES_TOGETHER = 512 << 10
_MANY = 16  # from which on more are expected
_LULL_SECONDS = 0.001


class _Visitor(Protocol):
    @property
    def session(self) -> str:
        """Id of the conversation."""

    @property
    def process(self) -> str:
        """Id of the process at its other end."""

    def post(self, message: Message) -> None:
        """Sends a message, from any thread."""

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Reads on this thread what comes from there."""


class Answers:
    """Collects answers of one visitor until the I/O loop comes round. Any thread may post.

    Only small values are collected: whatever else is posted, errors too, goes its own way at once.

    Args:
        visitor: whom they are for.
        loop: the I/O loop.
    """

    def __init__(self, visitor: _Visitor, loop: asyncio.AbstractEventLoop) -> None:
        self.session = visitor.session
        self.process = visitor.process
        self.minor = 0  # what goes together is plain
        self._visitor = visitor
        self._loop = loop
        self._posted: deque[tuple[int, bytes]] = deque()
        self._scheduled = False

    def post(self, message: Message) -> None:
        """Takes a message over; see `actors.job.Visitor`."""
        if not isinstance(message, Reply) or message.outcome is not Outcome.VALUE:
            self._visitor.post(message)
            return
        payload = message.payload
        if not isinstance(payload, Payload) or payload.buffers or payload.holds or len(payload.pickle) > MOST_BYTES:
            self._visitor.post(message)
            return
        self._posted.append((message.number, payload.pickle))
        # As in `actors.transport.lane.Lane.post`: those that come before the loop does ride on the first one.
        if not self._scheduled:
            try:
                self._scheduled = True
                self._loop.call_soon_threadsafe(self._look)
            except BaseException:
                self._scheduled = False
                raise

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """See `actors.job.Visitor`."""
        self._visitor.lead(done, seconds, bell)

    def _look(self) -> None:
        # While many come, this looks for them itself: a thread that had to wake the loop for each would be slowed down.
        many = len(self._posted) >= _MANY
        if many:
            self._loop.call_later(_LULL_SECONDS, self._look)
        else:
            self._scheduled = False  # before the last look: what comes after that wakes the loop again
        self.flush()

    def flush(self) -> None:
        """Sends what was collected. On the I/O loop."""
        posted = self._posted
        while posted:
            numbers: list[int] = []
            pickles: list[bytes] = []
            size = 0
            while posted and len(numbers) < MOST_TOGETHER and size < _MOST_BYTES_TOGETHER:
                number, pickle = posted.popleft()
                numbers.append(number)
                pickles.append(pickle)
                size += len(pickle)
            self._visitor.post(Replies(tuple(numbers), Payload(b"", tuple(pickles))))
