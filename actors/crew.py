"""Crews: who runs the calls of an actor of which several may be under way, tasks of an event loop or threads."""

from __future__ import annotations

import contextlib
import queue
from functools import partial
from typing import TYPE_CHECKING

from actors.mailbox import Lane
from actors.pool import Pool
from actors.shortage import NoThreadError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from actors.execution import Execution
    from actors.job import Job

    Taker = Callable[[Job | None], None]


def dealt(execution: Execution, lanes: Mapping[str, Callable[[Job], object]], over: Callable[[], object]) -> Taker:
    """Returns what gives each call to those of its concurrency group; see `Mailbox.divert`.

    Args:
        execution: says which group that is.
        lanes: by group, take a call.
        over: is called after the last one has come.
    """

    def take(job: Job | None) -> None:
        if job is None:
            over()
        elif (group := execution.group_of(job)) is not None:
            lanes[group](job)

    return take


def tasks(
    loop: asyncio.AbstractEventLoop, execution: Execution, widths: Mapping[str, int], over: Callable[[], object]
) -> Taker:
    """Returns what has calls run as tasks of ``loop``; ``over`` is called there after the last one has come.

    Args:
        loop: where they run.
        execution: runs each.
        widths: how many may run at once, by concurrency group.
        over: see above.
    """
    running: set[asyncio.Task[None]] = set()

    def begin(job: Job, finished: Callable[[], None]) -> None:
        task = job.task = loop.create_task(execution.run_async(job))
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda _: finished())

    take = dealt(execution, {group: Lane(width, begin).add for group, width in widths.items()}, over)

    def pass_on(job: Job | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and the call has been answered
            loop.call_soon_threadsafe(take, job)

    return pass_on


class Pools:
    """Threads of an actor's own.

    Args:
        execution: runs each call.
        widths: how many may run at once, by concurrency group.
        label: of the actor, by which the threads are called.
        later: has something done after so many seconds.

    Attributes:
        take: gives them a call; see `Mailbox.divert`.
    """

    def __init__(
        self,
        execution: Execution,
        widths: Mapping[str, int],
        label: str,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._beside: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._pools = {
            group: Pool(width, f"{label}-{group}" if group else label, later) for group, width in widths.items()
        }
        lanes = {group: partial(_start, pool, execution) for group, pool in self._pools.items()}
        self.take = dealt(execution, lanes, partial(self._beside.put, None))

    def beside(self, work: Callable[[], None]) -> None:
        """Has ``work`` done by the thread that waits in `serve`, which no call holds up."""
        self._beside.put(work)

    def serve(self) -> None:
        """Returns when the last call has come and all are over."""
        while (work := self._beside.get()) is not None:
            work()
        for pool in self._pools.values():
            pool.close()


def _start(pool: Pool, execution: Execution, job: Job) -> None:
    try:
        pool.start(execution.run, job)
    except NoThreadError as error:
        execution.cannot_run(job, error)
