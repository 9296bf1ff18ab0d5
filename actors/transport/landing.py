"""Landing: the bytes of large payloads that a node relays lie in memory which it shares with the process they are for.

So they are copied once on their way in, into that memory, and on their way out not at all. Between the node and the
process go chunks that say only where. What is no chunk, or finds no room, goes as it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from actors._wire import distributed_comm_pb2 as pb
from actors.arena import LEAST_BYTES
from actors.messages import Chunk, Shared
from actors.transport import heap, pieces
from actors.transport.codec import MalformedMessageError

if TYPE_CHECKING:
    from actors.arena import Arena
    from actors.draft import Draft

HELD_SECONDS = 5.0
"""A file stays after the link has ended: what was passed on last may not have been read yet."""


class Landing:
    """The chunks of one link. Its methods belong to the I/O loop.

    Args:
        arena: memory that this node shares with the process.

    Attributes:
        unfinished: what landed last has more to come, and is of no use to the process before.
    """

    def __init__(self, arena: Arena) -> None:
        self.unfinished = False
        self._arena = arena
        self._transfer = self._next = 0
        self._sizes: deque[int] = deque()  # of the part that is coming, and of those to come
        self._filled = 0
        self._draft: Draft | None = None
        self._written: deque[tuple[int, Draft]] = deque()  # with the number of the message by which it was whole
        self._read: tuple[str, memoryview] | None = None

    def land(self, data: bytes) -> bytes:
        """Returns what is to be passed on to the process for a frame from outside.

        Raises:
            MalformedMessageError: it names memory of this host.
        """
        found = pieces.read(data)
        self.unfinished = False
        if found is None:
            _check(data)
            return data
        ack, messages = found
        landed = [(number, self._landed(number, chunk)) for number, chunk in messages]
        changed = any(isinstance(chunk.data, Shared) for _, chunk in landed)
        self.unfinished = bool(landed) and isinstance(landed[-1][1].data, Shared) and self._draft is not None
        return (pieces.write(ack, landed) or data) if changed else data

    def _landed(self, number: int, chunk: Chunk) -> Chunk:
        if isinstance(chunk.data, Shared):
            raise MalformedMessageError("it names memory that it cannot know")
        place = self._place(number, chunk)
        return chunk if place is None else replace(chunk, data=place)

    def _place(self, number: int, chunk: Chunk) -> Shared | None:
        """Writes a chunk to memory; returns where it lies, and None where it is to go as it is."""
        if chunk.index == 0:
            heap.use()
            self._give_up()
            self._transfer, self._next, self._sizes, self._filled = chunk.transfer, 0, deque(chunk.sizes), 0
        elif (chunk.transfer, chunk.index) != (self._transfer, self._next):
            self._give_up()  # a transfer that began on another link
        while self._sizes and not self._sizes[0]:
            self._sizes.popleft()
        if not self._sizes:
            return None
        self._next += 1
        if not self._filled and self._sizes[0] >= LEAST_BYTES:
            self._draft = self._arena.draft(self._sizes[0])
        place = self._written_at(chunk)
        self._filled += chunk.nbytes
        if self._filled >= self._sizes[0]:
            self._sizes.popleft()
            self._filled = 0
            if self._draft is not None:
                self._written.append((number, self._draft))
                self._draft = None
        return place

    def _written_at(self, chunk: Chunk) -> Shared | None:
        assert not isinstance(chunk.data, Shared)
        if self._draft is None or self._filled + chunk.nbytes > self._sizes[0]:
            return None
        try:
            self._draft.write(self._filled, chunk.data)
        except OSError:  # the memory is full: the rest goes as it is
            self._later(self._draft)
            self._draft = None
            return None
        return Shared(0, self._draft.name, self._filled, chunk.nbytes)

    def _give_up(self) -> None:
        if self._draft is not None:
            self._later(self._draft)
            self._draft = None
        self._sizes.clear()

    def _later(self, draft: Draft) -> None:
        asyncio.get_running_loop().call_later(HELD_SECONDS, lambda: draft.close(again=False))

    def lift(self, data: bytes) -> bytes:
        """Returns what is to be passed on to the outside for a frame from the process.

        Raises:
            MalformedMessageError: memory that it names cannot be had.
        """
        found = pieces.read(data)
        if found is None:
            return data
        ack, messages = found
        while self._written and self._written[0][0] <= ack:  # the process has them under a name of its own
            self._written.popleft()[1].close()
        if not any(isinstance(chunk.data, Shared) for _, chunk in messages):
            return data
        return pieces.write(ack, [(number, self._lifted(chunk)) for number, chunk in messages]) or data

    def _lifted(self, chunk: Chunk) -> Chunk:
        place = chunk.data
        if not isinstance(place, Shared):
            return chunk
        if self._read is None or self._read[0] != place.name:
            try:
                self._read = place.name, self._arena.link(place.name).open()
            except (ValueError, OSError) as error:
                raise MalformedMessageError(f"memory that was shared cannot be had: {error}") from error
            heap.use()
        return replace(chunk, data=self._read[1][place.offset : place.offset + place.size])

    def close(self) -> None:
        """The link has ended."""
        self._give_up()
        self._read = None
        while self._written:
            self._later(self._written.popleft()[1])


def _check(data: bytes) -> None:
    """Raises MalformedMessageError where a frame that is no plain chunk names memory of this host."""
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError:
        return  # the process says so
    if any(envelope.data.header.shared for envelope in frame.envelopes):
        raise MalformedMessageError("it names memory that it cannot know")
