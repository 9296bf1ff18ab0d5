"""A first-in, first-out queue that many processes put into and get from."""

from __future__ import annotations

import asyncio
import queue as local
from collections.abc import Iterable
from typing import Any

import actors
from actors.exceptions import ActorDiedError

# Each waiting `put` or `get` is a call that runs in the queue's actor: with a limit, many of them would keep out the
# one that they wait for.
_WAITING_CALLS = 1_000_000


class Empty(local.Empty):
    """There is nothing to get."""


class Full(local.Full):
    """There is no room to put."""


class Queue:
    """A queue in an actor of its own. It can be passed to other actors, which then use the same queue.

    Args:
        maxsize: how many items it holds at most; 0 for no limit.
        actor_options: options of its actor, such as ``{"name": "jobs", "num_cpus": 0}``.

    Attributes:
        actor: handle of its actor; None after `shutdown`.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        if not isinstance(maxsize, int) or isinstance(maxsize, bool):
            raise TypeError(f"maxsize must be a whole number, not {maxsize!r}")
        self.maxsize = maxsize
        options = {"max_concurrency": _WAITING_CALLS, **(actor_options or {})}
        self.actor: actors.ActorHandle | None = actors.remote(_QueueActor).options(**options).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def __repr__(self) -> str:
        return f"Queue(maxsize={self.maxsize}, actor={self.actor!r})"

    def size(self) -> int:
        """Returns how many items are in the queue."""
        size: int = actors.get(self._actor.qsize.remote())
        return size

    def qsize(self) -> int:
        """Returns how many items are in the queue."""
        return self.size()

    def empty(self) -> bool:
        """Whether there is nothing to get."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether there is no room to put."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Adds an item; of several that wait for room, any may be first.

        Args:
            item: what can be pickled.
            block: wait for room.
            timeout: seconds to wait for it; None waits.

        Raises:
            Full: there was no room, or none in time.
            ValueError: ``timeout`` is negative.
            ActorDiedError: the queue was shut down.
        """
        if not _wait(self._actor.put.remote(item, _patience(block, timeout))):
            raise Full(self._is_full())

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """As `put`, awaited."""
        if not await _answer(self._actor.put.remote(item, _patience(block, timeout))):
            raise Full(self._is_full())

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Takes the next item; of several that wait for one, any may be first.

        Args:
            block: wait for an item.
            timeout: seconds to wait for it; None waits.

        Raises:
            Empty: there was no item, or none in time.
            ValueError: ``timeout`` is negative.
            ActorDiedError: the queue was shut down.
        """
        return _only(_wait(self._actor.get.remote(_patience(block, timeout))))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """As `get`, awaited."""
        return _only(await _answer(self._actor.get.remote(_patience(block, timeout))))

    def put_nowait(self, item: Any) -> None:
        """Same as ``put(item, block=False)``."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Adds all items, in order, or none.

        Raises:
            Full: they do not all fit.
            TypeError: ``items`` is not iterable.
        """
        if not isinstance(items, Iterable):
            raise TypeError(f"items must be an iterable, not {items!r}")
        batch = list(items)
        size = _wait(self._actor.put_batch.remote(batch))
        if size is not None:
            raise Full(f"{len(batch)} items do not fit: the queue holds {size} of at most {self.maxsize}")

    def get_nowait(self) -> Any:
        """Same as ``get(block=False)``."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Takes so many items, in order, or none.

        Raises:
            Empty: there are not so many.
            TypeError: ``num_items`` is no whole number.
            ValueError: ``num_items`` is negative.
        """
        if not isinstance(num_items, int):
            raise TypeError(f"num_items must be a whole number, not {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must not be negative: {num_items}")
        items, size = _wait(self._actor.get_batch.remote(num_items))
        if items is None:
            raise Empty(f"{num_items} items are not there: the queue holds {size}")
        taken: list[Any] = items
        return taken

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """Ends the queue's actor; everybody's later calls raise `ActorDiedError`.

        Args:
            force: end it at once; else calls it was sent before are begun first.
            grace_period_s: seconds to wait for that.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            actors.wait([actor.end.remote()], timeout=grace_period_s)
        actors.kill(actor)

    @property
    def _actor(self) -> actors.ActorHandle:
        if self.actor is None:
            raise ActorDiedError("the queue was shut down here: make another one")
        return self.actor

    def _is_full(self) -> str:
        return f"the queue is full: it holds at most {self.maxsize} items"


def _patience(block: bool, timeout: float | None) -> float | None:
    """Returns how long the actor may wait: 0 for not at all, None for ever."""
    if not block:
        return 0
    if timeout is not None and timeout < 0:
        raise ValueError(f"timeout must not be negative: {timeout}")
    return timeout


def _wait(ref: actors.ObjectRef[Any]) -> Any:
    try:
        return actors.get(ref)
    except KeyboardInterrupt:
        actors.cancel(ref)  # else the call would go on waiting, and take an item for nobody
        raise


async def _answer(ref: actors.ObjectRef[Any]) -> Any:
    try:
        return await ref
    except asyncio.CancelledError:
        actors.cancel(ref)
        raise


def _only(items: tuple[Any, ...]) -> Any:
    if not items:
        raise Empty("the queue is empty")
    return items[0]


class _QueueActor:
    """The items. That there are none, or no room, is an answer here and an exception at the caller."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def qsize(self) -> int:
        return self._queue.qsize()

    async def put(self, item: Any, patience: float | None) -> bool:
        try:
            if patience == 0:
                self._queue.put_nowait(item)
            else:
                await asyncio.wait_for(self._queue.put(item), patience)
        except (asyncio.QueueFull, TimeoutError):
            return False
        return True

    async def get(self, patience: float | None) -> tuple[Any, ...]:
        try:
            if patience == 0:
                return (self._queue.get_nowait(),)
            return (await asyncio.wait_for(self._queue.get(), patience),)
        except (asyncio.QueueEmpty, TimeoutError):
            return ()

    async def put_batch(self, items: list[Any]) -> int | None:
        """Returns None where they are in, else how many items keep them out."""
        size = self._queue.qsize()
        if 0 < self._queue.maxsize < size + len(items):
            return size
        for item in items:
            self._queue.put_nowait(item)
        return None

    async def get_batch(self, count: int) -> tuple[list[Any] | None, int]:
        size = self._queue.qsize()
        if count > size:
            return None, size
        return [self._queue.get_nowait() for _ in range(count)], size

    async def end(self) -> None:
        actors.exit_actor()
