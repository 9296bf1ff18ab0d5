"""Cores: the calling thread changes to another one, and may then be anywhere again."""

from __future__ import annotations

import os
import sys

_PROCESSOR = 36  # its place in the file below, counted from behind the program's name; see proc(5)

if sys.platform == "linux":

    def change_core() -> bool:
        """Moves the calling thread to another core that it may use; returns False where there is none."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) < 2:
            return False
        try:
            with open("/proc/thread-self/stat", "rb", buffering=0) as stat:
                core = int(stat.read(1024).rpartition(b")")[2].split()[_PROCESSOR])
            try:
                os.sched_setaffinity(0, allowed - {core})
            finally:
                os.sched_setaffinity(0, allowed)
        except (OSError, ValueError, IndexError):  # no such file here, or others have just taken the cores away
            return False
        return True

else:

    def change_core() -> bool:
        """Leaves it where it is: this system does not let threads choose."""
        return False
