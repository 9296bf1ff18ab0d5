"""Vitals: which processes of this node are stopped, as by SIGSTOP. One that is only busy is not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOOK_SECONDS = 2.0
STOPPED_LOOKS = 15  # in a row, then it is taken for gone: 30 s, of which those do not count when this node slept too


class Vitals:
    """Looks after processes: says which has been stopped, and which for too long.

    Args:
        pids: the processes there are.
        found: called with a pid that has been found stopped.
        gone: called with one that has been so for long.
    """

    def __init__(
        self, pids: Callable[[], Iterable[int]], found: Callable[[int], None], gone: Callable[[int], None]
    ) -> None:
        self._pids = pids
        self._found = found
        self._gone = gone
        self._looks: dict[int, int] = {}  # how often each was found stopped, without a break

    async def watch(self) -> None:
        """Looks again and again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Looks once."""
        stopped = [pid for pid in self._pids() if is_stopped(pid)]
        self._looks = {pid: self._looks.get(pid, 0) + 1 for pid in stopped}
        for pid, looks in self._looks.items():
            if looks == 1:
                self._found(pid)
            elif looks == STOPPED_LOOKS:
                self._gone(pid)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped; not where a debugger holds it."""
    if sys.platform == "linux":  # which spares each node loading psutil
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:  # it has ended
            return False
        return stat.rpartition(b")")[2].split(None, 1)[0] == b"T"
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False
