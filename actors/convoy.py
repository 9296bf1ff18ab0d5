"""A convoy: calls of one method that came in one message, at the actor that runs them one after the other."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from actors.job import Job, Visitor
from actors.messages import PLAIN, Argument, Call

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Calls
    from actors.transport.bell import Bell


class Together(Visitor, Protocol):
    """Who made them; see `actors.transport.answers.Answers`."""

    def answered(self, number: int, value: Any) -> None:
        """Sends a small plain value back with others."""

    def flush(self) -> None:
        """Sends what was collected."""


class Convoy:
    """Calls with one plain argument each, that wait. Each becomes a `Job` when its turn comes, or somebody asks for it.

    All but its attributes is for the mailbox alone, which knows the lock.

    Args:
        calls: the message.
        values: their arguments.
        visitor: who made them.
        label: of the actor, for messages.

    Attributes:
        arrived: when they came (epoch).
        label: see above.
        method: that was called.
        trace: see `actors.messages.Terms`.
        visitor: see above.
    """

    __slots__ = ("_calls", "_early", "_next", "_values", "arrived", "label", "method", "trace", "visitor")

    def __init__(self, calls: Calls, values: list[Any], visitor: Together, label: str) -> None:
        if len(values) != len(calls.numbers):
            raise ValueError(f"{len(calls.numbers)} calls of {calls.method} came with {len(values)} arguments")
        self._calls = calls
        self._values = values
        self.label = label
        self._next = 0
        self._early: dict[int, Job] = {}  # by their place: those that somebody has asked for
        self.arrived = time.time()
        self.method = calls.method
        self.trace = calls.terms.trace
        self.visitor = visitor

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Reads on this thread what their caller sends next."""
        self.visitor.lead(done, seconds, bell)

    def find(self, key: tuple[str, int]) -> Job | None:
        """Returns one that waits."""
        if key[0] != self.visitor.session:
            return None
        try:
            place = self._calls.numbers.index(key[1], self._next)
        except ValueError:
            return None
        return self._asked_for(place)

    def all(self) -> list[Job]:
        """Returns all that wait."""
        return [self._asked_for(place) for place in range(self._next, len(self._calls.numbers))]

    def _asked_for(self, place: int) -> Job:
        if place not in self._early:
            self._early[place] = self._job(place)
        return self._early[place]

    def _job(self, place: int) -> Job:
        return Member(self._calls, place, self._values[place], self)

    def next(self) -> Job | None:
        """Returns the one whose turn it is; None where none is left."""
        place = self._next
        if place == len(self._values):
            return None
        self._next = place + 1
        return (self._early.pop(place, None) if self._early else None) or self._job(place)


class Member(Job):
    """One call of a convoy.

    Attributes:
        value: its argument.
    """

    def __init__(self, calls: Calls, place: int, value: Any, convoy: Convoy) -> None:
        # Not as any job: there is no call of its own to begin with.
        self.key = (convoy.visitor.session, calls.numbers[place])
        self.label = convoy.label
        self.method = calls.method
        self.deadline = None
        self.arrived = convoy.arrived
        self.value = value
        self._visitor = convoy.visitor
        self._calls = calls
        if calls.terms is not PLAIN:
            self.origin = calls.terms.origin
            self.came = calls.terms.trace

    @property
    def call(self) -> Call:  # type: ignore[override]  # few are asked for it
        """See `Job`."""
        calls = self._calls
        return Call(self.key[1], calls.target, calls.method, Argument(self.value), calls.terms)
