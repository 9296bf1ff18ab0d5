"""The actor of one stage: takes tokens through its layers, asking the stage before it first."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from actors.context import get_runtime_context
from actors.refs import get

from .extra import require_mlx_lm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Sequence

    from actors.handle import ActorHandle

_END: Final = object()


class Stage:
    """Layers `first` to `last` of a model, in a process of their own.

    The last stage is asked for tokens. Each stage asks the one before it for the hidden states of the same tokens,
    so that these go from stage to stage and an error anywhere along the line comes back along it.

    Several answers may be under way: they take turns, one token each, whoever reads them and however slowly.

    Args:
        path: the model, as this stage's device sees it.
        first: number of its first layer.
        last: number of its last layer, inclusive.
        before: the stage of the layers before; None for the first.
    """

    def __init__(self, path: str, first: int, last: int, before: ActorHandle | None) -> None:
        require_mlx_lm()
        from .stage import StageModel

        # MLX's lazy arrays belong to the thread that made them, and turns are taken in the order they are asked for.
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="mlx")
        self._model = self._turns.submit(StageModel.load, path, first, last).result()
        self._before = before

    async def loaded(self) -> dict[str, Any]:
        """Returns what this stage holds, and where: `node`, `pid`, `first`, `last` and the bytes of its weights."""
        model = self._model
        where = {"node": get_runtime_context().node_name, "pid": os.getpid()}
        return {**where, "first": model.first, "last": model.last, "nbytes": model.nbytes}

    async def sequences(self) -> tuple[str, ...]:
        """Returns the keys of the sequences that have a cache here."""
        return self._model.sequences

    async def forward(self, key: str, token_ids: Sequence[int]) -> Any:
        """Takes tokens of sequence `key` through all stages up to this one; returns the hidden states."""
        return await self._turn(lambda: self._model.forward(key, token_ids, self._hidden(key, token_ids)))

    async def generate(self, key: str, prompt_ids: Sequence[int], **sampling: Any) -> AsyncIterator[int]:
        """Yields the tokens that follow a prompt; only in the last stage. See `StageModel.steps`."""
        upstream = None if self._before is None else lambda ids: self._hidden(key, ids)
        steps = await self._turn(lambda: self._model.steps(key, prompt_ids, upstream, **sampling))
        try:
            while (token := await self._turn(lambda: next(steps, _END))) is not _END:
                if token is not None:
                    yield token
        finally:
            # Not awaited: this answer may have been cancelled in the middle of a step, which has to end first.
            self._turns.submit(self._end, key, steps)

    async def forget(self, key: str) -> None:
        """Drops the caches of a sequence here and in the stages before."""
        await self._turn(lambda: self._forget(key))

    async def _turn(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._turns, work)

    # -- on the thread of MLX -----------------------------------------------------------------------------------

    def _hidden(self, key: str, token_ids: Sequence[int]) -> Any:
        if self._before is None:
            return None
        return get(self._before.forward.remote(key, list(token_ids)))

    def _end(self, key: str, steps: Generator[int | None, None, None]) -> None:
        steps.close()
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._model.forget(key)
        if self._before is not None:
            self._before.forget.remote(key)
