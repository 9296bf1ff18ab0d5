"""The answer of a service, as who asked waits for it."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorDiedError, NodeDiedError
from actors.failure import unpack
from actors.messages import Outcome, Payload
from actors.serialize import loads

if TYPE_CHECKING:
    from actors.address import Address
    from actors.exceptions import Verdict
    from actors.messages import Reply
    from actors.transport.peer import Death


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
