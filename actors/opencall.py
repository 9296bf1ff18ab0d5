"""An open call: on its way to an actor or a task's worker, and waiting for its one answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from actors import tracing
from actors.exceptions import GetTimeoutError, TaskCancelledError, Verdict
from actors.failure import raised_kind
from actors.messages import PLAIN, ROOT, ROOTED, VALUE, Outcome, Payload, Terms
from actors.sealed import Sealed, of_error, of_reply

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.exceptions import RemoteError
    from actors.holdings import Hold
    from actors.messages import Item, Reply
    from actors.options import Retry
    from actors.process import Process
    from actors.spec import Manner
    from actors.transport.peer import Death, Party


class Way(Protocol):
    """What an open call goes by: the line to its actor, or the queue to the workers of tasks."""

    label: str
    manner: Manner
    process: Process

    @property
    def hold(self) -> Hold | None:
        """What must live until a call has had its answer."""

    def answered(self, call: OpenCall) -> None:
        """A call has had its answer."""

    def take_back(self, call: OpenCall) -> None:
        """Lets a call go once more."""

    def drop(self, call: OpenCall) -> bool:
        """Takes a call back that has not been sent; whether there was one."""

    def died_of(self, death: Death, method: str, verdict: Verdict) -> RemoteError:
        """Returns the error for a call that a death has cut off."""


class Asked(Protocol):
    """A call as those see it who wait for its value."""

    @property
    def line(self) -> Way:
        """What it goes by."""

    @property
    def method(self) -> str:
        """Name of the method."""

    @property
    def peer(self) -> Party | None:
        """Where it was sent."""

    @property
    def target(self) -> str:
        """Whom it was sent to."""

    @property
    def number(self) -> int | None:
        """By which its peer knows it, while that has it."""

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Says that the answer is no longer wanted."""


class Together(Protocol):
    """Calls that are sent in one message."""

    def __len__(self) -> int:
        """How many there are."""

    def send(self, peer: Party, target: str, place: int) -> None:
        """Sends them; the first has this place in its line."""


