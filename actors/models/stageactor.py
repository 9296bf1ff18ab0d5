"""The actor of one stage: takes tokens through its layers, asking the stage before it first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.api import get_runtime_context
from actors.refs import get

from .extra import require_mlx_lm
from .stage import StageModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.handle import ActorHandle


class Stage:
    """Layers `first` to `last` of a model, in a process of their own.

    The last stage is asked for tokens. Each stage asks the one before it for the hidden states of the same tokens,
    so that these go from stage to stage and an error anywhere along the line comes back along it.

    Args:
        path: the model, as this stage's device sees it.
        first: number of its first layer.
        last: number of its last layer, inclusive.
        before: the stage of the layers before; None for the first.
    """

    def __init__(self, path: str, first: int, last: int, before: ActorHandle | None) -> None:
        require_mlx_lm()
        self._model = StageModel.load(path, first, last)
        self._before = before

    def loaded(self) -> dict[str, Any]:
        """Returns what this stage holds: `node`, `first`, `last` and the bytes of its weights."""
        model = self._model
        node = get_runtime_context().node_name
        return {"node": node, "first": model.first, "last": model.last, "nbytes": model.nbytes}

    def forward(self, key: str, token_ids: Sequence[int]) -> Any:
        """Takes tokens of sequence `key` through all stages up to this one; returns the hidden states."""
        return self._model.forward(key, token_ids, self._hidden(key, token_ids))

    def _hidden(self, key: str, token_ids: Sequence[int]) -> Any:
        if self._before is None:
            return None
        return get(self._before.forward.remote(key, list(token_ids)))

    def generate(self, key: str, prompt_ids: Sequence[int], **sampling: Any) -> Iterator[int]:
        """Yields the tokens that follow a prompt; only in the last stage. See `StageModel.generate`."""
        before = self._before
        upstream = None if before is None else lambda ids: self._hidden(key, ids)
        try:
            yield from self._model.generate(key, prompt_ids, upstream, **sampling)
        finally:
            if before is not None:
                before.forget.remote(key)

    def forget(self, key: str) -> None:
        """Drops the caches of a sequence here and in the stages before."""
        self._model.forget(key)
        if self._before is not None:
            self._before.forget.remote(key)
