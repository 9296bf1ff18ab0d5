"""Waits: who in this process is blocked on what, and whether actors wait for each other in a circle.

A call that has waited for a while asks along what it waits for: the call that shall give the value, the call that is
in its way, what that one waits for, and so on (edge chasing, after Chandy, Misra and Haas, 1983). Where the question
comes back, nobody in the circle can ever go on, and the call that was the last to wait raises.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from actors.exceptions import ActorCycleError, ActorsError, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.address import Address
    from actors.keeper import Value
    from actors.process import Process
    from actors.runtime import Running
    from actors.transport.acceptor import Visitor

PATIENCE_SECONDS = 0.1  # most waits are over by then, and cost nothing
LONGEST_CHAIN = 100
ASK_SECONDS = 5.0
AGAIN_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0

Path = tuple["Link", ...]
"""The waits a question has come by, the first being the one that asked."""


@dataclass(frozen=True, slots=True)
class Link:
    """A call that waits.

    Attributes:
        process: where it runs.
        key: which call of that process it is.
        label: of it, for messages.
        age: seconds it has waited when it was asked.
    """

    process: str
    key: tuple[str, int]
    label: str
    age: float


@dataclass(slots=True, eq=False)
class Wait:
    """A call of this process that waits.

    Attributes:
        running: the call.
        values: what it waits for, all of it; with the process that owns it.
        since: when it began, on the clock of `time.monotonic`.
        error: raised by the wait, once it is known that it would never end.
    """

    running: Running
    values: Sequence[tuple[Value, Address]]
    since: float = field(default_factory=time.monotonic)
    error: ActorCycleError | None = None

    @property
    def age(self) -> float:
        """Seconds it has waited."""
        return time.monotonic() - self.since


class Waits:
    """The waits of this process, and the service ``"waits"``, by which others ask about them.

    Args:
        process: this process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._lock = threading.Lock()
        self._waits: dict[tuple[str, int], list[Wait]] = {}

    @contextmanager
    def waiting(self, running: Running, values: Sequence[tuple[Value, Address]]) -> Iterator[Wait]:
        """Holds a call for one that waits; entered once it has done so for `PATIENCE_SECONDS`.

        Args:
            running: the call.
            values: what it waits for without end, all of it; none where it will give up by itself.
        """
        wait = Wait(running, values)
        with self._lock:
            self._waits.setdefault(running.key, []).append(wait)
        question = self._process.portal.start(self._ask(wait)) if values else None
        task = running.actor is not None and running.actor.spec.task
        if task:
            self._tell_node("blocked")
        try:
            yield wait
        finally:
            if question is not None:
                question.cancel()
            if task:
                self._tell_node("unblocked")
            with self._lock:
                waits = self._waits[running.key]
                waits.remove(wait)
                if not waits:
                    del self._waits[running.key]

    def of(self, key: tuple[str, int]) -> list[Wait]:
        """Returns what a call of this process is blocked on."""
        with self._lock:
            return list(self._waits.get(key, ()))

    def _tell_node(self, what: str) -> None:
        """A task that waits gives its CPUs back for that time, or the tasks it waits for might never have one."""
        if self._process.home is not None:
            self._process.portal.soon(self._process.tell, self._process.home, "node", what, self._process.id)

    async def _ask(self, wait: Wait) -> None:
        """Asks until the wait is over or known to be endless: others of a circle may begin to wait later."""
        pause = AGAIN_SECONDS
        while wait.error is None:
            await self._ask_once(wait)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _ask_once(self, wait: Wait) -> None:
        me = self._link(wait)
        begun = time.monotonic()
        path = await self._follow(wait, (me,))
        if path is None:
            return
        half = (time.monotonic() - begun) / 2
        # Of all in the circle one shall raise: the last to wait. The others were asked half-way, by and large.
        if all(me.age + half <= link.age for link in path[1:]):
            story = ", which waits for ".join(link.label for link in (*path, me))
            wait.error = ActorCycleError(
                f"actors wait for each other in a circle: {story}. None of them can go on. Call without waiting, make "
                "one of the methods async (an async actor takes calls while it waits), or give it max_concurrency=2",
                actor=wait.running.label,
                method=wait.running.method,
                verdict=Verdict.NEVER_STARTED,
            )

    def _link(self, wait: Wait) -> Link:
        running = wait.running
        return Link(self._process.id, running.key, f"{running.label}.{running.method}", wait.age)

    async def _follow(self, wait: Wait, path: Path) -> Path | None:
        """Asks about all that a wait is for; returns the circle if it is part of one."""
        for value, owner in wait.values:
            if value.future.done():
                continue
            found = await self._trace(value, owner, path)
            if found is not None:
                return found
        return None

    async def _trace(self, value: Value, owner: Address, path: Path) -> Path | None:
        try:
            if owner.process != self._process.id:
                found = await self._process.ask(owner, "waits", "about_value", value.id, path, timeout=ASK_SECONDS)
            elif (call := value.call) is not None and call.number is not None and call.peer is not None:
                number, peer = call.number, call.peer
                found = await self._process.ask(
                    peer.address, "waits", "about_call", call.target, number, path, timeout=ASK_SECONDS
                )
            else:
                return None
        except (ActorsError, TimeoutError):
            return None  # who does not answer now is no proof of a circle
        return found  # type: ignore[no-any-return]

    # -- the service --------------------------------------------------------------------------------------------

    async def about_value(self, _: Visitor, id: str, path: Path) -> Path | None:
        """Follows what a value of this process waits for."""
        value = self._process.keeper.find(id)
        if value is None or value.future.done():
            return None
        return await self._trace(value, self._process.address, path)

    async def about_call(self, visitor: Visitor, actor: str, number: int, path: Path) -> Path | None:
        """Follows what a call of the asking process waits for; returns the circle if there is one."""
        target = self._process.target(actor)
        blocking = target.in_the_way((visitor.session, number)) if target is not None else None
        return await self._through(blocking, path) if blocking is not None else None

    async def _through(self, running: Running, path: Path) -> Path | None:
        if (self._process.id, running.key) == (path[0].process, path[0].key):
            return path
        if len(path) >= LONGEST_CHAIN or any(link.key == running.key for link in path):
            return None
        with self._lock:
            waits = list(self._waits.get(running.key, ()))
        for wait in waits:
            found = await self._follow(wait, (*path, self._link(wait)))
            if found is not None:
                return found
        return None
