"""Inspection: what a process says of itself to whoever looks at it: its open calls, and where its code stands."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from actors.events.recorder import readings
from actors.events.view import OpenCallView
from actors.job import State
from actors.transport.traffic import carried

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from types import FrameType

    from actors.events.ledger import Carried
    from actors.job import Job
    from actors.process import Process
    from actors.spec import ActorSpec
    from actors.transport.acceptor import Visitor
    from actors.waits import Wait

MOST_CALLS = 2_000  # shown of one actor
MOST_FRAMES = 60
_ENTRIES = ("/actors/execution.py", "/actors/runner.py")
_IDLE = ("/actors/mailbox.py", "/actors/threads.py", "/actors/instance.py", "/actors/light.py")
_LIBRARIES = (os.path.dirname(__file__), *(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")))
_OURS = ("actors-parent", "actors-console", "actors-logs")


class Inspection:
    """The service ``"inspection"`` of every process. It answers on the I/O loop, so while methods run.

    Args:
        process: this process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    async def look(self, _: Visitor) -> tuple[list[OpenCallView], dict[str, int], object, Carried]:
        """Returns calls that are open here, how many each actor has, what code counts, and what links carried."""
        shown: list[OpenCallView] = []
        counts: dict[str, int] = {}
        now = time.time()
        for actor, instance in list(self._process.recorder.here.items()):
            jobs: list[Job] = list(instance.open_calls())
            counts[actor] = len(jobs)
            if instance.spec is not None and not instance.spec.host:
                shown += [self._view(instance.spec, job, now) for job in jobs[:MOST_CALLS]]
        return shown, counts, readings(), carried()

    def _view(self, spec: ActorSpec, job: Job, now: float) -> OpenCallView:
        runs = job.state is State.RUNNING
        waits = self._process.waits.of(job.key)
        return OpenCallView(
            actor=spec.id,
            label=spec.label,
            class_name=spec.class_name,
            method=job.method.replace("__construct__", "__init__"),
            state="RUNNING" if runs else "QUEUED",
            age=now - job.arrived,
            running=now - job.started if runs else 0.0,
            caller=self._process.caller_of(job.key[0]),
            node=self._process.address.node_name,
            process=self._process.id,
            waits_for=tuple(name for wait in waits for name in _names(wait)),
        )

    async def standing(self, visitor: Visitor, number: int) -> str:
        """Returns where a call of the asking process stands, as a clause; empty for one that is not here any more."""
        key, now = (visitor.session, number), time.time()
        for id, instance in list(self._process.recorder.here.items()):
            jobs: list[Job] = list(instance.open_calls())
            place = next((place for place, job in enumerate(jobs) if job.key == key), None)
            if place is None:
                continue
            job = jobs[place]
            here = f"on node {self._process.address.node_name}, process {os.getpid()}"
            if job.state is State.RUNNING:
                return f"it has run for {now - job.started:.1f} s {here}, {await self._at(id, job)}"
            running = [other for other in jobs if other.state is State.RUNNING]
            first = (
                f"{job.label}.{running[0].method}, which has run for {now - running[0].started:.1f} s, "
                if running
                else ""
            )
            stands = await self._at(id, running[0]) if running else "which has not begun any"
            before = f"{place} before it" if place else "none before it"
            return f"it waits in line {here}, with {before}: {first}{stands}"
        return ""

    async def _at(self, actor: str, job: Job) -> str:
        """Returns where a running call stands, as a clause: what it waits for, and its line of the user's code."""
        waits = [name for wait in self._process.waits.of(job.key) for name in _names(wait)]
        what = f"waits for {' and '.join(waits[:3])}" if waits else "is busy"
        lines = _awaiting(job.task) if job.task is not None else []
        if not _users(lines):  # a plain method, also one of an actor that has others on its loop
            stacks = [lines for _, lines in await self.stacks(None, actor)]
            lines = next((lines for lines in stacks if any(f" in {job.method}" in line for line in lines)), [])
        where = _users(lines)[-1:]
        return f"and {what}" + (f" at {where[0]}" if where else "")

    async def stacks(self, _: Visitor | None, actor: str | None = None) -> list[tuple[str, list[str]]]:
        """Returns where the code of this process stands.

        Args:
            actor: show the tasks of this actor's calls only; None for all. Threads are always shown, since they may
                be any actor's.

        Returns:
            What stands there, such as a thread's name, and its frames as lines, the innermost last.
        """
        found = []
        frames = sys._current_frames()  # noqa: SLF001 - the standard library has no other way
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if frame is not None and thread is not threading.current_thread() and thread.name not in _OURS:
                lines = _lines(frame)
                if lines or thread is threading.main_thread():
                    found.append((f"thread {thread.name}", lines))
        seen: set[asyncio.Task[None]] = set()
        for id, instance in list(self._process.recorder.here.items()):
            for job in instance.open_calls() if actor in {None, id} else ():
                task = job.task
                if task is not None and not task.done() and task not in seen:
                    seen.add(task)
                    found.append((f"call {job.method}", _awaiting(task)))
        return found


def _users(lines: Sequence[str]) -> list[str]:
    """Returns the places among frames that are in the user's own code."""
    places = [line.strip() for line in lines if line.strip().startswith('File "')]
    return [place for place in places if not place.removeprefix('File "').startswith(_LIBRARIES)]


def _names(wait: Wait) -> list[str]:
    """Returns what a call is blocked on."""
    names = []
    for value, owner in wait.values:
        if not value.future.done():
            call = value.call
            names.append(f"{call.line.label}.{call.method}" if call is not None else f"a value of {owner.node_name}")
    return names or ["something that it will give up by itself"]


def _awaiting(task: asyncio.Task[Any]) -> list[str]:
    """Returns where a task waits: its coroutine, what that awaits, and so on."""
    lines: list[str] = []
    coroutine: Any = task.get_coro()
    for _ in range(MOST_FRAMES):
        kind = next((kind for kind in ("cr", "ag", "gi") if hasattr(coroutine, f"{kind}_frame")), None)
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is None:
            break
        lines += _lines(frame, one=True)
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return lines


def _lines(frame: FrameType, *, one: bool = False) -> list[str]:
    """Returns frames as lines, without those by which this library came to the user's code; none where it is idle."""
    summary = traceback.StackSummary.extract([(frame, frame.f_lineno)]) if one else traceback.extract_stack(frame)
    if not one:
        ours = [place for place, entry in enumerate(summary) if entry.filename.endswith(_ENTRIES)]
        if any(entry.filename.endswith(_IDLE) for entry in summary) and not ours:
            return []
        summary = traceback.StackSummary.from_list(summary[ours[-1] + 1 :] if ours else summary)
    return [line.rstrip() for entry in traceback.format_list(summary) for line in entry.splitlines()]
