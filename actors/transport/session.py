"""The session: numbered, acknowledged messages that outlive any one connection.

A pure state machine, one for each direction-pair between two process incarnations. It has no clock, no socket and no
thread. Every message pushed is delivered at the other side exactly once and in order, over any number of
connections, as long as both processes live: what was not acknowledged is written again after a reconnect, and what
arrives twice is dropped by its number.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class ProtocolError(Exception):
    """The other side broke the rules of the session; the connection is of no more use."""


class Session(Generic[T]):
    """Sender and receiver state of one end of a session."""

    __slots__ = ("_acked", "_sent", "_unsent", "_unsent_first", "_written", "pending_bytes", "received")

    def __init__(self) -> None:
        self.received = 0  # highest number taken in from the other side, without gaps
        self.pending_bytes = 0  # pushed and not acknowledged
        self._acked = 0
        self._written = 0  # highest number ever written to any connection
        self._sent: deque[tuple[T, int]] = deque()
        self._unsent: deque[tuple[T, int]] = deque()
        self._unsent_first = 1  # number of the first message in _unsent

    def push(self, message: T, size: int = 0) -> None:
        """Takes a message over; it is kept until the other side has acknowledged it."""
        self._unsent.append((message, size))
        self.pending_bytes += size

    def take(self, limit: int, limit_bytes: int) -> list[tuple[int, T]]:
        """Returns the next messages to write with their numbers: at least one if any waits, up to the limits."""
        batch: list[tuple[int, T]] = []
        sent, unsent, total = self._sent, self._unsent, 0
        while unsent and len(batch) < limit:
            entry = unsent[0]
            total += entry[1]
            if batch and total > limit_bytes:
                break
            sent.append(entry)
            unsent.popleft()  # afterwards: an interrupt between shall not lose it, see `mend_taking`
            batch.append((self._unsent_first, entry[0]))
            self._unsent_first += 1
        self._written = max(self._written, self._unsent_first - 1)
        return batch

    def mend_taking(self) -> None:
        """Sets right what an interrupt has left that has struck anywhere in `take`."""
        if self._sent and self._unsent and self._sent[-1] is self._unsent[0]:
            self._unsent.popleft()
        self._unsent_first = self._acked + len(self._sent) + 1

    def mend_acknowledged(self) -> None:
        """Sets right what an interrupt has left that has struck anywhere in `acknowledged`; see `sent`."""
        while len(self._sent) > self._unsent_first - 1 - self._acked:
            self._sent.popleft()

    @property
    def newest(self) -> T | None:
        """The message that was pushed last, where it is still kept."""
        return self._unsent[-1][0] if self._unsent else None

    @property
    def sent(self) -> int:
        """Highest number that this connection has carried."""
        return self._unsent_first - 1

    @property
    def in_flight(self) -> int:
        """How many messages were written and are not acknowledged."""
        return len(self._sent)

    @property
    def has_unsent(self) -> bool:
        """Whether a message waits to be written."""
        return bool(self._unsent)

    @property
    def idle(self) -> bool:
        """Whether the other side has acknowledged everything."""
        return not self._unsent and not self._sent

    def connected(self, peer_received: int) -> None:
        """A new connection is up, and the other side has everything up to ``peer_received``.

        Raises:
            ProtocolError: it claims to have what was never sent, or to miss what it had acknowledged.
        """
        if not self._acked <= peer_received <= self._written:
            raise ProtocolError(
                f"the other side says it has received {peer_received}, "
                f"but {self._acked} were acknowledged and {self._written} written"
            )
        self.acknowledged(peer_received)
        self._unsent_first -= len(self._sent)
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()

    def acknowledged(self, upto: int) -> None:
        """The other side has everything up to ``upto``; an old or repeated acknowledgement changes nothing.

        Raises:
            ProtocolError: more is acknowledged than was written.
        """
        if upto > self._written:
            raise ProtocolError(f"{upto} was acknowledged, but only {self._written} were written")
        while self._acked < upto:
            self._acked += 1  # before: an interrupt between the two can be mended
            _, size = self._sent.popleft() if self._sent else self._skip_unsent()
            self.pending_bytes -= size

    def _skip_unsent(self) -> tuple[T, int]:
        self._unsent_first += 1
        return self._unsent.popleft()

    def accept(self, number: int) -> bool:
        """Whether the message with this number is new and shall be delivered; one that was delivered is not.

        Raises:
            ProtocolError: a number was left out.
        """
        if number <= self.received:
            return False
        if number != self.received + 1:
            raise ProtocolError(f"message {number} came after {self.received}")
        self.received = number
        return True

    def drop(self) -> None:
        """Forgets what was pushed and not acknowledged: nobody will take it any more."""
        self._sent.clear()
        self._unsent.clear()
        self.pending_bytes = 0
        self._acked = self._written
        self._unsent_first = self._written + 1

    def never_written(self) -> list[T]:
        """Returns the messages that no connection has carried, so that the other side cannot have seen them."""
        skip = max(0, self._written + 1 - self._unsent_first)
        return [message for message, _ in list(self._unsent)[skip:]]
