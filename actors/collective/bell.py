"""Bells: how a rank that sleeps is woken by another of its host."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Bell:
    """A rank's own bell and the ways to those of others.

    Args:
        path: where others find this one until they have attached to it.

    Raises:
        OSError: it cannot be made there.
    """

    def __init__(self, path: Path) -> None:
        self._own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._others: dict[int, socket.socket] = {}
        self._poll = select.poll()
        try:
            self._own.setblocking(False)
            self._own.bind(str(path))
        except OSError:
            self._own.close()
            raise
        self._poll.register(self._own, select.POLLIN)

    def attach(self, rank: int, path: Path) -> None:
        """Opens the way to another rank's bell.

        Raises:
            OSError: there is none.
        """
        other = self._others[rank] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        other.setblocking(False)
        other.connect(str(path))

    def ring(self, rank: int) -> None:
        """Wakes a rank; of no effect on one that is gone, or that has been rung and has not looked yet."""
        with suppress(OSError):
            self._others[rank].send(b"!")

    def wait(self, seconds: float) -> None:
        """Sleeps until somebody rings, or has rung since the last wait, or the time has passed."""
        if self._poll.poll(max(0.0, seconds) * 1000):
            with suppress(OSError):
                self._own.recv(1)

    def close(self) -> None:
        """Gives the sockets back."""
        for one in (self._own, *self._others.values()):
            one.close()
