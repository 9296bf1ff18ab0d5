"""Glances: looking for a moment at a socket before sleeping at it, for as long as that pays."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import select

SECONDS = 100e-6
MOST_LEFT_OUT = 15


class Glances:
    """Decides for one socket whether to look at it before sleeping.

    To be woken takes longer than a small call does, so whoever looks meanwhile has its answer sooner, and for less of
    the processor's time. Where a look was in vain (the answer takes longer, or cannot be made while this thread has the
    core) the next one is left out, after the second in vain the next three, and so on up to 15.
    """

    def __init__(self) -> None:
        self._leave_out = 0  # as many were left out last
        self._left_out: float = 0 if (os.cpu_count() or 1) > 1 else math.inf

    def at(self, poll: select.poll) -> bool:
        """Returns whether something has come, having looked for at most `SECONDS`, or not at all."""
        if self._left_out:
            self._left_out -= 1
            return False
        until = time.monotonic() + SECONDS
        while not poll.poll(0):
            if time.monotonic() > until:
                self._left_out = self._leave_out = min(2 * self._leave_out + 1, MOST_LEFT_OUT)
                return False
        self._leave_out = 0
        return True
