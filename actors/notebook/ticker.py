"""The ticker: one thread that redraws what is shown live, a few times a second, while there is anything to redraw."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from actors.shortage import NoThreadError, begin

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 0.4


class Ticker:
    """Calls what was added again and again, until it is removed or returns False."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._drawn: list[Callable[[], bool]] = []
        self._thread: threading.Thread | None = None

    def add(self, draw: Callable[[], bool]) -> None:
        """Calls ``draw`` from now on; it returns whether it is to be called again."""
        with self._lock:
            self._drawn.append(draw)
            if self._thread is None:
                with contextlib.suppress(NoThreadError):  # the picture stands still until one can be begun
                    self._thread = begin(self._run, "actors-ticker")

    def remove(self, draw: Callable[[], bool]) -> None:
        """Calls it no more."""
        with self._lock, contextlib.suppress(ValueError):
            self._drawn.remove(draw)

    def _run(self) -> None:
        while True:
            self._changed.wait(SECONDS)
            with self._lock:
                if not self._drawn:
                    self._thread = None
                    return
                drawn = list(self._drawn)
            for draw in drawn:
                try:
                    goes_on = draw()
                except Exception:  # a picture that cannot be drawn must not end the others
                    goes_on = False
                if not goes_on:
                    self.remove(draw)
