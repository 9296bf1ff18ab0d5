"""Values in the order in which they come, and a function over many values: in the manner of dask."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import queue
import time
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar, cast, overload

import actors
from actors.exceptions import GetTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
I_co = TypeVar("I_co", covariant=True)

_SLICE_SECONDS = 0.2  # a wait without end would not see a Ctrl-C that another thread's handler took


class AsCompleted(Generic[I_co]):
    """Gives references as their values come; see `as_completed`. For one thread, or one event loop."""

    def __init__(self, refs: Iterable[actors.ObjectRef[Any]], with_results: bool, timeout: float | None) -> None:
        self._waiting: set[actors.ObjectRef[Any]] = set()
        self._ready: queue.SimpleQueue[actors.ObjectRef[Any]] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None  # on which it is iterated
        self._bell = asyncio.Event()
        self._with_results = with_results
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self.update(refs)

    def add(self, ref: actors.ObjectRef[Any]) -> None:
        """Waits for one more.

        Raises:
            TypeError: it is no reference.
        """
        if not isinstance(ref, actors.ObjectRef):
            raise TypeError(f"as_completed takes ObjectRefs, not a {type(ref).__name__}")
        if ref not in self._waiting:
            self._waiting.add(ref)
            ref.pending.add_done_callback(lambda _: self._came(ref))

    def _came(self, ref: actors.ObjectRef[Any]) -> None:
        self._ready.put(ref)
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: nobody iterates any more
                loop.call_soon_threadsafe(self._bell.set)

    def update(self, refs: Iterable[actors.ObjectRef[Any]]) -> None:
        """Waits for more."""
        for ref in refs:
            self.add(ref)

    def count(self) -> int:
        """Returns how many have not been given yet."""
        return len(self._waiting)

    def has_ready(self) -> bool:
        """Whether the next one is there."""
        return not self._ready.empty()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> I_co:
        if not self._waiting:
            raise StopIteration
        while True:
            try:
                return self._given(self._ready.get(timeout=self._slice()))
            except queue.Empty:
                self._check()
                if len(self._waiting) == 1:  # so that actors which wait for each other in a circle are told
                    actors.wait(list(self._waiting), timeout=self._left())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> I_co:
        if not self._waiting:
            raise StopAsyncIteration
        self._loop = asyncio.get_running_loop()
        while True:
            self._bell.clear()
            if self.has_ready():
                return self._given(self._ready.get())
            self._check()
            with contextlib.suppress(TimeoutError):  # in slices: else an interrupt is not seen
                async with asyncio.timeout(self._slice()):
                    await self._bell.wait()

    def _slice(self) -> float:
        return _SLICE_SECONDS if self._deadline is None else min(_SLICE_SECONDS, max(0.0, self._left() or 0.0))

    def _left(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _check(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise GetTimeoutError(f"{len(self._waiting)} values were not there within {self._timeout:g} s")

    def _given(self, ref: actors.ObjectRef[Any]) -> I_co:
        self._waiting.discard(ref)
        given: Any = (ref, actors.get(ref)) if self._with_results else ref
        return cast("I_co", given)


@overload
def as_completed(
    refs: Iterable[actors.ObjectRef[T]] = ..., *, with_results: Literal[False] = ..., timeout: float | None = ...
) -> AsCompleted[actors.ObjectRef[T]]: ...
@overload
def as_completed(
    refs: Iterable[actors.ObjectRef[T]] = ..., *, with_results: Literal[True], timeout: float | None = ...
) -> AsCompleted[tuple[actors.ObjectRef[T], T]]: ...
def as_completed(
    refs: Iterable[actors.ObjectRef[Any]] = (), *, with_results: bool = False, timeout: float | None = None
) -> AsCompleted[Any]:
    """Returns an iterator, and async iterator, over references in the order in which their values come.

    More may be given to it meanwhile, by ``add`` and ``update``.

    Args:
        refs: each is given once.
        with_results: give ``(ref, value)``; a method that raised raises at its turn, and the iterator goes on after.
        timeout: seconds for all of them, from now.

    Raises:
        TypeError: one is no reference.
        GetTimeoutError: by the iterator: the time is over.
    """
    return AsCompleted(refs, with_results, timeout)


def map(function: Callable[..., T], /, *iterables: Iterable[Any], **options: Any) -> list[actors.ObjectRef[T]]:
    """Runs a function once for each value, on warm workers anywhere; returns the references in that order, at once.

    Args:
        function: called with one value of each iterable; plain, or of `actors.remote`.
        iterables: of the values; the shortest ends it.
        options: of the tasks, see `actors.options.TaskOptions`.

    Raises:
        TypeError: it cannot be called with so many values, or one cannot be pickled.
    """
    if not iterables:
        raise TypeError("actors.util.map needs something to go through: map(function, values)")
    task: Any = function if hasattr(function, "remote") else actors.remote(function)
    if options:
        task = task.options(**options)
    return [task.remote(*values) for values in builtins.zip(*iterables, strict=False)]
