"""Answers to calls that came together: they go back together too."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from actors.messages import PLAIN_TYPES, Outcome, Payload, Replies, Reply
from actors.serialize import dumps, dumps_plain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.messages import Message
    from actors.transport.bell import Bell

ONE_PICKLE = 2  # see `actors.version.MINOR`
MOST_TOGETHER = 512  # answers in one message
MOST_BYTES = 16 << 10  # of one that goes with others: so all of a message stay below what goes by the bulk lane
_MOST_BYTES_TOGETHER = 512 << 10
_MOST_TEXT = 256  # characters or bytes of a plain value
_MOST_NUMBER = 1 << 63
_MANY = 16  # from which on more are expected
_LULL_SECONDS = 0.001


def is_small(value: object) -> bool:
    """Whether a value is plain, and so small that a message has room for as many as go together."""
    if type(value) not in PLAIN_TYPES:
        return False
    if isinstance(value, int):
        return -_MOST_NUMBER <= value < _MOST_NUMBER
    return not isinstance(value, str | bytes) or len(value) <= _MOST_TEXT


class _Visitor(Protocol):
    @property
    def session(self) -> str:
        """Id of the conversation."""

    @property
    def process(self) -> str:
        """Id of the process at its other end."""

    @property
    def minor(self) -> int:
        """How far that knows what was added to the protocol."""

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
        self._plain: deque[tuple[int, Any]] = deque()
        self._flushing = threading.RLock()
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
        self._wake()

    def answered(self, number: int, value: Any) -> None:
        """Takes the value of a call over that `is_small`, not pickled yet."""
        self._plain.append((number, value))
        if not self._scheduled:
            self._wake()

    def _wake(self) -> None:
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
        many = len(self._posted) + len(self._plain) >= _MANY
        if many:
            self._loop.call_later(_LULL_SECONDS, self._look)
        else:
            self._scheduled = False  # before the last look: what comes after that wakes the loop again
        self.flush()

    def flush(self) -> None:
        """Sends what was collected. On any thread."""
        with self._flushing:
            self._flush_plain()
            self._flush_pickled()

    def _flush_plain(self) -> None:
        plain = self._plain
        while plain:
            taken = [plain.popleft() for _ in range(min(len(plain), MOST_TOGETHER))]
            numbers, values = zip(*taken, strict=True)
            if self._visitor.minor >= ONE_PICKLE:
                payload = dumps_plain(values)
            else:
                payload = Payload(b"", tuple(dumps(value).pickle for value in values))
            self._visitor.post(Replies(numbers, payload))

    def _flush_pickled(self) -> None:
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
