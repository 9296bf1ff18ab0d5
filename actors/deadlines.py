"""Deadlines: what is to be told that its time is over, in the order of the times."""

from __future__ import annotations

import heapq
import itertools
import time
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.job import Job

_FEW = 64


class Deadlines:
    """Tells of jobs whose deadline passes while they are not over. One timer for all; only on one loop.

    Args:
        passed: called with the job, on the loop.
    """

    def __init__(self, passed: Callable[[Job], None]) -> None:
        self._passed = passed
        self._heap: list[tuple[float, int, weakref.ref[Job]]] = []
        self._ties = itertools.count()
        self._compact_at = _FEW
        self._timer: asyncio.TimerHandle | None = None

    def add(self, job: Job, loop: asyncio.AbstractEventLoop) -> None:
        """Watches a job that has a deadline."""
        assert job.deadline is not None
        heapq.heappush(self._heap, (job.deadline, next(self._ties), weakref.ref(job)))
        if len(self._heap) >= self._compact_at:
            self._heap = [entry for entry in self._heap if (known := entry[2]()) is not None and not known.over]
            heapq.heapify(self._heap)
            self._compact_at = max(_FEW, 2 * len(self._heap))
        if self._heap and self._heap[0][2]() is job:
            self._set(loop)

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            self._timer = loop.call_later(max(0.0, self._heap[0][0] - time.monotonic()), self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            job = heapq.heappop(self._heap)[2]()
            if job is not None and not job.over:
                self._passed(job)
        self._timer = None
        self._set(loop)
