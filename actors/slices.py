"""Slices: a thread that mostly waits is run as soon as what it waits for has come, and one that copies much is not."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE_NANOSECONDS = 100_000  # the least that Linux takes
LONG_NANOSECONDS = 20_000_000

# Numbers of sched_setattr and sched_getattr: those of x86-64, and those that all younger machines share.
_CALLS = {"x86_64": (314, 315), "aarch64": (274, 275), "riscv64": (274, 275)}
_NORMAL = 0
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, slice, and two of another policy

_asked = threading.local()


def ask_to_run_soon() -> None:
    """Has the system run the calling thread, once it wakes, before threads that compute for long.

    From Linux 6.12 on a thread may say how long it mostly runs at a time, and is run the sooner the shorter that is; it
    is given no more of the processor's time. Threads and processes that it starts inherit that, since what keeps them
    from it would also keep a program from choosing its policy. Elsewhere this does nothing.
    """
    if not hasattr(_asked, "once"):
        _asked.once = True
        _change(SLICE_NANOSECONDS)


@contextmanager
def computing_for_long() -> Iterator[None]:
    """In this block the system runs others before the calling thread, and for longer each time it gives its core up.

    Threads that it starts there inherit that. Where the system knows of no slices this does nothing.
    """
    before = _change(LONG_NANOSECONDS)
    try:
        yield
    finally:
        if before:
            _change(before)


if sys.platform == "linux" and platform.machine() in _CALLS and sys.maxsize > 2**32:
    _call = ctypes.CDLL(None).syscall
    _SET, _GET = _CALLS[platform.machine()]

    def _change(nanoseconds: int) -> int:
        """Asks for slices of so many for the calling thread; returns of how many they were, 0 if there are none."""
        found = ctypes.create_string_buffer(_ATTRIBUTES.size)
        before: int
        if _call(_GET, 0, found, _ATTRIBUTES.size, 0):
            return 0
        size, policy, flags, nice, _, before, *_ = _ATTRIBUTES.unpack(found.raw)
        if policy != _NORMAL:
            return 0
        _call(_SET, 0, _ATTRIBUTES.pack(size, policy, flags, nice, 0, nanoseconds, 0, 0), 0)
        return before

else:

    def _change(nanoseconds: int) -> int:  # noqa: ARG001 # named as in the other branch
        return 0
