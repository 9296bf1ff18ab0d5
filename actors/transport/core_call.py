"""A `Stream` call of gRPC's core, without the threads and the event loop that grpc and grpc.aio put between.

Whoever wants the next event waits for it in the core itself. grpc shows this only for calls with one request, so it
takes names of ``cygrpc``: this module alone does, and `AVAILABLE` says whether they are there.
"""

from __future__ import annotations

import enum
import importlib
import time
from typing import Any, Protocol

cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")  # unknown to the stubs

AVAILABLE = all(
    hasattr(cygrpc, name) for name in ("SegregatedCall", "CompletionQueue", "Server", "SendMessageOperation")
)

_NO_FLAGS = 0
_DRAIN_SECONDS = 0.001
_SHUT = cygrpc.CompletionType.queue_shutdown


class Event(enum.Enum):
    """What can happen to a call."""

    MESSAGE = enum.auto()  # one came, or none will
    SENT = enum.auto()  # there is room for the next
    OVER = enum.auto()  # the call has ended
    NUDGE = enum.auto()  # somebody wants whoever waits to look up
    OTHER = enum.auto()


class CoreCall(Protocol):
    """One call. Of its methods only `next` and `drain` wait; these are for one thread at a time.

    Nothing may be begun after `Event.OVER`, and nothing else than `drain` be called once that has been.
    """

    def send(self, data: bytes) -> None:
        """Begins to send a message; the next may be begun after `Event.SENT`."""

    def receive(self) -> None:
        """Wants the next message: it comes with `Event.MESSAGE`."""

    def nudge(self) -> None:
        """Has `Event.NUDGE` happen at once; nothing travels."""

    def next(self) -> tuple[Event, bytes | None]:
        """Waits for what happens next; returns the message with `Event.MESSAGE`, None there if no more will come."""

    def finish(self) -> None:
        """Says that no more will be sent, once all is; the serving end ends the call by it."""

    def cancel(self) -> None:
        """Ends the call at once."""

    def drain(self) -> None:
        """Takes the events that are left, and gives everything back. Not for long: the call has ended."""


class DialledCall:
    """The dialling end; it owns its channel.

    Args:
        channel: a `grpc.Channel`.
        method: path of the method.
    """

    def __init__(self, channel: Any, method: str) -> None:
        self._channel = channel
        begin = (
            ((cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),), Event.OTHER),
            ((cygrpc.ReceiveStatusOnClientOperation(_NO_FLAGS),), Event.OVER),
            ((cygrpc.ReceiveInitialMetadataOperation(_NO_FLAGS),), Event.OTHER),
        )
        propagate = cygrpc.PropagationConstants.GRPC_PROPAGATE_DEFAULTS
        core = channel._channel  # noqa: SLF001 - there is no public way
        self._call = core.segregated_call(propagate, method.encode(), None, None, None, None, begin, None)

    def send(self, data: bytes) -> None:
        """See `CoreCall`."""
        self._call.operate((cygrpc.SendMessageOperation(data, _NO_FLAGS),), Event.SENT)

    def receive(self) -> None:
        """See `CoreCall`."""
        self._call.operate((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), Event.MESSAGE)

    def nudge(self) -> None:
        """See `CoreCall`."""
        self._call.operate((), Event.NUDGE)

    def next(self) -> tuple[Event, bytes | None]:
        """See `CoreCall`."""
        return _read(self._call.next_event())

    def finish(self) -> None:
        """See `CoreCall`."""
        self._call.operate((cygrpc.SendCloseFromClientOperation(_NO_FLAGS),), Event.OTHER)

    def cancel(self) -> None:
        """See `CoreCall`."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "the link has ended")

    def drain(self) -> None:
        """See `CoreCall`."""
        # The core gives the call up with its last event, and none may be waited for after that: only an operation
        # that is refused tells so, where an interrupt may have taken an event away.
        while self._call.operate((), mark := object()):
            while self._call.next_event().tag is not mark:
                pass
            time.sleep(_DRAIN_SECONDS)
        self._channel.close()


class ServedCall:
    """The serving end.

    Args:
        call: the core's.
        queue: which the events of this call alone go to.
    """

    def __init__(self, call: Any, queue: Any) -> None:
        self._call = call
        self._queue = queue
        self._start(cygrpc.SendInitialMetadataOperation((), _NO_FLAGS), Event.OTHER)
        self._start(cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS), Event.OVER)

    def _start(self, operation: Any, event: Event) -> None:
        self._call.start_server_batch((operation,), event)

    def send(self, data: bytes) -> None:
        """See `CoreCall`."""
        self._start(cygrpc.SendMessageOperation(data, _NO_FLAGS), Event.SENT)

    def receive(self) -> None:
        """See `CoreCall`."""
        self._start(cygrpc.ReceiveMessageOperation(_NO_FLAGS), Event.MESSAGE)

    def nudge(self) -> None:
        """See `CoreCall`."""
        self._call.start_server_batch((), Event.NUDGE)

    def next(self) -> tuple[Event, bytes | None]:
        """See `CoreCall`."""
        return _read(self._queue.poll(None))

    def finish(self) -> None:
        """See `CoreCall`."""
        self._start(cygrpc.SendStatusFromServerOperation((), cygrpc.StatusCode.ok, b"", _NO_FLAGS), Event.OTHER)

    def cancel(self) -> None:
        """See `CoreCall`."""
        self._call.cancel(cygrpc.StatusCode.cancelled, "the link has ended")

    def drain(self) -> None:
        """See `CoreCall`."""
        self._queue.shutdown()
        while self._queue.poll(None).completion_type != _SHUT:
            pass


def _read(event: Any) -> tuple[Event, bytes | None]:
    tag: Event = event.tag
    if tag is Event.MESSAGE:
        return tag, event.batch_operations[0].message() if event.success else None
    return tag, None
