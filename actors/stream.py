"""Streams: what a generator method yields, read as it is made."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from actors.messages import STREAM_WINDOW, Outcome, Payload
from actors.opencall import OpenCall
from actors.refs import AWAIT_SLICE_SECONDS, ObjectRef, Pending
from actors.sealed import Sealed
from actors.transport.portal import wait

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from actors.address import Address
    from actors.keeper import Keeper, Value
    from actors.messages import Item
    from actors.opencall import Way
    from actors.transport.peer import Party

T_co = TypeVar("T_co", covariant=True)


class Stream(OpenCall):
    """The call of a generator method, at its caller."""

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        way: Way,
        method: str,
        payload: Payload,
        needs: list[Future[Sealed]],
        keeper: Keeper,
        owner: Address,
    ) -> None:
        super().__init__(way, method, payload, needs)
        self._keeper = keeper
        self._owner = owner
        self._lock = threading.Lock()
        self._futures: dict[int, Future[ObjectRef[Any] | None]] = {}
        self._made = 0  # items that have come
        self._read = 0  # items that were asked for
        self._ended = False

    def sent(self, peer: Party, target: str, number: int) -> None:
        """See `OpenCall`: what was asked for before is credited now."""
        super().sent(peer, target, number)
        if self._read:
            peer.credit(number, self._read + STREAM_WINDOW)

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""
        assert isinstance(item.payload, Payload)
        self._append(Sealed(Outcome.VALUE, item.payload))

    def settle(self, sealed: Sealed) -> None:
        """The stream is over; an error is its last item."""
        if sealed.outcome is not Outcome.VALUE:
            self._append(sealed)
        with self._lock:
            self._ended = True
            waiting = [future for index, future in self._futures.items() if index >= self._made]
        for future in waiting:
            future.set_result(None)

    def _append(self, sealed: Sealed) -> None:
        value: Value = self._keeper.new_value()
        value.settle(sealed)
        with self._lock:
            future = self._slot(self._made)
            self._made += 1
        future.set_result(ObjectRef(value, self._owner, self))

    def _slot(self, index: int) -> Future[ObjectRef[Any] | None]:
        if index not in self._futures:
            future = self._futures[index] = Future()
            future.set_running_or_notify_cancel()
        return self._futures[index]

    def next(self) -> Future[ObjectRef[Any] | None]:
        """Returns the future of the next item; None stands for the end."""
        with self._lock:
            index = self._read
            future = self._slot(index)
            if self._ended and index >= self._made:
                if not future.done():
                    future.set_result(None)
                return future
            self._read += 1
            self._futures.pop(index - 1, None)
        number, peer = self.number, self.peer
        if self._read % (STREAM_WINDOW // 2) == 0 and number is not None and peer is not None:
            peer.credit(number, self._read + STREAM_WINDOW)
        return future

    @property
    def ended(self) -> bool:
        """Whether the producer has ended."""
        return self._ended


class ObjectRefGenerator(Pending, Generic[T_co]):
    """What a generator method gives: references to its values, one by one, as they are made.

    The producer stays at most a few items ahead of its reader. Dropping this object, or `close`, stops it. An error
    of the producer is the last item: a reference that raises it.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._asked: Future[ObjectRef[T_co] | None] | None = None  # what an interrupted read was waiting for

    def __repr__(self) -> str:
        state = "ended" if self._stream.ended else "running"
        return f"<ObjectRefGenerator of {self._stream.line.label}.{self._stream.method}: {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("streams do not travel: send the references that one gives")

    def __iter__(self) -> Iterator[ObjectRef[T_co]]:
        return self

    @property
    def pending(self) -> Future[ObjectRef[T_co] | None]:
        """The next reference, or None for the end; for use inside this package."""
        return self._ask()

    def __next__(self) -> ObjectRef[T_co]:
        ref = wait(self._ask())
        self._asked = None
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[T_co]]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        future = asyncio.wrap_future(self._ask())
        while not future.done():
            await asyncio.wait({future}, timeout=AWAIT_SLICE_SECONDS)
        ref = future.result()
        self._asked = None
        if ref is None:
            raise StopAsyncIteration
        return ref

    def _ask(self) -> Future[ObjectRef[T_co] | None]:
        if self._asked is None:
            self._asked = self._stream.next()
        return self._asked

    def close(self, *, force: bool = False, recursive: bool = True) -> None:
        """Stops the producer; what it has sent is dropped."""
        if not self._stream.ended:
            self._stream.cancel(force=force, recursive=recursive)

    def __del__(self) -> None:
        self.close()
