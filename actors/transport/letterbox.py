"""Where messages for one rank of a job wait to be received, who that rank is, and how it refuses.

What people read calls it the rank's mailbox; the name here keeps it apart from an actor's.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from grpc import StatusCode

if TYPE_CHECKING:
    from actors._wire import distributed_comm_pb2 as pb


class Refused(Exception):  # noqa: N818 - an answer, not a fault of this process
    """A call that is answered with a status other than OK."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        # It travels percent-encoded in an HTTP/2 trailer, of which 8 KiB are sure to pass.
        self.message = message[:600]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what one rank's server keeps.

    Attributes:
        messages: messages sent and not yet received.
        stored: bytes of them.
        rounds: rounds of one kind that some ranks have joined and others have not.
        held: bytes that ranks have brought to unfinished rounds of one kind.
    """

    messages: int = 10_000
    stored: int = 4 << 30
    rounds: int = 1_000
    held: int = 8 << 30


@dataclass(frozen=True, slots=True)
class Member:
    """Who a server is in its job.

    Attributes:
        rank: this rank, from 0.
        world_size: number of ranks.
        secret: the job's secret, which pickles must be proved with.
        timeout: seconds that a call waits at most for what other ranks have to do.
        limits: bounds of what is kept.
    """

    rank: int
    world_size: int
    secret: bytes
    timeout: float = 30.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in a letterbox.

    Attributes:
        source: rank that sent it.
        tag: what it is told apart by.
        data: what was sent.
        size: bytes that it is counted as, since protobuf finds out by writing it all.
    """

    source: int
    tag: str
    data: pb.CommData
    size: int


class Letterbox:
    """Messages sent to this rank and not yet received, in the order in which they came."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._letters: defaultdict[tuple[int, str], deque[Letter]] = defaultdict(deque)
        self._count = 0
        self._bytes = 0
        self._changed = asyncio.Event()
        self._closed = ""

    def put(self, letter: Letter) -> None:
        """Stores a message.

        Raises:
            Refused: RESOURCE_EXHAUSTED, the mailbox is full.
        """
        limits = self._limits
        if self._count >= limits.messages or self._bytes + letter.size > limits.stored:
            raise Refused(
                StatusCode.RESOURCE_EXHAUSTED,
                f"the mailbox is full: {self._count} messages of {self._bytes} bytes wait to be received, the limits "
                f"are {limits.messages} messages and {limits.stored} bytes: receive some first",
            )
        self._letters[letter.source, letter.tag].append(letter)
        self._added(letter)

    def restore(self, letter: Letter) -> None:
        """Puts back, as the first, a message that was taken and could not be handed over."""
        self._letters[letter.source, letter.tag].appendleft(letter)
        self._added(letter)

    async def take(self, source: int, tag: str, comm_type: str, patience: float) -> Letter:
        """Waits for a message and removes it.

        Raises:
            Refused: DEADLINE_EXCEEDED, none came in time; UNAVAILABLE, the mailbox was closed.
        """
        found = self.take_now(source, tag, comm_type)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                # Nothing is awaited after a message is found, so that no cancel can lose it.
                while found is None and not self._closed:
                    await self._changed.wait()
                    found = self.take_now(source, tag, comm_type)
        if found is not None:
            return found
        if self._closed:
            raise Refused(StatusCode.UNAVAILABLE, self._closed)
        wanted = f"rank {source} with tag {tag!r}" + (f" and type {comm_type!r}" if comm_type else "")
        raise Refused(StatusCode.DEADLINE_EXCEEDED, f"no message from {wanted} came within {patience:.3g} s")

    def take_now(self, source: int, tag: str, comm_type: str = "") -> Letter | None:
        """Removes and returns the first message that matches, if there is one."""
        queue = self._letters.get((source, tag), ())
        for index, letter in enumerate(queue):
            if comm_type in ("", letter.data.comm_type):
                del self._letters[source, tag][index]
                if not queue:
                    del self._letters[source, tag]
                self._count -= 1
                self._bytes -= letter.size
                return letter
        return None

    def close(self, reason: str) -> None:
        """Ends every wait."""
        self._closed = reason
        self._wake()

    def _added(self, letter: Letter) -> None:
        self._count += 1
        self._bytes += letter.size
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
