"""The hoard: what the C library keeps of the memory of large MLX arrays, for the next one.

On Linux MLX takes memory from the C library. glibc asks the system for what is larger than 32 MiB and gives it back at
once, and the system clears each page anew, which takes five times as long as to write it. A worker is started with
pages that are quick to clear, see `actors.node.tuning`; a program that calls actors runs already.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from actors import arena

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_BYTES = 32 << 20
"""Smaller ones glibc itself keeps memory for, in time."""

MOST_BYTES = 1 << 28
"""What is kept in all."""

IDLE_SECONDS = 8.0

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # as malloc.h numbers them
_USUAL_MAPPINGS = 65536
_OF_INFO = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip
_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_")


class _Info(ctypes.Structure):
    """What `mallinfo2` returns; ``fordblks`` is how many bytes are free."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _OF_INFO)


class Hoard:
    """Has glibc keep memory of large arrays, `MOST_BYTES` at most and not for longer than `IDLE_SECONDS`.

    Only the main thread's heap can be so large. `trim` is to be called every few seconds.

    Args:
        library: the C library.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._info = library.mallinfo2
        self._info.restype = _Info
        self._used = 0.0
        self._keeps = False

    @contextmanager
    def keeping(self, nbytes: int) -> Iterator[None]:
        """What is allocated in this block, an array of so many bytes, is kept for the next when it is let go of."""
        self._used = time.monotonic()
        if not self._keeps:
            self._keeps = True
            self._library.mallopt(_MMAP_THRESHOLD, LEAST_BYTES)  # where glibc's own rule would end, which ends here
            self._library.mallopt(_TRIM_THRESHOLD, MOST_BYTES)
        if self._info().fordblks > nbytes + MOST_BYTES:  # it is in pieces, into which no array fits
            self._library.malloc_trim(0)
        try:
            self._library.mallopt(_MMAP_MAX, 0)
            yield
        finally:
            self._library.mallopt(_MMAP_MAX, _USUAL_MAPPINGS)

    def trim(self, idle: float = IDLE_SECONDS) -> None:
        """Gives the memory back, if none was needed for so many seconds."""
        if self._keeps and time.monotonic() - self._used >= idle:
            self._keeps = False
            self._library.mallopt(_TRIM_THRESHOLD, 2 * LEAST_BYTES)  # as by glibc's own rule
            self._library.malloc_trim(0)


def _found() -> Hoard | None:
    if sys.platform != "linux" or any(name in os.environ for name in _SETTINGS):  # somebody has chosen otherwise
        return None
    with suppress(AttributeError):  # another C library, or an old one
        return Hoard(ctypes.CDLL(None))
    return None


_hoard = _found()


@contextmanager
def room(nbytes: int) -> Iterator[None]:
    """What is allocated in this block is an array of so many bytes, whose memory the next one shall have."""
    # Who has no arena does not call `trim`.
    apt = nbytes > LEAST_BYTES and arena.current() is not None and threading.current_thread() is threading.main_thread()
    if _hoard is None or not apt:
        yield
        return
    with _hoard.keeping(nbytes):
        yield


def trim(idle: float = IDLE_SECONDS) -> None:
    """See `Hoard.trim`."""
    if _hoard is not None:
        _hoard.trim(idle)