class OpenCall:
    """A call on its way; hears how it went and passes that on.

    Attributes:
        line: what it goes by.
        hold: keeps the actor alive until it has answered.
        method: name of the method.
        payload: its arguments; let go of once nothing can make it be sent again.
        needs: values of other calls that it waits for.
        group: concurrency group, empty for the method's own.
        returns: see `actors.messages.Terms`.
        deadline: when nobody waits any more, on the clock of `time.monotonic`.
        retries: how often it may be sent again after a death that may have cut it off; -1 for ever.
        retry_exceptions: what it is sent again for that the method raised.
        origin: see `actors.messages.Terms`.
        trace: see there.
        asked: the number it was sent by last, also once it is over; 0 before.
        span: its part of a trace, see `actors.tracing`; None where there is none.
    """

    __slots__ = (
        "__weakref__", "asked", "deadline", "forced", "group", "hold", "in_room", "line", "method", "nbytes", "needs",
        "number", "origin", "over", "payload", "peer", "place", "retries", "retry_exceptions", "returns", "span",
        "target", "trace",
    )  # fmt: skip
    anywhere = True  # see `actors.transport.peer.Caller`

    def __init__(self, line: Way, method: str, payload: Payload, needs: list[Future[Sealed]]) -> None:
        self.line = line
        self.hold = line.hold
        self.method = method
        self.payload: Payload | None = payload
        self.needs = needs
        self.group = ""
        self.returns = 1
        self.origin = ""
        self.trace = ""
        self.asked = 0
        self.span: Any = None
        self.deadline: float | None = None
        self.retries = 0
        self.retry_exceptions: Retry = False
        self.number: int | None = None  # while it is with the peer
        self.peer: Party | None = None
        self.target = ""  # whom it was sent to
        self.forced = False  # it was cancelled by force, which may end the process it was sent to
        self.place = 0  # in its line
        self.over = False  # it has had its answer
        self.nbytes = payload.nbytes  # of its arguments as they were when it was made
        self.in_room = False  # it takes room in its line

    @property
    def ready(self) -> bool:
        """Whether all it waits for is there."""
        return all(need.done() for need in self.needs)

    def terms(self) -> Terms:
        """Returns how the call is to be answered, as of now."""
        if self.trace == ROOT and self.peer is not None and not self.peer.roots:
            tracing.name_root(self)
        if self.deadline is None and not self.group and self.returns == 1 and not self.origin:
            if not self.trace:
                return PLAIN
            if self.trace == ROOT:
                return ROOTED
        remaining = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        return Terms(remaining, self.group, self.returns, self.origin, self.trace)

    def sent(self, peer: Party, target: str, number: int) -> None:
        """The call has been given its number."""
        self.peer = peer
        self.target = target
        self.number = self.asked = number
        if self.trace is ROOT:
            tracing.sent(self)

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        self.number = None
        self.asked = reply.number
        if reply.outcome is VALUE:
            self.end(of_reply(reply))
        elif reply.outcome is Outcome.RAISED and self._may_try_again(raising=True):
            # Aside, since what was raised may have to be unpickled, which runs code of the user's.
            self.line.process.portal.aside(self.raised, reply)
        elif reply.outcome is Outcome.ENDED and self.line.manner.follows and self.peer is not None:
            self.peer.when_dead(lambda death: self._refused(death, reply))
        elif reply.outcome is Outcome.CUT_OFF and self.peer is not None:
            self.peer.when_dead(lambda death: self.lost(death, Verdict.MAY_HAVE_RUN))
        else:
            self.end(of_reply(reply))

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
        self.number = None
        if not self.over and self.line.manner.follows and not death.intended:
            if verdict is Verdict.NEVER_STARTED or death.moved:
                self._again()
                return
            if self.line.manner.restarts and self._may_try_again(raising=False):
                self.retries -= self.retries > 0
                self._again()
                return
        self.end(of_error(self.line.died_of(death, self.method, verdict)))

    def _refused(self, death: Death, reply: Reply) -> None:
        """The actor's process has died, which had said that it would not come to this call any more."""
        if self.over or not (death.moved or (self.line.manner.restarts and not death.intended)):
            self.end(of_reply(reply))
        else:
            self._again()

    def _may_try_again(self, *, raising: bool) -> bool:
        wanted = bool(self.retry_exceptions) if raising else True
        return wanted and self.retries != 0 and not self.over and self.payload is not None

    def raised(self, reply: Reply) -> None:
        """The method raised; tries again where that is wished for. Not on the I/O loop: it unpickles."""
        wanted = self.retry_exceptions
        assert isinstance(reply.payload, Payload)
        if self.over or (isinstance(wanted, tuple) and not issubclass(raised_kind(reply.payload), wanted)):
            self.end(of_reply(reply))
        else:
            self.retries -= self.retries > 0
            self._again()

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def end(self, sealed: Sealed) -> None:
        """Takes the one answer; a later one changes nothing."""
        if self.in_room:
            self.release()
        if not self.over:
            self.settle(sealed)  # before: after an interrupt the answer comes again
            self.over = True
            if self.span is not None:
                tracing.call_answered(self, None if sealed.outcome is VALUE else sealed.outcome.name.lower())

    def _again(self) -> None:
        """Goes once more, by another number, as the same part of its trace."""
        if self.trace == ROOT:
            tracing.name_root(self)
        self.line.take_back(self)

    def release(self) -> None:
        """Gives back the room in its line, unless the actor still has the call."""
        if self.number is None and self.in_room:
            self.in_room = False
            self.hold = None
            self.line.answered(self)

    def settle(self, sealed: Sealed) -> None:
        """Passes the one answer on."""
        raise NotImplementedError

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Says that the answer is no longer wanted; safe for any thread. See `actors.cancel`."""
        number, peer = self.number, self.peer
        self.forced = self.forced or force
        if self.line.drop(self):
            text = f"{self.line.label}.{self.method} was cancelled before it started"
            never = Verdict.NEVER_STARTED
            self.end(of_error(TaskCancelledError(text, actor=self.line.label, method=self.method, verdict=never)))
        elif number is not None and peer is not None:
            peer.cancel(number, force=force, recursive=recursive)

    def watch_deadline(self) -> None:
        """Sees to it that there is an answer by the deadline. On the I/O loop."""
        assert self.deadline is not None
        self.line.process.loop.call_later(max(0.0, self.deadline - time.monotonic()), self.expire)

    def expire(self) -> None:
        """Its deadline has come."""
        if self.over:
            return
        verdict = Verdict.NEVER_STARTED if self.line.drop(self) else Verdict.MAY_HAVE_RUN
        what = f"{self.line.label}.{self.method} was not answered within its timeout: {verdict.value}"
        self.end(of_error(GetTimeoutError(what)))
