"""The recorder: what happens in this process, collected on any thread and sent to its node now and then."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakValueDictionary

from actors.events.event import CallEnded, CollectivesEnded
from actors.events.tally import Tally
from actors.traceids import of_call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.events.event import Event
    from actors.events.ledger import Carried
    from actors.events.tally import Tallies
    from actors.spec import ActorSpec

OFF = "ACTORS_RECORD_CALLS"
"""Environment variable; ``0`` there: calls are neither counted nor shown once they are over."""

SOON_SECONDS = 0.03  # news of actors
LATE_SECONDS = 0.4  # what there may be thousands of
MOST_CALLS = 100_000  # that wait for the I/O loop to look at them
MOST_SHOWN = 400  # calls of one report that are told one by one; all are counted
MOST_SHOWN_TOGETHER = 20  # of those that came together: they look alike
MOST_EVENTS = 2_000
CONSTRUCT = "__construct__"  # see `actors.messages`

OUTCOMES = ("ok", "raised", "never started", "may have run", "ended", "cut off")
"""How a call ended, by the number of its `actors.messages.Outcome`."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a process tells its node.

    Attributes:
        process: its id.
        pid: of it.
        events: what happened, in order.
        tallies: of all calls that have ended since the last report.
        left_out: how many of them are not among the events.
        readings: of the metrics that its code counts, as they are now; None where it counts none.
        carried: what its links have carried so far; see `actors.events.ledger`.
    """

    process: str
    pid: int
    events: tuple[Event, ...]
    tallies: Tallies
    left_out: int
    readings: object = None
    carried: Carried = ()


class Over(Protocol):
    """A call that is over: see `actors.job.Job`."""

    key: tuple[str, int]
    method: str
    arrived: float
    started: float
    trace: str | tuple[str, int]


class Watched(Protocol):
    """An actor of this process: see `actors.instance.Instance`."""

    spec: ActorSpec | None

    def open_calls(self) -> Sequence[Any]:
        """Returns the calls that wait or run."""

    def methods(self) -> Sequence[str] | None:
        """Returns the names of what can be called; None before it has been made."""


class Surroundings(Protocol):
    """The process that a recorder is for."""

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Has work done on the I/O loop, from any thread."""

    def deliver(self, report: Report) -> None:
        """Sends a report to the node. On the I/O loop."""

    def caller_of(self, session: str) -> str:
        """Returns the process that a session belongs to."""


_Ended = tuple["ActorSpec", str, str, float, float, float, int, str | tuple[str, int]]


