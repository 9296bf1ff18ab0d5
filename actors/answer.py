"""The answer of a service of another process: a future that its one reply, or the end of that process, settles."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorDiedError, NodeDiedError
from actors.messages import Outcome, Payload
from actors.serialize import loads

if TYPE_CHECKING:
    from actors.address import Address
    from actors.exceptions import Verdict
    from actors.messages import Reply
    from actors.transport.peer import Death, Party


async def ask(  # noqa: PLR0917 - as `Party.call`
    party: Party, address: Address, target: str, method: str, payload: Payload, timeout: float | None
) -> Any:
    """Calls a service of another process and returns its answer. Only on the I/O loop.

    Args:
        party: the process.
        address: where it is, for what is said of it.
        target: the service.
        method: of it.
        payload: its arguments.
        timeout: seconds it may take; None for as long as the process lives.

    Raises:
        TimeoutError: no answer in time.
        ActorDiedError: the process is gone; `NodeDiedError` if its node is.
        Exception: whatever the service raised.
    """
    answer = Answer(address)
    number = party.call(target, method, payload, answer)
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.wrap_future(answer.future)
    except asyncio.CancelledError:
        party.cancel(number)
        raise
    except TimeoutError:
        if answer.future.done() and not answer.future.cancelled():
            raise
        party.cancel(number)
        raise TimeoutError(f"node {address.node_name} did not answer {target}.{method} within {timeout:g} s") from None


class Answer:
    """Waits for the answer of a service."""

    __slots__ = ("_address", "future")

    anywhere = False

    def __init__(self, address: Address) -> None:
        self.future: Future[Any] = Future()
        self._address = address

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        if self.future.cancelled():
            return
        assert isinstance(reply.payload, Payload)
        if reply.outcome is Outcome.VALUE:
            self._take(reply.payload)
        elif reply.outcome is Outcome.RAISED:
            from actors.failure import unpack  # late: few need it, and it takes a while to load

            failure = unpack(reply.payload)
            # A service is ours: its own error is what the user shall see, not the way it came.
            self.future.set_exception(getattr(failure, "cause", None) or failure)
        else:
            self.future.set_exception(loads(reply.payload))

    def _take(self, payload: Payload) -> None:
        try:
            value = loads(payload)
        except Exception as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)

    def yielded(self, item: Any) -> None:
        """See `actors.transport.peer.Caller`: a service streams nothing."""

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
        if self.future.cancelled():
            return
        node = death.node or self._address.node_name
        if death.node_too or self._address.is_node:
            error: ActorDiedError = NodeDiedError(f"node {node} is gone: {death.reason}", node=node, verdict=verdict)
        else:
            error = ActorDiedError(f"process {self._address.process} on node {node} is gone: {death.reason}")
        self.future.set_exception(error)
