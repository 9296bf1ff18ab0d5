"""Traces of what has happened, as Chrome's trace format has them, which Perfetto (ui.perfetto.dev) opens."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from actors.events import CallEnded
from actors.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from actors.events import ClusterView, Event

MICRO = 1_000_000


def timeline(path: str | Path | None = None) -> list[dict[str, Any]]:
    """Writes what the nodes still have of past calls as a file that Perfetto opens.

    Each process is a track, with an arrow from who called to what ran. Clocks are those of this program's node; the
    others' are brought in line with it.

    Args:
        path: of the file; None writes none.

    Returns:
        The events, in Chrome's trace format.

    Raises:
        NoClusterError: this program is in no cluster.
        OSError: the file cannot be written.
        TypeError: ``path`` is no path.
    """
    return write(Observer.here(), path)


def write(observer: Observer, path: str | Path | None) -> list[dict[str, Any]]:
    """Writes the trace of what an observer sees; see `timeline`."""
    if path is not None:
        path = os.fspath(path)  # a number would be a file that is open already
    view = observer.view()
    events = traced(observer.past(), view, observer.clocks())
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)
    return events


class _Track:
    """A process in the trace, with as many lanes as it ever had calls at the same time."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self._ends: list[float] = []
        self.slices: list[tuple[float, float, int]] = []  # begin, end, lane

    def lane(self, begin: float, end: float) -> int:
        """Returns a lane that is free in this time, and takes it."""
        free = next((lane for lane, until in enumerate(self._ends) if until <= begin), None)
        if free is None:
            free = len(self._ends)
            self._ends.append(0.0)
        self._ends[free] = end
        self.slices.append((begin, end, free))
        return free

    def around(self, at: float) -> int | None:
        """Returns the lane of a call that ran at that time."""
        return next((lane for begin, end, lane in reversed(self.slices) if begin <= at <= end), None)


def traced(events: Iterable[Event], view: ClusterView, ahead: dict[str, float]) -> list[dict[str, Any]]:
    """Returns calls as a trace.

    Args:
        events: what happened.
        view: how processes are called.
        ahead: seconds that each node's clock is ahead, by the node's name.
    """
    calls = sorted(
        ((call, call.at - ahead.get(call.node, 0.0)) for call in events if isinstance(call, CallEnded)),
        key=lambda each: each[1] - each[0].ran,
    )
    tracks: dict[str, _Track] = {}

    def track(process: str, node: str) -> _Track:
        if process not in tracks:
            name = view.name_of(process)
            tracks[process] = _Track(len(tracks) + 1, f"{name} on {node}" if node else name)
        return tracks[process]

    found: list[dict[str, Any]] = []
    flows: list[tuple[CallEnded, float, float, int, int]] = []
    for call, end in calls:
        begin = end - call.ran
        here = track(call.process, call.node)
        lane = here.lane(begin, end)
        found.append(
            {
                "ph": "X", "name": f"{call.class_name}.{call.method}", "cat": "call", "pid": here.number, "tid": lane,
                "ts": begin * MICRO, "dur": call.ran * MICRO,
                "args": {
                    "actor": call.actor, "outcome": call.outcome, "queued_ms": call.queued * 1e3,
                    "caller": view.name_of(call.caller),
                },
            }
        )  # fmt: skip
        if call.caller:
            flows.append((call, begin - call.queued, begin, here.number, lane))
    for number, (call, sent, begin, pid, lane) in enumerate(sorted(flows, key=lambda flow: flow[1]), 1):
        there = track(call.caller, "")
        from_lane = there.around(sent)
        if from_lane is None:  # a program, or a thread of an actor's own: the call itself is what it did
            from_lane = there.lane(sent, begin + call.ran)
            found.append(
                {
                    "ph": "X", "name": f"calls {call.class_name}.{call.method}", "cat": "caller", "pid": there.number,
                    "tid": from_lane, "ts": sent * MICRO, "dur": (begin + call.ran - sent) * MICRO, "args": {},
                }
            )  # fmt: skip
        flow = {"name": "call", "cat": "flow", "id": number}
        found.append({**flow, "ph": "s", "pid": there.number, "tid": from_lane, "ts": sent * MICRO})
        found.append({**flow, "ph": "f", "bp": "e", "pid": pid, "tid": lane, "ts": begin * MICRO})
    named = [
        {"ph": "M", "name": "process_name", "pid": t.number, "tid": 0, "ts": 0, "args": {"name": t.name}}
        for t in tracks.values()
    ]
    return [*named, *sorted(found, key=lambda event: event["ts"])]
