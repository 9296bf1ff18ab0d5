"""Services: what a process itself answers, on the I/O loop, beside the actors it hosts."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Protocol

from actors.failure import Place, pack
from actors.messages import Call, Outcome, Payload, Reply
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from actors.messages import Calls, Cancel
    from actors.runtime import Running
    from actors.transport.acceptor import Visitor
    from actors.transport.answers import Answers


class Target(Protocol):
    """What a call can be meant for. Called on the I/O loop; must be quick and must not raise."""

    def called(self, call: Call, visitor: Visitor) -> None:
        """A call came. It must be answered exactly once, by ``visitor.post(Reply(...))``."""

    def called_together(self, calls: Calls, visitor: Answers) -> bool:
        """Calls came in one message; returns False where each is to be `called` by itself."""

    def anywhere(self, call: Call | Calls) -> bool:
        """Whether `called` may be called on any thread with this call, or with these."""

    def credited(self, session: str, number: int, upto: int) -> None:
        """The caller takes items of its call up to this count."""

    def cancelled(self, session: str, cancel: Cancel) -> None:
        """The caller no longer wants the answer of its call."""

    def in_the_way(self, key: tuple[str, int]) -> Running | None:
        """Returns the call that must end before this one can; itself, where it runs. None where nothing must."""


class Service:
    """Makes the public methods of an object callable from other processes.

    A method is called with the visitor first, then the caller's arguments. What it returns is the answer; where that is
    a coroutine, what that returns, and others are answered meanwhile.
    """

    def __init__(self, name: str, instance: object) -> None:
        self._name = name
        self._instance = instance
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}

    def called(self, call: Call, visitor: Visitor) -> None:
        """See `Target`."""
        try:
            found = self._call(call, visitor)
        except Exception as error:
            self._failed(call, visitor, error)
            return
        if not asyncio.iscoroutine(found):
            self._answer(call, visitor, found)
            return
        task = asyncio.get_running_loop().create_task(self._wait(call, visitor, found))
        key = (visitor.session, call.number)
        self._running[key] = task
        task.add_done_callback(lambda _: self._over(key, found))

    def _over(self, key: tuple[str, int], found: Coroutine[Any, Any, object]) -> None:
        self._running.pop(key, None)
        found.close()  # where the task was cancelled before it began, nobody else does

    def called_together(self, _calls: Calls, _visitor: Answers) -> bool:
        """See `Target`."""
        return False

    def anywhere(self, _: Call | Calls) -> bool:
        """See `Target`."""
        return False

    def _call(self, call: Call, visitor: Visitor) -> object:
        assert isinstance(call.payload, Payload)
        args, kwargs = loads(call.payload)
        method = None if call.method.startswith("_") else getattr(self._instance, call.method, None)
        if method is None:
            raise AttributeError(f"{self._name} has no method {call.method!r}")
        found: object = method(visitor, *args, **kwargs)
        return found

    async def _wait(self, call: Call, visitor: Visitor, found: Coroutine[Any, Any, object]) -> None:
        try:
            value = await found
        except Exception as error:
            self._failed(call, visitor, error)
        else:
            self._answer(call, visitor, value)

    def _answer(self, call: Call, visitor: Visitor, value: object) -> None:
        try:
            payload = dumps(value)
        except Exception as error:
            self._failed(call, visitor, error)
        else:
            visitor.post(Reply(call.number, Outcome.VALUE, payload))

    def _failed(self, call: Call, visitor: Visitor, error: Exception) -> None:
        place = Place(node="", actor=self._name, method=call.method, pid=os.getpid())
        visitor.post(Reply(call.number, Outcome.RAISED, pack(error, place)))

    def credited(self, session: str, number: int, upto: int) -> None:
        """See `Target`: a service streams nothing."""

    def cancelled(self, session: str, cancel: Cancel) -> None:
        """See `Target`."""
        task = self._running.get((session, cancel.number))
        if task is not None:
            task.cancel()

    def in_the_way(self, key: tuple[str, int]) -> None:
        """See `Target`: a service's calls wait for nobody."""
