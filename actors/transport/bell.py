"""A bell: wakes a thread that waits at a socket, from any other thread."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Bell:
    """A pipe that can be polled beside a socket; it stays readable until it is muted.

    Attributes:
        also: called when it is rung, on whichever thread; for who waits where no pipe can be polled.
    """

    def __init__(self) -> None:
        self._ear, self._mouth = os.pipe()
        os.set_blocking(self._ear, False)
        os.set_blocking(self._mouth, False)
        self._lock = threading.Lock()  # else the descriptor of one that rings might be closed, and another's by then
        self._rung = False
        self._closed = False
        self.also: Callable[[], None] | None = None

    def fileno(self) -> int:
        """Returns what is readable once it has been rung."""
        return self._ear

    @property
    def rung(self) -> bool:
        """Whether it was rung and not muted since: it is readable then, or will be at once."""
        return self._rung

    def ring(self) -> None:
        """Wakes who waits, or who will wait next; nobody where it was closed meanwhile."""
        with self._lock, contextlib.suppress(BlockingIOError):  # it has been rung often enough
            if not self._closed:
                self._rung = True
                os.write(self._mouth, b"!")
        also = self.also
        if also is not None:
            also()

    def mute(self) -> None:
        """Forgets that it was rung."""
        if not self._rung:  # as after most calls: spares them a system call that fails
            return
        with self._lock:
            self._rung = False
            os.read(self._ear, 1 << 16)

    def close(self) -> None:
        """Gives the pipe back."""
        with self._lock:
            self._closed = True
            os.close(self._ear)
            os.close(self._mouth)
