"""Glances: looking for a moment at a socket before sleeping at it, for as long as that pays."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from actors.transport.cores import change_core

if TYPE_CHECKING:
    import select

SECONDS = 100e-6
MOST_LEFT_OUT = 15
MOST_STAYS = 31


class _Pace:
    """When to try what may be in vain: each time it is, more of the next ones are left out: 1, 3, 7 up to ``most``.

    Once in vain after one that paid is chance, such as another thread's moment on this core, and leaves none out.
    """

    __slots__ = ("_leave_out", "_left_out", "_most", "_paid")

    def __init__(self, most: int) -> None:
        self._most = most
        self._leave_out = 0  # as many were left out last
        self._left_out = 0
        self._paid = False  # the last one that was tried

    def is_due(self) -> bool:
        if self._left_out:
            self._left_out -= 1
            return False
        return True

    def paid(self) -> None:
        self._leave_out = 0
        self._paid = True

    def was_vain(self) -> None:
        if self._paid:
            self._paid = False
        else:
            self._left_out = self._leave_out = min(2 * self._leave_out + 1, self._most)


class Glances:
    """Decides for one socket whether to look at it before sleeping.

    To be woken takes longer than a small call does, so whoever looks meanwhile has its answer sooner, and for less of
    the processor's time. Where a look was in vain (the answer takes longer, or cannot be made while this thread has the
    core) the next one is left out, after the second in vain the next three, and so on up to 15. One that comes after
    looks that paid does not count.

    The system may wake who answers on the core of who looks, though another has nothing to do, and goes on doing so for
    thousands of calls. So after a look in vain this thread goes to another core and looks once more, ever more seldom
    where that is in vain too.
    """

    def __init__(self) -> None:
        self._looks = _Pace(MOST_LEFT_OUT)
        self._moves = _Pace(MOST_STAYS)
        self._alone = (os.cpu_count() or 1) < 2  # nobody answers while this thread looks

    def at(self, poll: select.poll, *, moves: bool = False) -> bool:
        """Returns whether something has come, having looked for at most `SECONDS`, twice that, or not at all.

        Args:
            poll: of the socket.
            moves: whether this thread may go to another core; not one that waits for whatever may come.
        """
        if self._alone or not self._looks.is_due():
            return False
        if _look(poll) or (moves and self._elsewhere(poll)):
            self._looks.paid()
            return True
        self._looks.was_vain()
        return False

    def _elsewhere(self, poll: select.poll) -> bool:
        if not self._moves.is_due():
            return False
        if change_core() and _look(poll):
            self._moves.paid()
            return True
        self._moves.was_vain()
        return False


def _look(poll: select.poll) -> bool:
    until = time.monotonic() + SECONDS
    while not poll.poll(0):
        if time.monotonic() > until:
            return False
    return True
