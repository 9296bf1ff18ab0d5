"""Whether one model can guess for another, which their headers tell. Loads mlx-lm no earlier than it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.exceptions import ModelError

from .checkpoint import open_checkpoint
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from .checkpoint import Checkpoint, ModelInfo
    from .tokenizer import Tokenizer


def open_draft(path: Path, model: Path, tokenizer: Tokenizer) -> ModelInfo:
    """What the draft at `path` is, once it is known that it can guess for a larger model.

    Args:
        path: the small model.
        model: the large one.
        tokenizer: the large one's.

    Raises:
        ModelError: there is no draft there, their tokens are not the same, or one of them has caches that cannot be cut
            short.
    """
    draft = open_checkpoint(path)
    _check_words(path, model, load_tokenizer(path).inner.get_vocab(), tokenizer.inner.get_vocab())
    for each in (draft, open_checkpoint(model)):
        if kind := _untrimmable(each):
            raise ModelError(
                f"{each.path} keeps a {kind}, whose last tokens cannot be taken back when a guess was wrong: a draft "
                "model is for models with full attention alone. Load it without draft="
            )
    return draft.info()


def _check_words(draft: Path, model: Path, mine: dict[str, int], others: dict[str, int]) -> None:
    if mine == others:
        return
    word = min({word for word, number in mine.items() ^ others.items()})
    raise ModelError(
        f"the draft {draft} has another tokenizer than {model}: {len(mine)} and {len(others)} tokens, {word!r} is "
        f"{mine.get(word)} and {others.get(word)}. Take a draft of the same family"
    )


def _untrimmable(checkpoint: Checkpoint) -> str:
    from mlx_lm.models.cache import make_prompt_cache

    from .saved import untrimmable

    caches: list[Any] = make_prompt_cache(checkpoint.load(1, 0))  # no layer's weights are needed
    return untrimmable(caches)
