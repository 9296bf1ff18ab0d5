"""Cancelling calls of actors on Ray.

Ray's own cancelling of a call that waits at an actor with concurrency groups, as all of ours are, leaves a gap in the
order of calls there: those after it are never answered (seen with Ray 2.60). So such a call is marked at its actor,
and refused when its turn comes; what runs is cancelled by Ray.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from typing import Any

import ray
from ray import exceptions as rays

from actors.exceptions import TaskCancelledError, Verdict
from actors.shortage import NoThreadError
from actors.threads import Threads

MOST_MARKS = 10_000
ASK_SECONDS = 60.0
_NO_ACTOR = "ff" * 12
"""What the ids begin with that Ray gives to tasks in place of an actor's; its job's number follows."""

_borrowed = Threads("ray-cancel")


class Calls:
    """Which calls run in this actor, and which were cancelled before they began; by the ids of Ray's tasks."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: set[str] = set()
        self._unwanted: OrderedDict[str, None] = OrderedDict()

    def begin(self, what: str) -> None:
        """The call that this code runs in begins.

        Raises:
            TaskCancelledError: it was cancelled.
        """
        id = _own_id()
        with self._guard:
            if id in self._unwanted:
                del self._unwanted[id]
                raise TaskCancelledError(f"{what} was cancelled before it began", verdict=Verdict.NEVER_STARTED)
            self._running.add(id)

    def end(self) -> None:
        """It is over."""
        with self._guard:
            self._running.discard(_own_id())

    def cancel(self, id: str) -> bool:
        """Returns whether a call runs; one that does not is refused should it come."""
        with self._guard:
            if id in self._running:
                return True
            self._unwanted[id] = None
            if len(self._unwanted) > MOST_MARKS:  # of calls that were over already
                self._unwanted.popitem(last=False)
            return False


def cancel(raw: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancels a call or task; soon, if it is one that may wait for its turn at an actor which is known here.

    Args:
        raw: Ray's own reference to its result, or to its stream.
        force: see `actors.cancel`.
        recursive: whether to cancel what it has called.
    """
    handle = None if force else _handle_of(raw)
    if handle is None:
        ray.cancel(raw, force=force, recursive=recursive)
    else:
        _borrowed.start(_cancel, handle, raw, recursive)


def forget_stream(raw: Any) -> None:
    """Cancels the call of a stream that nobody reads any more, soon. Never raises, and does nothing on this thread."""
    with contextlib.suppress(NoThreadError):
        _borrowed.start(_forget, raw)


def _forget(raw: Any) -> None:
    try:
        if ray.is_initialized():
            cancel(raw)
    except (rays.RayError, RuntimeError, ValueError):  # the cluster is being left, or the call is over
        return


def _cancel(handle: Any, raw: Any, recursive: bool) -> None:
    try:
        if ray.get(handle._actors_cancel.remote(raw.task_id().hex()), timeout=ASK_SECONDS):  # noqa: SLF001 - ours
            ray.cancel(raw, recursive=recursive)
    except rays.RayError:  # the actor has ended, and the call with it
        return


def _handle_of(raw: Any) -> Any:
    """Returns Ray's handle of the actor that a call was made to; None where it is none's, or over Ray's client."""
    worker = ray._private.worker.global_worker  # noqa: SLF001 - as `current_actor` of Ray's own context does
    task = getattr(raw, "task_id", None)
    if task is None or not hasattr(worker, "core_worker"):
        return None
    actor = task().actor_id()
    if actor.hex().startswith(_NO_ACTOR):  # Ray ends the process that asks for the handle of such a one
        return None
    try:
        handle = worker.core_worker.get_actor_handle(actor)
    except ValueError:  # it has no handle any more
        return None
    return handle if hasattr(handle, "_actors_cancel") else None


def _own_id() -> str:
    return str(ray.get_runtime_context().get_task_id())
