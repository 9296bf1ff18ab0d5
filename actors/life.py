"""The life of an actor as its owner sees it: a pure state machine."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where an actor is in its life; the words are Ray's."""

    PENDING_CREATION = "PENDING_CREATION"
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"
    DEAD = "DEAD"


class Life:
    """Decides whether an actor is made anew.

    Args:
        max_restarts: how often it may be; -1 for ever.
        times: how often it was already.

    Attributes:
        state: where it is.
        times: how often it was made anew.
    """

    def __init__(self, max_restarts: int, times: int = 0) -> None:
        self.state = State.PENDING_CREATION
        self.times = times
        self._left = max_restarts
        self._final = False

    @property
    def left(self) -> int:
        """How often it may still be made anew; -1 for ever."""
        return 0 if self._final else self._left

    @property
    def doomed(self) -> bool:
        """Whether it will not be made anew, should it die now."""
        return self._final or self._left == 0

    def placed(self) -> None:
        """It has a process."""
        if self.state is not State.DEAD:
            self.state = State.ALIVE

    def finish(self) -> None:
        """It shall not be made anew, whatever ends it."""
        self._final = True

    def died(self, *, intended: bool) -> bool:
        """Its process has ended; returns whether it is to be made anew."""
        if self.state is State.DEAD:
            return False
        if intended or self.doomed:
            self.state = State.DEAD
            return False
        self._left -= self._left > 0
        self.times += 1
        self.state = State.RESTARTING
        return True

    def end(self) -> None:
        """It is over."""
        self.state = State.DEAD
