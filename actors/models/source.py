"""Where a model is, by what a user calls it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from actors.exceptions import ModelError

from .extra import require_mlx_lm
from .smol import demo_model

if TYPE_CHECKING:
    from collections.abc import Callable

DEMO: Final = "demo"
"""The name of the demo's model."""
_HUB_ID: Final = re.compile(r"[\w.-]+/[\w.-]+")
_FILES: Final = ("*.json", "*.jinja", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.py")


def locate(model: str, on_progress: Callable[[str], None] | None = None) -> Path:
    """The file or directory of a model.

    Args:
        model: a path, `"demo"` for the demo's model, or the id of a model on the Hugging Face hub, such as
            `"mlx-community/Qwen3-0.6B-4bit"`, which is fetched into the hub's own cache.
        on_progress: told in plain words what is going on while the demo's model is fetched.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
    if model == DEMO:
        return demo_model(on_progress)
    path = Path(model).expanduser()
    if path.exists():
        return path
    if _HUB_ID.fullmatch(model) and not path.parent.exists():
        return _fetched(model)
    raise ModelError(
        f"there is no file or directory {model}. A model is a .gguf file, a directory of mlx-lm or Hugging Face, "
        f"the id of one on the hub (name/model), or {DEMO!r}"
    )


def _fetched(model: str) -> Path:
    require_mlx_lm()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=list(_FILES)))
    except Exception as error:  # the hub's client raises its own, its transport's and the system's
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"there is no file or directory {model}, and no model of that name could be fetched from the Hugging Face "
            f"hub: {first}"
        ) from error
