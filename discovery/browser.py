"""A view of the nodes that are there: events, a snapshot, and waiting, from plain and from async code."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from typing import TYPE_CHECKING, TypeAlias

from .errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Mapping
    from types import TracebackType
    from typing import Protocol, Self

    from .record import Event, NodeRecord
    from .roster import Roster

    class Scope(Protocol):
        """What is open while the browser is; it closes the roster at its end."""

        def __enter__(self) -> object: ...
        def __exit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
        ) -> object: ...
        async def __aenter__(self) -> object: ...
        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
        ) -> object: ...


Wanted: TypeAlias = "int | Callable[[Mapping[str, NodeRecord]], bool]"
"""What to wait for: so many nodes, or a predicate over the records by id."""


class Browser:
    """The nodes that are there, in a ``with`` or an ``async with`` block. Its methods may be called from any thread.

    Made by `browse` and `fixed`. It also sees nodes of this machine and of this process.
    """

    def __init__(self, roster: Roster, scope: Scope, on_event: Callable[[Event], None] | None) -> None:
        self._roster = roster
        self._scope = scope
        self._entered = False
        self._on_event = on_event

    def __enter__(self) -> Self:
        self._begin()
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scope.__exit__(kind, error, trace)

    async def __aenter__(self) -> Self:
        self._begin()
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.__aexit__(kind, error, trace)

    def records(self) -> dict[str, NodeRecord]:
        """The nodes known now, by id."""
        return self._roster.records()

    def events(self, timeout: float | None = None) -> Generator[Event, None, None]:
        """Every known node as `Found`, and then what happens.

        Each iteration is independent of others and misses nothing.

        Args:
            timeout: Seconds after which the iteration ends; None goes on until the browser is closed.

        Raises:
            DiscoveryError: The browser was not entered.
        """
        self._must_be_entered()
        return self._events(timeout)

    def __aiter__(self) -> AsyncIterator[Event]:
        """As `events`, until the browser is closed; `asyncio.timeout` ends it sooner."""
        self._must_be_entered()
        return self._async_events()

    def wait_for(self, wanted: Wanted, timeout: float = 10.0) -> dict[str, NodeRecord]:
        """Wait until there are enough nodes, or the right ones.

        Args:
            wanted: At least so many nodes, or a predicate over the records by id.
            timeout: Seconds to wait.

        Returns:
            The records by id with which it was so.

        Raises:
            TimeoutError: It was not so in time; the message says what was found.
            DiscoveryError: The browser was not entered, or was closed meanwhile.
        """
        condition = _condition(wanted)
        if condition(records := self.records()):
            return records
        deadline = time.monotonic() + timeout
        with contextlib.closing(self.events(timeout)) as events:
            for _ in events:
                if condition(records := self.records()):
                    return records
        raise self._unmet(wanted, timeout, closed=time.monotonic() < deadline)

    async def until(self, wanted: Wanted, timeout: float = 10.0) -> dict[str, NodeRecord]:
        """As `wait_for`, without blocking the event loop."""
        condition = _condition(wanted)
        if condition(records := self.records()):
            return records
        self._must_be_entered()
        try:
            async with asyncio.timeout(timeout), contextlib.aclosing(self._async_events()) as events:
                async for _ in events:
                    if condition(records := self.records()):
                        return records
        except TimeoutError:
            raise self._unmet(wanted, timeout, closed=False) from None
        raise self._unmet(wanted, timeout, closed=True)

    def _begin(self) -> None:
        if self._entered:
            raise DiscoveryError("this browser was entered before; make a new one for another `with` block")
        self._entered = True
        on_event = self._on_event
        if on_event is not None:
            self._roster.listen(lambda event: None if event is None else on_event(event))

    def _must_be_entered(self) -> None:
        if not self._entered:
            raise DiscoveryError("this browser is not open: use it inside `with browse(...) as browser:`")

    def _events(self, timeout: float | None) -> Generator[Event, None, None]:
        deadline = None if timeout is None else time.monotonic() + timeout
        arrived: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._roster.listen(arrived.put)
        try:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                event = arrived.get(timeout=left)
                if event is None:
                    return
                yield event
        except queue.Empty:
            return
        finally:
            self._roster.forget(arrived.put)

    async def _async_events(self) -> AsyncGenerator[Event, None]:
        loop = asyncio.get_running_loop()
        arrived: asyncio.Queue[Event | None] = asyncio.Queue()

        def put(event: Event | None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed over an unfinished iteration
                loop.call_soon_threadsafe(arrived.put_nowait, event)

        self._roster.listen(put)
        try:
            while (event := await arrived.get()) is not None:
                yield event
        finally:
            self._roster.forget(put)

    def _unmet(self, wanted: Wanted, timeout: float, *, closed: bool) -> Exception:
        names = sorted(f"{record.name} ({record.id[:8]})" for record in self.records().values())
        found = f"found {len(names)}: {', '.join(names)}" if names else "found no node"
        if closed:
            return DiscoveryError(f"the browser was closed while waiting; {found}")
        goal = f"{wanted} node{'' if wanted == 1 else 's'}" if isinstance(wanted, int) else "the wanted nodes"
        return TimeoutError(
            f"waited {timeout:g} s for {goal}; {found}. Are they started, in the same network, "
            "and does it let multicast (UDP port 5353) through?"
        )


def _condition(wanted: Wanted) -> Callable[[Mapping[str, NodeRecord]], bool]:
    if isinstance(wanted, int):
        return lambda records: len(records) >= wanted
    return wanted
