"""Memory that is free again, given back to the system: MLX and the C library keep it for more of the kind."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import mlx.core as mx

if TYPE_CHECKING:
    from collections.abc import Callable


def give_back() -> None:
    """Let go of what is free. It takes some milliseconds, and what is wanted again is slower the first time."""
    mx.clear_cache()
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Callable[[int], int] | None:
    """What the C library has for it; None where it gives pages back by itself (macOS, musl)."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, AttributeError):
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return found
    return None
