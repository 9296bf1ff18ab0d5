"""Services: what a process itself answers, on the I/O loop, beside the actors it hosts."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol

from actors.failure import Place, pack
from actors.messages import Call, Outcome, Payload, Reply
from actors.serialize import dumps, loads

if TYPE_CHECKING:
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
    """Makes the public coroutine methods of an object callable from other processes.

    A method is called with the visitor first, then the caller's arguments.
    """

    def __init__(self, name: str, instance: object) -> None:
        self._name = name
        self._instance = instance
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}

    def called(self, call: Call, visitor: Visitor) -> None:
        """See `Target`."""
        task = asyncio.get_running_loop().create_task(self._answer(call, visitor))
        key = (visitor.session, call.number)
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key, None))

    def called_together(self, _calls: Calls, _visitor: Answers) -> bool:
        """See `Target`."""
        return False

    def anywhere(self, _: Call | Calls) -> bool:
        """See `Target`."""
        return False

    async def _answer(self, call: Call, visitor: Visitor) -> None:
        assert isinstance(call.payload, Payload)
        try:
            args, kwargs = loads(call.payload)
            method = None if call.method.startswith("_") else getattr(self._instance, call.method, None)
            if method is None:
                raise AttributeError(f"{self._name} has no method {call.method!r}")
            payload = dumps(await method(visitor, *args, **kwargs))
        except Exception as error:
            place = Place(node="", actor=self._name, method=call.method, pid=os.getpid())
            visitor.post(Reply(call.number, Outcome.RAISED, pack(error, place)))
        else:
            visitor.post(Reply(call.number, Outcome.VALUE, payload))

    def credited(self, session: str, number: int, upto: int) -> None:
        """See `Target`: a service streams nothing."""

    def cancelled(self, session: str, cancel: Cancel) -> None:
        """See `Target`."""
        task = self._running.get((session, cancel.number))
        if task is not None:
            task.cancel()

    def in_the_way(self, key: tuple[str, int]) -> None:
        """See `Target`: a service's calls wait for nobody."""
