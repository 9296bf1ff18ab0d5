"""The C library's memory: kept in one piece, and given back to the system once it is free."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import Any, Final

_ARENA_MAX: Final = -8  # as malloc.h of the GNU C library numbers them
_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 128 << 10  # bytes


def keep_together() -> None:
    """Have threads allocate from one heap, and what is large apart from it, so that little lies idle between.

    To be called before there are many threads. Else each reads weights into a heap of its own, and what is freed
    there, such as a table before it was converted, makes place for what is smaller.
    """
    if (mallopt := _of_libc("mallopt")) is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGE)


def give_back() -> None:
    """Let go of what is free. It takes some milliseconds, and what is wanted again is slower the first time."""
    import mlx.core as mx

    mx.clear_cache()
    if (trim := _of_libc("malloc_trim")) is not None:
        trim(0)


@cache
def _of_libc(name: str) -> Any:
    """A function of the GNU C library; None where there is another one (macOS, musl)."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        return getattr(ctypes.CDLL(None), name)
    return None
