"""The optional part of the installation that models need, and what it computes on."""

from __future__ import annotations

import warnings

from actors.exceptions import ModelError


def require_mlx_lm() -> None:
    """Make sure that mlx-lm can be imported.

    Raises:
        ModelError: it cannot; if it is not installed, the message has the command that installs it.
    """
    try:
        with warnings.catch_warnings():
            # tqdm's advice on widgets, which nobody here uses; it would be the first thing a notebook shows.
            warnings.filterwarnings("ignore", message="IProgress not found")
            import mlx_lm  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"sharded models need mlx-lm, which cannot be imported ({error}); run: pip install 'mlx-actors[models]'"
        ) from error
    except Exception as error:  # importing it also sets limits of the process, which a system may refuse
        raise ModelError(f"mlx-lm is installed but cannot be imported: {error}") from error


def on_cpu() -> bool:
    """Whether MLX computes on the CPU here.

    There, quantised weights are fast and right only with float32 scales, biases and activations.

    Raises:
        ModelError: MLX is not installed, or there is none for this platform.
    """
    try:
        import mlx.core as mx
    except ImportError as error:
        raise ModelError(
            f"models need MLX, which cannot be imported here ({error}); it exists for macOS on Apple silicon and for "
            "Linux on x86-64 and ARM. Run: pip install 'mlx-actors[models]'"
        ) from error
    return bool(mx.default_device() == mx.Device(mx.cpu))