class Recorder:
    """Collects events. Its methods may be called on any thread, and are quick.

    Args:
        process: id of this process.
        node: name of its node.
        around: this process.

    Attributes:
        here: the actors of this process, by id.
        records_calls: whether calls are counted and shown.
    """

    def __init__(self, process: str, node: str, around: Surroundings) -> None:
        self.process = process
        self.node = node
        self.records_calls = os.environ.get(OFF) != "0"
        self._around = around
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self._calls: deque[_Ended] = deque(maxlen=MOST_CALLS)
        self._stretches: deque[Stretch] = deque(maxlen=MOST_CALLS)
        self._collectives: dict[tuple[str, int, str], list[float]] = {}
        self._due = 0.0  # when a report will be made; 0 where none is planned
        self.here: WeakValueDictionary[str, Watched] = WeakValueDictionary()

    def born(self, actor: str, instance: Watched) -> None:
        """This process is, or hosts, an actor: whose open calls can be looked at from now on."""
        self.here[actor] = instance

    def emit(self, event: Event) -> None:
        """Something happened of which there is little: the node hears of it at once."""
        self._events.append(event)
        self._plan(SOON_SECONDS)

    def call_ended(self, job: Over, spec: ActorSpec, outcome: int) -> None:
        """A call has had its answer."""
        # Not the call itself, which would keep its arguments, and what they refer to.
        self._calls.append((spec, job.key[0], job.method, job.arrived, job.started, time.time(), outcome, job.trace))
        if not self._due:
            self._plan(LATE_SECONDS)

    def calls_ended(self, stretch: Stretch) -> None:
        """Calls that ran one after the other have returned."""
        self._stretches.append(stretch)
        if not self._due:
            self._plan(LATE_SECONDS)

    def collective_ended(self, group: str, rank: int, op: str, nbytes: int, seconds: float, *, failed: bool) -> None:
        """A member of a group that is in this process has taken part in a collective."""
        with self._lock:
            sums = self._collectives.setdefault((group, rank, op), [0, 0, 0.0, 0])
            sums[0] += 1
            sums[1] += nbytes
            sums[2] += seconds
            sums[3] += failed
        if not self._due:
            self._plan(LATE_SECONDS)

    def _plan(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if self._due and self._due <= due:
            return
        self._due = due
        self._around.later(seconds, self.flush)

    def flush(self) -> None:
        """Sends what there is to the node. On the I/O loop."""
        self._due = 0.0
        report = self.report()
        if report.events or report.tallies:
            self._around.deliver(report)

    def report(self) -> Report:
        """Takes out what there is. On the I/O loop."""
        events = [self._events.popleft() for _ in range(len(self._events))]
        calls = [self._calls.popleft() for _ in range(len(self._calls))]
        tallies: Tallies = {}
        # The latest are shown: what was before them in so short a time looked like them.
        shown = max(0, len(calls) - MOST_SHOWN)
        for index, (spec, session, called, arrived, started, at, outcome, trace) in enumerate(calls):
            began = started or at
            queued, ran = max(0.0, began - arrived), max(0.0, at - began)
            method = "__init__" if called == CONSTRUCT else called
            if spec.host or (spec.task and called == CONSTRUCT):
                continue  # nobody of the user's has called it
            full = method if spec.task else f"{spec.class_name}.{method}"
            tallies.setdefault((full, OUTCOMES[outcome]), Tally()).add(queued, ran)
            if index >= shown:
                events.append(
                    CallEnded(
                        at, spec.id, spec.class_name, method, self._around.caller_of(session), queued, ran,
                        OUTCOMES[outcome], self.node, self.process, os.getpid(),
                        trace if isinstance(trace, str) else of_call(*trace)[1][3:52],
                    )
                )  # fmt: skip
        left_out = shown + self._report_stretches(events, tallies)
        with self._lock:
            collectives, self._collectives = self._collectives, {}
        now = time.time()
        events += [
            CollectivesEnded(now, group, rank, op, int(count), int(nbytes), seconds, int(failed), self.node)
            for (group, rank, op), (count, nbytes, seconds, failed) in collectives.items()
        ]
        return Report(self.process, os.getpid(), tuple(events), tallies, left_out, readings())

    def _report_stretches(self, events: list[Event], tallies: Tallies) -> int:
        """Reports calls that ran one after the other; returns of how many nothing but their number is told."""
        left_out = 0
        for _ in range(len(self._stretches)):
            one = self._stretches.popleft()
            method = f"{one.spec.class_name}.{one.method}"
            tallies.setdefault((method, OUTCOMES[0]), Tally()).add_stretch(one.arrived, one.began, one.ends)
            first = max(0, len(one.ends) - MOST_SHOWN_TOGETHER)
            left_out += first
            begins = [one.began, *one.ends]
            caller = self._around.caller_of(one.session)
            events += [
                CallEnded(
                    one.ends[at], one.spec.id, one.spec.class_name, one.method, caller,
                    max(0.0, begins[at] - one.arrived), max(0.0, one.ends[at] - begins[at]),
                    OUTCOMES[0], self.node, self.process, os.getpid(), "",
                )
                for at in range(first, len(one.ends))
            ]  # fmt: skip
        return left_out


class Stretch:
    """Calls of one method that came together, run one after the other and return: told of together.

    Attributes:
        spec: of their actor.
        session: by which they came.
        method: that was called.
        arrived: when they came (epoch).
        began: when the first began to run.
        ends: when each returned, and the next began.
    """

    def __init__(self, spec: ActorSpec, session: str, method: str, arrived: float) -> None:
        self.spec = spec
        self.session = session
        self.method = method
        self.arrived = arrived
        self.began = time.time()
        self.ends: list[float] = []

    def ended(self) -> None:
        """One has returned."""
        now = time.time()
        self.ends.append(now)
        if now - self.began > LATE_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Has those told of that have returned; begins anew."""
        if self.ends and current is not None and current.records_calls:
            told = Stretch(self.spec, self.session, self.method, self.arrived)
            told.began, told.ends = self.began, self.ends
            current.calls_ended(told)
        self.began, self.ends = time.time(), []


# What this process counts itself, read by whoever loads `actors.util.metrics`; nothing where nobody does.
_source: Callable[[], object] | None = None
current: Recorder | None = None
"""This process's recorder; None outside of a cluster."""


def use(recorder: Recorder | None) -> None:
    """Makes a recorder this process's."""
    global current  # noqa: PLW0603 - one recorder a process
    current = recorder


def emit(event: Event) -> None:
    """Something happened in this process; forgotten where it is in no cluster."""
    if current is not None:
        current.emit(event)


def read_from(source: Callable[[], object]) -> None:
    """Sets what reads the metrics of this process's own."""
    global _source  # noqa: PLW0603 - one source a process
    _source = source


def readings() -> object:
    """Returns the metrics that code of this process counts; None where there are none."""
    return _source() if _source is not None else None
