"""The heap: how the C library keeps the memory that the chunks of large payloads pass through.

Each chunk is copied into memory of its own on its way through gRPC. glibc gives such memory back to the system at once
and asks for it anew, and each page of it is cleared again: that takes longer than all that is done with the bytes.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KEPT_BYTES = 64 << 20
"""What is free at the heap's end stays up to this size, until no large payload has come for a while."""

LEAST_MAPPED_BYTES = 16 << 20
"""What is larger has pages of its own, which go with it."""

IDLE_SECONDS = 8.0

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as malloc.h numbers them

_settled = False
_used = 0.0
_timer: asyncio.TimerHandle | None = None


def use() -> None:
    """A large payload is about to pass: memory is kept from now on. Often called, on the I/O loop."""
    global _settled, _used, _timer  # noqa: PLW0603 - one heap a process
    if not _settled:
        _settled = True
        if sys.platform == "linux" and not chosen(os.environ):
            with suppress(AttributeError):  # another C library
                library = ctypes.CDLL(None)
                library.mallopt(_MMAP_THRESHOLD, LEAST_MAPPED_BYTES)
                library.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
    loop = asyncio.get_running_loop()
    _used = loop.time()
    if _timer is None or _timer.when() < _used - IDLE_SECONDS:  # or it was of a loop that has ended
        _timer = loop.call_later(IDLE_SECONDS, _trim, loop)


def _trim(loop: asyncio.AbstractEventLoop) -> None:
    """Gives back what is free, if no large payload has passed for a while."""
    global _timer  # noqa: PLW0603 - one heap a process
    left = _used + IDLE_SECONDS - loop.time()
    if left > 0:
        _timer = loop.call_later(left, _trim, loop)
        return
    _timer = None
    if sys.platform == "linux":
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def chosen(environ: Mapping[str, str]) -> bool:
    """Whether whoever started this process has said how the heap is to be kept."""
    tunables = environ.get("GLIBC_TUNABLES", "")
    ours = ("trim_threshold", "mmap_threshold")
    return any(f"malloc.{name}" in tunables or f"MALLOC_{name.upper()}_" in environ for name in ours)
