"""A conversation: everything between two processes, small messages on one lane and large payloads on another."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from actors.messages import Call, Cancel, Carrying, Chunk, Credit, Message, Payload, Transfer
from actors.transport.bulk import INLINE_BYTES, WINDOW_BYTES, Assembly, chunks
from actors.transport.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Callable


class Conversation:
    """Posts messages and delivers them whole: a message is delivered once its payload has arrived.

    Calls are delivered in the order they were posted, also where a large argument makes one wait. Anything else
    passes by.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Message], None],
        need_bulk: Callable[[], None],
    ) -> None:
        self.control = Lane(loop, self._arrived)
        self.bulk = Lane(loop, self._chunk)
        self._loop = loop
        self._deliver = deliver
        self._need_bulk = need_bulk
        self._numbers = count(1)
        self._outgoing: deque[tuple[int, Payload]] = deque()
        self._feeder: asyncio.Task[None] | None = None
        self._assemblies: dict[int, Assembly] = {}
        self._whole: dict[int, Payload] = {}
        self._waiting: dict[int, Carrying] = {}  # messages whose payload is on its way, calls apart
        self._calls: deque[Call] = deque()  # calls held back by the first of them

    def post(self, message: Message) -> None:
        """Takes a message over from any thread; a large payload goes by the bulk lane."""
        size = 0
        if not isinstance(message, Credit | Cancel | Chunk) and isinstance(message.payload, Payload):
            payload = message.payload
            size = payload.nbytes
            if size > INLINE_BYTES:
                transfer = next(self._numbers)
                self._outgoing.append((transfer, payload))
                message = replace(message, payload=Transfer(transfer))
                size = 0
                self._loop.call_soon_threadsafe(self._feed)
        self.control.post(message, size)

    def _feed(self) -> None:
        self._need_bulk()
        if self._feeder is None or self._feeder.done():
            self._feeder = self._loop.create_task(self._feed_all())

    async def _feed_all(self) -> None:
        while self._outgoing:
            transfer, payload = self._outgoing.popleft()
            for chunk in chunks(transfer, payload):
                await self.bulk.room(WINDOW_BYTES)
                self.bulk.post(chunk, len(chunk.data))
                # Posting only queues; the session counts the chunk once the loop has come round.
                await asyncio.sleep(0)

    def _arrived(self, message: Message) -> None:
        if isinstance(message, Call):
            if self._calls or isinstance(message.payload, Transfer):
                self._calls.append(message)
                self._release_calls()
            else:
                self._deliver(message)
        elif not isinstance(message, Credit | Cancel | Chunk) and isinstance(message.payload, Transfer):
            transfer = message.payload.number
            payload = self._whole.pop(transfer, None)
            if payload is None:
                self._waiting[transfer] = message
                self._need_bulk()
            else:
                self._deliver(replace(message, payload=payload))
        else:
            self._deliver(message)

    def _release_calls(self) -> None:
        while self._calls:
            call = self._calls[0]
            if isinstance(call.payload, Transfer):
                payload = self._whole.pop(call.payload.number, None)
                if payload is None:
                    self._need_bulk()
                    return
                call = replace(call, payload=payload)
            self._calls.popleft()
            self._deliver(call)

    def _chunk(self, message: Message) -> None:
        if not isinstance(message, Chunk):
            return
        number = message.transfer
        assembly = self._assemblies.get(number)
        if assembly is None:
            assembly = self._assemblies[number] = Assembly(message.sizes)
        assembly.add(message)
        if assembly.complete:
            del self._assemblies[number]
            self._completed(number, assembly.payload())

    def _completed(self, number: int, payload: Payload) -> None:
        message = self._waiting.pop(number, None)
        if message is not None:
            self._deliver(replace(message, payload=payload))
        else:
            self._whole[number] = payload
            self._release_calls()

    async def drained(self) -> None:
        """Waits until the other side has everything that was posted."""
        if self._feeder is not None:
            await asyncio.wait({self._feeder})
        await self.control.drained()
        await self.bulk.drained()

    async def farewell(self, reason: str, code: int = 0) -> None:
        """Says goodbye on both lanes."""
        await self.control.farewell(reason, code)
        await self.bulk.farewell(reason, code)

    def close(self) -> None:
        """Drops what is unsent and half received."""
        if self._feeder is not None:
            self._feeder.cancel()
        self.control.close()
        self.bulk.close()
