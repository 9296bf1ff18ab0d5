"""Debugging in an actor's process: pdb at one of its methods, whose words and commands go over the network.

`actors.attaching` is the other end. A session begins with a call that is about to run or, where the actor's own thread
runs one already, in the middle of that. ``breakpoint()`` in an actor waits for somebody to attach.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from types import FrameType

    from actors.pdbsession import Session
    from actors.process import Process
    from actors.transport.acceptor import Visitor

SIGNAL = signal.SIGUSR2
LONGEST_READ_SECONDS = 1.0

_sessions: dict[str, Session] = {}
"""By actor."""


def _forget(actor: str) -> None:
    _sessions.pop(actor, None)


def session_for(actor: str, method: str) -> Session | None:
    """Returns who is to stop at this call, if anybody is."""
    session = _sessions.get(actor)
    return session if session is not None and session.method in {None, method} else None


def armed() -> bool:
    """Whether anybody has attached to an actor here."""
    return bool(_sessions)


class Debugger:
    """The service ``"debugger"`` of a worker. On the I/O loop.

    Args:
        process: this process.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    async def attach(self, _: Visitor, actor: str, method: str | None) -> str:
        """Begins a session; returns what the actor does.

        Raises:
            ActorsError: somebody else has attached already, or the actor has no such method.
        """
        from actors.pdbsession import LEASE_SECONDS, Session  # late: pdb takes a while, and most need none

        other = _sessions.get(actor)
        if other is not None and time.monotonic() - other.heard < LEASE_SECONDS:
            raise ActorsError("another debugger is attached to this actor: one at a time")
        instance = self._process.recorder.here.get(actor)
        names = instance.methods() if instance is not None else None
        if method is not None and names is not None and method not in names:
            raise ActorsError(f"the actor has no method {method!r}; it has: {', '.join(names)}")
        session = _sessions[actor] = Session(actor, method, lambda: _forget(actor))
        running = [job.method for job in (instance.open_calls() if instance is not None else ()) if job.started]
        if _standing.get(actor):
            return "stands at a breakpoint"
        if method is None and running and instance is not None and runtime.myself_is(actor):
            session.method = ""
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)
            return f"runs {running[0]}"
        return "waits for a call"

    async def read(self, _: Visitor, actor: str, seconds: float) -> tuple[str, str]:
        """Returns what was printed since, waiting for it, and whether a command is wanted."""
        session = _sessions.get(actor)
        if session is None:
            return "", "ended"
        session.heard = time.monotonic()
        until = session.heard + min(seconds, LONGEST_READ_SECONDS)
        while True:
            state = session.state
            text = session.printed()
            if text or state != "running" or time.monotonic() >= until:
                return text, state
            await asyncio.sleep(0.02)

    async def command(self, _: Visitor, actor: str, line: str) -> None:
        """Gives the debugger a line."""
        session = _sessions.get(actor)
        if session is not None:
            session.heard = time.monotonic()
            session.command(line)

    async def detach(self, _: Visitor, actor: str) -> None:
        """Lets the method go on."""
        session = _sessions.get(actor)
        if session is not None:
            session.command("q\n")
            if session.method != "":
                session.end()


_standing: dict[str, bool] = {}


def _interrupted(_: int, frame: FrameType | None) -> None:
    """On the main thread, in the middle of what it runs."""
    actor = runtime.myself()
    session = _sessions.get(actor.spec.id) if actor is not None else None
    if session is not None and frame is not None:
        session.stop_here(frame)


def _breakpoint(*_: Any, **__: Any) -> None:
    """What ``breakpoint()`` does in an actor: waits until somebody attaches."""
    frame = sys._getframe(1)  # noqa: SLF001 - as pdb does
    actor = runtime.myself()
    if actor is None:
        return
    id, label = actor.spec.id, actor.spec.label
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    print(
        f"{label} stands at a breakpoint, {where}: actors.debug(handle) goes there, or `actors debug {id}`",
        file=sys.stderr,
    )
    _standing[id] = True
    try:
        while (session := _sessions.get(id)) is None:
            time.sleep(0.05)
    finally:
        _standing.pop(id, None)
    session.method = ""
    session.stop_here(frame)


def enable(process: Process) -> None:
    """Makes this process, a worker, ready to be debugged. On its main thread."""
    signal.signal(SIGNAL, _interrupted)
    sys.breakpointhook = _breakpoint
    process.serve("debugger", Debugger(process))
