"""A conversation: everything between two processes, small messages on one lane and large payloads on another."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from actors.messages import (
    Call,
    Calls,
    Cancel,
    Chunk,
    Credit,
    Item,
    Message,
    Payload,
    Replies,
    Reply,
    Tensor,
    Transfer,
)
from actors.transport import heap
from actors.transport.bulk import INLINE_BYTES, WINDOW_BYTES, Assembly, chunks
from actors.transport.codec import MalformedMessageError
from actors.transport.lane import Lane
from actors.transport.manner import BULK
from actors.transport.untaken import untaken

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.arena import Arena
    from actors.holdings import Passage
    from actors.messages import Carrying

CLAIM_BYTES = 60  # what a reference inside a payload adds to its message
SHARED_BYTES = 60  # and what a buffer that is shared does

Order = tuple[str, int]
"""What messages must not overtake each other in: the calls, the answers to one call, or a single message."""

_CALLS: Order = ("calls", 0)
_BARE = (Credit, Cancel, Chunk)  # messages without a payload
_WHOLE = frozenset({Call, Reply, Calls, Replies, Tensor})  # those that come with it, as a rule


class Conversation:
    """Posts messages and delivers them whole: a message is delivered once its payload has arrived.

    Where a large payload makes a message wait, those that must not overtake it wait too: calls for earlier calls,
    what concerns a call for that call, the items and the end of a stream for earlier items of it. Anything else
    passes by. What keeps the values and actors that a payload mentions arrives with the message, ahead of the payload.

    What ``anywhere`` allows is delivered on whichever thread reads it; without it, all is on the I/O loop.

    Buffers in the arena, which both sides must have in common, do not travel at all: the message says where they are.
    Where only the node that relays has it in common with this side, as ``landing``, the chunks say so.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Message], None],
        need_bulk: Callable[[], None],
        passage: Passage | None = None,
        arena: Arena | None = None,
        *,
        anywhere: Callable[[Message], bool] | None = None,
        age: Callable[[], int] = lambda: 0,
        landing: Arena | None = None,
    ) -> None:
        self.control = Lane(loop, self._arrived, self._is_plain if anywhere is not None else None, age)
        self._anywhere = anywhere
        self.bulk = Lane(loop, self._chunk, age=age, manner=BULK)
        self._loop = loop
        self._deliver = deliver
        self._need_bulk = need_bulk
        self._passage = passage
        self._arena = arena
        self._landing = landing
        self._numbers = count(1)
        self._outgoing: deque[tuple[int, Payload]] = deque()
        self._feeder: asyncio.Task[None] | None = None
        self._closed = False
        self._assemblies: dict[int, Assembly] = {}
        self._whole: dict[int, Callable[[Carrying], Carrying]] = {}  # what has arrived fills the message
        self._held: dict[Order, deque[Message]] = {}  # messages held back by the first of them
        self._awaited: dict[int, Order] = {}  # what the payload of a transfer lets go on

    def post(self, message: Message, *, at_once: bool = False) -> None:
        """Takes a message over from any thread; a large payload goes by the bulk lane. Once closed, drops it.

        Args:
            message: the message.
            at_once: see `Lane.post`.
        """
        if self._closed:
            return
        size = 0
        if not isinstance(message, _BARE) and isinstance(message.payload, Payload):
            payload = message.payload
            size = payload.nbytes if payload.buffers else len(payload.pickle)
            if size <= INLINE_BYTES and not payload.holds:
                self.control.post(message, size, at_once=at_once)
                return
            if payload.holds and self._passage is not None:
                payload = replace(payload, holds=self._passage.lend(payload.holds))
                message = replace(message, payload=payload)
            if size > INLINE_BYTES and self._arena is not None:
                payload, size = _shared(payload, self._arena)
                message = replace(message, payload=payload)
            if size > INLINE_BYTES:
                transfer = next(self._numbers)
                self.control.post(replace(message, payload=Transfer(transfer, payload.holds)))
                self._outgoing.append((transfer, payload))
                self._loop.call_soon_threadsafe(self._feed)
            else:
                self.control.post(message, size + CLAIM_BYTES * len(payload.holds))
            if payload.holds and self._closed and self._passage is not None:  # meanwhile, by the I/O loop
                self._passage.close()
            return
        self.control.post(message, size)

    def _feed(self) -> None:
        if self._closed:
            return
        self._need_bulk()
        if self._feeder is None or self._feeder.done():
            self._feeder = self._loop.create_task(self._feed_all())

    async def _feed_all(self) -> None:
        while self._outgoing:
            transfer, payload = self._outgoing.popleft()
            heap.use()
            for chunk in chunks(transfer, payload, self._landing):
                await self.bulk.room(WINDOW_BYTES)
                self.bulk.post(chunk, chunk.nbytes)

    def _arrived(self, message: Message) -> None:
        if not self._held and _is_all_there(message):
            self._deliver(message)
            return
        if isinstance(message, Chunk):
            raise MalformedMessageError("a chunk came on the control lane")
        if not isinstance(message, Credit | Cancel) and message.payload.holds and self._passage is not None:
            message = replace(
                message, payload=replace(message.payload, holds=self._passage.take(message.payload.holds))
            )
        if not isinstance(message, Credit | Cancel) and isinstance(message.payload, Payload) and message.payload.shared:
            message = self._mapped(message, message.payload)
        order = self._order(message)
        if order in self._held:
            self._held[order].append(message)
        elif _transfer(message) is None:
            self._deliver(message)
        else:
            self._held[order] = deque([message])
            self._release(order)

    def _is_plain(self, message: Message) -> bool:
        """Whether a message can be delivered on any thread: nothing waits, and nothing has to be counted or mapped."""
        return not self._held and self._anywhere is not None and _is_all_there(message) and self._anywhere(message)

    def _mapped(self, message: Carrying, payload: Payload) -> Carrying:
        if self._arena is None:
            raise MalformedMessageError("it shares memory with a process that has none in common with it")
        buffers = list(payload.buffers)
        try:
            for part, buffer in zip(payload.shared, self._arena.take(payload.shared), strict=True):
                buffers[part.index] = buffer
        except (ValueError, IndexError, FileNotFoundError) as error:
            raise MalformedMessageError(f"memory that was shared cannot be had: {error}") from error
        except (MemoryError, OSError) as error:
            return untaken(message, payload.nbytes + sum(part.size for part in payload.shared), error)
        return replace(message, payload=replace(payload, buffers=tuple(buffers), shared=()))

    def _order(self, message: Message) -> Order:
        match message:
            case Call() | Calls():
                return _CALLS
            case Credit(number) | Cancel(number):
                calls = self._held.get(_CALLS, ())
                return _CALLS if any(_brings(call, number) for call in calls) else ("call", number)
            case Item(number) | Reply(number):
                return ("answer", number)
            case _:
                return ("alone", _transfer(message) or 0)

    def _release(self, order: Order) -> None:
        """Delivers what was held back, up to the next message whose payload is still on its way."""
        held = self._held[order]
        while held:
            message = held[0]
            transfer = _transfer(message)
            if transfer is not None:
                fill = self._whole.pop(transfer, None)
                if fill is None:
                    self._awaited[transfer] = order
                    self._need_bulk()
                    return
                assert not isinstance(message, Credit | Cancel | Chunk)
                message = fill(message)
            held.popleft()
            self._deliver(message)
        self._held.pop(order, None)  # a delivery may have closed this conversation

    def _chunk(self, message: Message) -> None:
        if not isinstance(message, Chunk):
            raise MalformedMessageError(f"a {type(message).__name__.lower()} came on the bulk lane")
        number = message.transfer
        assembly = self._assemblies.get(number)
        if assembly is None:
            heap.use()
            assembly = self._assemblies[number] = Assembly(message.sizes, self._landing)
        assembly.add(message)
        if assembly.complete:
            del self._assemblies[number]
            self._whole[number] = _filling(assembly)
            order = self._awaited.pop(number, None)
            if order is not None:
                self._release(order)

    @property
    def idle(self) -> bool:
        """Whether the other side has everything that was posted."""
        feeding = self._feeder is not None and not self._feeder.done()
        return not (self._outgoing or feeding) and self.control.session.idle and self.bulk.session.idle

    async def drained(self) -> None:
        """Waits until the other side has everything that was posted."""
        if self._outgoing:
            self._feed()  # what was posted just now may not have been taken up yet
        if self._feeder is not None:
            await asyncio.wait({self._feeder})
        await self.control.drained()
        await self.bulk.drained()

    async def farewell(self, reason: str, code: int = 0) -> None:
        """Says goodbye on both lanes."""
        await self.control.farewell(reason, code)
        await self.bulk.farewell(reason, code)

    def close(self) -> None:
        """Drops what is unsent and half received, and all that is posted from now on."""
        self._closed = True
        for store in (self._outgoing, self._assemblies, self._whole, self._held, self._awaited):
            store.clear()
        if self._feeder is not None:
            self._feeder.cancel()
        self.control.close()
        self.bulk.close()
        if self._passage is not None:
            self._passage.close()


