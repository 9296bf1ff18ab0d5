"""Whether sequences come out of a model's stages together as they do alone: tried, since not every cache bears it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import mlx.core as mx

from .stage import Row, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

_LONG, _SHORT = ("trial-a", "trial-b"), ("trial-c", "trial-d")  # the first of each goes with the first of the other
_PART: Final = 0.02  # of the largest logit: far above what rounding does, far below what a wrong mask does


async def why_apart(begin: Callable[..., Awaitable[Any]]) -> str:
    """Takes two sequences through all stages, of two tokens and of one, and then both a step further together.

    Args:
        begin: see `StageActor.begin`, of the last stage.

    Returns:
        Why they cannot go together; empty if they can.
    """
    try:
        await begin(_step(_LONG + _SHORT), None)
        await begin(_step(_LONG), None)
        together = await begin(_step((_LONG[0], _SHORT[0]), batched=True), _largest)
        apart = await begin(_step((_LONG[1], _SHORT[1])), _largest)
    except Exception as error:  # any: the architecture was not written for it
        return f"its caches cannot be batched ({type(error).__name__}: {str(error)[:80]})"
    finally:
        with suppress(Exception):
            await begin(Step(forget=_LONG + _SHORT), None)
    if _differ(together, apart):
        return "its answers come out otherwise when they are batched"
    return ""


def _step(keys: Sequence[str], *, batched: bool = False) -> Step:
    return Step(tuple(Row(key, (0,)) for key in keys), batched=batched)


def _largest(logits: mx.array) -> list[list[float]]:
    last = logits[:, -1, :].astype(mx.float32)
    mx.eval(last)
    return cast("list[list[float]]", last.tolist())


def _differ(some: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> bool:
    for row, other in zip(some, others, strict=True):
        bound = _PART * max(map(abs, other)) + 1e-6
        if not all(abs(a - b) <= bound for a, b in zip(row, other, strict=True)):  # what is no number differs too
            return True
    return False
