"""A core for each of several processes of one host that wait for each other all the time.

Where ranks meet sixty times a token, the system wakes a thread of one rank on the core of another, and all wait for it
to come back. Ranks that keep to their cores lose nothing so.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_SIBLINGS: Final = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def keep_to_core(place: int, places: int) -> bool:
    """Have this thread, and those that it starts, run on a core of its own; returns whether it does.

    Where threads may not choose, where somebody has chosen already which cores this process may use, or where there
    are fewer cores than places, nothing is done.

    Args:
        place: which of the processes this is.
        places: how many of them want a core each.
    """
    if not hasattr(os, "sched_setaffinity"):  # not every system lets threads choose
        return False
    allowed = os.sched_getaffinity(0)
    cores = [cpu for cpu in sorted(allowed) if _leads(cpu)]
    if len(allowed) != os.cpu_count() or len(cores) < places:
        return False
    with suppress(OSError):  # others have just taken it away
        os.sched_setaffinity(0, {cores[place]})
        return True
    return False


def _leads(cpu: int) -> bool:
    """Whether it is the first of those that share a core."""
    try:
        siblings = Path(_SIBLINGS.format(cpu)).read_text()
    except OSError:  # nothing is known of it
        return True
    return siblings.replace("-", ",").split(",")[0].strip() == str(cpu)