def _shared(payload: Payload, arena: Arena) -> tuple[Payload, int]:
    """Leaves out the buffers that the other side can map, where few bytes are left then; returns how many are left."""
    shared = arena.lend(payload.buffers)
    size = payload.nbytes - sum(part.size for part in shared) + SHARED_BYTES * len(shared)
    if size > INLINE_BYTES:
        return payload, payload.nbytes
    buffers = list(payload.buffers)
    for part in shared:
        buffers[part.index] = b""
    return replace(payload, buffers=tuple(buffers), shared=shared), size


def _is_all_there(message: Message) -> bool:
    """Whether it is one of `_WHOLE` whose payload came with it, and mentions and shares nothing."""
    if type(message) not in _WHOLE:
        return False
    payload = message.payload  # type: ignore[union-attr]  # as all of these have
    return type(payload) is Payload and not payload.holds and not payload.shared


def _brings(message: Message, number: int) -> bool:
    """Whether a message brings the call with this number."""
    if isinstance(message, Calls):
        return number in message.numbers
    return isinstance(message, Call) and message.number == number


def _transfer(message: Message) -> int | None:
    """Returns the number of the transfer that brings the message's payload; None where it has all it needs."""
    if isinstance(message, Credit | Cancel | Chunk) or not isinstance(message.payload, Transfer):
        return None
    return message.payload.number


def _filling(assembly: Assembly) -> Callable[[Carrying], Carrying]:
    """Returns what puts the payload that has arrived into its message."""
    try:
        payload = assembly.payload()
    except (MemoryError, OSError) as error:
        nbytes, why = assembly.nbytes, error.with_traceback(None)
        return lambda message: untaken(message, nbytes, why)
    return lambda message: replace(message, payload=replace(payload, holds=message.payload.holds))
