"""Cores: the calling thread changes to another one, and may then be anywhere again."""

from __future__ import annotations

import os
import sys

if sys.platform == "linux":
    import ctypes

    _core = getattr(ctypes.CDLL(None), "sched_getcpu", None)  # which not every C library has

    def change_core() -> bool:
        """Moves the calling thread to another core that it may use; returns False where there is none."""
        allowed = os.sched_getaffinity(0)
        if len(allowed) < 2 or _core is None:
            return False
        try:
            # An interrupt between the two would leave it without its core for ever, were they not one step.
            list(map(os.sched_setaffinity, (0, 0), (allowed - {_core()}, allowed)))
        except OSError:  # others have just taken the cores away
            return False
        return True

else:

    def change_core() -> bool:
        """Leaves it where it is: this system does not let threads choose."""
        return False
