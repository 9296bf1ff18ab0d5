"""The doors of a node, raced: it announces all its addresses, and which of them lead to it only a try can tell."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from actors.transport.link import GoneError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

STAGGER_SECONDS = 0.1
"""Before the next door is tried beside the one that has not answered yet."""

GRACE_SECONDS = 0.5
"""For the other doors, once the one that answered last refuses: then the node has ended."""


class Opened(Protocol):
    """What lies behind a door that has answered."""

    async def close(self) -> None:
        """Gives it back."""


OpenedT = TypeVar("OpenedT", bound=Opened)


class Doors:
    """Tries a node's doors side by side, and remembers which one answered: the next time it is tried first."""

    def __init__(self) -> None:
        self._answered: dict[str, str] = {}

    async def open(self, node: str, doors: Sequence[str], attempt: Callable[[str], Awaitable[OpenedT]]) -> OpenedT:
        """Returns what the first door to answer gives; all other attempts are ended.

        Args:
            node: id of the node.
            doors: where it may be, best first.
            attempt: opens one door, with proof that this node is behind it.

        Raises:
            GoneError: the node has ended: the door that answered last, or every one, refuses.
            UnreachableError: none has answered.
        """
        best = self._answered.get(node)
        ordered = sorted(dict.fromkeys(doors), key=lambda door: door != best)
        race = _Race(ordered, best, attempt)
        try:
            door, opened = await race.run()
        finally:
            await race.close()
        self._answered[node] = door
        return opened


class _Race(Generic[OpenedT]):
    """One race. ``close`` ends what is still under way."""

    def __init__(self, doors: Sequence[str], best: str | None, attempt: Callable[[str], Awaitable[OpenedT]]) -> None:
        self._waiting = list(doors)
        self._best = best
        self._attempt = attempt
        self._running: dict[asyncio.Task[OpenedT], str] = {}
        self._failed: dict[str, GoneError | UnreachableError] = {}

    async def run(self) -> tuple[str, OpenedT]:
        loop = asyncio.get_running_loop()
        verdict_at: float | None = None
        while self._waiting or self._running:
            if self._waiting:
                door = self._waiting.pop(0)
                self._running[asyncio.ensure_future(self._one(door))] = door
            pause = STAGGER_SECONDS if self._waiting else None
            if verdict_at is not None:
                left = max(0.0, verdict_at - loop.time())
                pause = left if pause is None else min(pause, left)
            done, _ = await asyncio.wait(self._running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task.exception() is None:
                    return self._running.pop(task), task.result()
                self._note(self._running.pop(task), task.exception())
            if verdict_at is None and isinstance(self._failed.get(self._best or ""), GoneError):
                verdict_at = loop.time() + GRACE_SECONDS
            if verdict_at is not None and loop.time() >= verdict_at:
                break
        raise self._verdict()

    async def _one(self, door: str) -> OpenedT:
        return await self._attempt(door)

    def _note(self, door: str, error: BaseException | None) -> None:
        if not isinstance(error, GoneError | UnreachableError):
            assert error is not None
            raise error
        self._failed[door] = error

    def _verdict(self) -> GoneError | UnreachableError:
        errors = list(self._failed.values())
        best = self._failed.get(self._best or "")
        if len(errors) == 1 or isinstance(best, GoneError):
            return best or errors[0]
        if all(isinstance(error, GoneError) for error in errors):
            return errors[0]
        return UnreachableError("; ".join(str(error) for error in errors))

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        for task in self._running:
            with contextlib.suppress(asyncio.CancelledError, GoneError, UnreachableError, OSError):
                await (await task).close()  # it came second
