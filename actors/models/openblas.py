"""OpenBLAS in place of the products that MLX's wheel for Linux has, and weights as it wants them.

The wheel brings the reference BLAS, which multiplies matrices twenty times slower, and its quantised products gain
nothing from more rows. A library that is loaded for all to see before MLX takes the place of the
one that MLX came with, as it would by `LD_PRELOAD`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final

from .extra import on_cpu

if TYPE_CHECKING:
    from mlx import nn

_NAMES: Final = ("libopenblas.so.0", "libopenblasp.so.0", "libopenblas.so")
_THREADS: Final = "OPENBLAS_NUM_THREADS"
ADVICE: Final = "OpenBLAS is not installed (Debian: libopenblas0-pthread), which makes prompts many times faster"


def bring(threads: int = 1) -> bool:
    """Have MLX in this process multiply by OpenBLAS, where it computes on a CPU under Linux; returns whether it does.

    To be called before MLX is imported: it looks for its products then.

    Args:
        threads: how many cores a product may use, where `OPENBLAS_NUM_THREADS` does not say it.
    """
    os.environ.setdefault(_THREADS, str(threads))  # read as the library is loaded
    return _brought()


@cache
def _brought() -> bool:
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return False
    for name in _NAMES:
        with suppress(OSError):
            if hasattr(ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL), "cblas_sgemm"):
                return on_cpu()
    return False


def widen(model: nn.Module) -> nn.Module:
    """The model with all its weights in float32, none of them quantised; lazily."""
    import mlx.core as mx
    from mlx_lm.utils import dequantize_model

    wide: nn.Module = dequantize_model(model)
    wide.set_dtype(mx.float32)
    return wide
