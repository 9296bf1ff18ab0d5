"""Room for calls on their way: bounded in number and in bytes, so that no caller fills the memory."""

from __future__ import annotations

import threading


class Room:
    """Counts what is on its way; safe for any thread.

    Args:
        count: most calls at once.
        nbytes: most bytes of their arguments at once; one call alone may be larger.
    """

    __slots__ = ("_bytes", "_changed", "_count", "_lock", "_most", "_most_bytes", "_waiting", "_wanted")

    def __init__(self, count: int, nbytes: int) -> None:
        self._most = count
        self._most_bytes = nbytes
        self._count = 0
        self._bytes = 0
        self._waiting = 0
        self._wanted = 1  # calls that one of those who wait has, at least
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def enter(self, nbytes: int, timeout: float = 0.0, calls: int = 1) -> bool:
        """Takes room for one call, or for several together; False where there was none within ``timeout`` seconds."""
        with self._lock:
            if not self._fits(nbytes, calls):
                if timeout <= 0:
                    return False
                self._wanted = min(calls, self._wanted) if self._waiting else calls
                self._waiting += 1
                try:
                    if not self._changed.wait_for(lambda: self._fits(nbytes, calls), timeout):
                        return False
                finally:
                    self._waiting -= 1
            self._count += calls
            self._bytes += nbytes
            return True

    def _fits(self, nbytes: int, calls: int) -> bool:
        if not self._count:
            return calls <= max(self._most, 1) and (calls == 1 or nbytes <= self._most_bytes)
        return self._count + calls <= self._most and self._bytes + nbytes <= self._most_bytes

    def leave(self, nbytes: int, calls: int = 1) -> None:
        """Gives the room of one call back, or of several."""
        with self._lock:
            self._count -= calls
            self._bytes -= nbytes
            if self._waiting and self._count + self._wanted <= max(self._most, self._wanted):
                self._changed.notify_all()

    @property
    def count(self) -> int:
        """How many are on their way."""
        return self._count
