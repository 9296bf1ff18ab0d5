"""The actor of a draft model: all its layers in a process of their own."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from actors.api import get_runtime_context

from .lean import require_lean_mlx_lm
from .openblas import bring
from .stageactor import computing, found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.handle import ActorHandle

    from .means import Means
    from .sampling import Request

_TRIALS: Final = 3  # the first one brings up what the others need
_TRIAL: Final = "trial"


class DraftActor:
    """Guesses tokens for the last stage of a large model; see `draft.DraftModel`.

    Args:
        path: the draft, as this device sees it.
        layers: how many it has.
        vocabulary: token ids that the large model has.
        means: what it may make use of.
        libraries: have the weights, for where this device does not see `path`, or with `send`.
    """

    def __init__(
        self,
        path: str,
        layers: int,
        vocabulary: int,
        *,
        means: Means,
        libraries: Sequence[ActorHandle] = (),
        send: bool = False,
    ) -> None:
        self._blas = means.wide and bring(means.threads)
        require_lean_mlx_lm()
        from .draft import DraftModel
        from .stage import StageModel

        path = found(path, 0, layers - 1, libraries, send=send)
        self._means = means
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="mlx")  # MLX's lazy arrays belong to the thread
        wide = means.room if self._blas else 0
        self._model = self._turns.submit(StageModel.load, path, 0, layers - 1, wide=wide).result()
        self._draft = DraftModel(self._model, vocabulary)

    async def loaded(self) -> dict[str, Any]:
        """Returns what it takes: `pid`, `nbytes`, `token_nbytes`, `seconds` of a token, and `how` it computes."""
        nbytes = await self._do(self._try)
        how = computing(self._means, blas=self._blas, wide=self._model.wide)
        where = {"node": get_runtime_context().node_name, "pid": os.getpid()}
        seconds = self._model.seconds
        return {**where, "nbytes": self._model.nbytes, "token_nbytes": nbytes, "seconds": seconds, "how": how}

    async def begin(self, key: str, request: Request) -> None:
        """See `DraftModel.begin`."""
        await self._do(self._draft.begin, key, request)

    async def propose(self, key: str, new: tuple[int, ...], count: int) -> tuple[int, ...]:
        """See `DraftModel.propose`."""
        guesses: tuple[int, ...] = await self._do(self._draft.propose, key, new, count)
        return guesses

    async def forget(self, key: str) -> None:
        """See `DraftModel.forget`."""
        await self._do(self._draft.forget, key)

    def _try(self) -> int:
        from .stage import Row, Step

        for _ in range(_TRIALS):
            self._model.run(Step((Row(_TRIAL, (0,)),)))
        nbytes = self._model.token_nbytes(_TRIAL)
        self._model.run(Step(forget=(_TRIAL,)))
        return nbytes

    async def _do(self, what: Callable[..., Any], *args: Any) -> Any:
        """On the thread of MLX."""
        return await asyncio.get_running_loop().run_in_executor(self._turns, what, *args)
