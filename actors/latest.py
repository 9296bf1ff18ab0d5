"""The latest state of an actor, as whoever has charge of it keeps it: states may come by two ways."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.messages import Payload


class Latest:
    """Keeps the state with the highest number. Any thread may use it.

    Args:
        state: the first one; None for none.
    """

    def __init__(self, state: Payload | None) -> None:
        self._state = state
        self._number = 0
        self._lock = threading.Lock()

    @property
    def state(self) -> Payload | None:
        """The state itself; None where there is none."""
        return self._state

    def take(self, number: int | None, state: Payload) -> bool:
        """Takes a state over, and returns True, unless a later one is here; one without a number is the latest."""
        with self._lock:
            if number is not None and number <= self._number:
                return False
            self._state = state
            self._number = self._number if number is None else number
            return True

    def begin(self) -> Payload | None:
        """Returns the state for a new process, which counts from 1."""
        with self._lock:
            self._number = 0
            return self._state
