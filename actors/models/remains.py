"""What is left of the caches of sequences after the death of a stage, and how much of each can be gone on with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Remains:
    """Caches of one sequence that somebody still has.

    Attributes:
        key: what the sequence was called.
        tokens: that are in these caches.
        places: of the caches in the list of all (see `saved`).
    """

    key: str
    tokens: tuple[int, ...]
    places: tuple[int, ...]


def agreed(found: Iterable[Remains], places: Collection[int]) -> dict[str, tuple[int, ...]]:
    """The tokens of each sequence that are in a cache at every place, whoever has it.

    Stages that were ahead of others, or of what they had sent, have more; that is done without. A sequence that
    nobody has at one of the places is left out.

    Args:
        found: what all stages have; of one place, the one with most tokens counts.
        places: all that a sequence must have.
    """
    best: dict[str, dict[int, tuple[int, ...]]] = {}
    for each in found:
        known = best.setdefault(each.key, {})
        known |= {place: max(known.get(place, ()), each.tokens, key=len) for place in each.places}
    whole = {key: _common(known.values()) for key, known in best.items() if known.keys() >= set(places)}
    return {key: tokens for key, tokens in whole.items() if tokens}


def _common(sequences: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """What all of them begin with."""
    distinct = set(sequences)
    first = min(distinct, key=len)
    same = takewhile(lambda column: len(set(column)) == 1, zip(*distinct, strict=False))
    return first[: sum(1 for _ in same)]


def check_shadow(checkpoint: Checkpoint) -> None:
    """See that a neighbour can be sent what a stage adds to its caches, token by token.

    Raises:
        ModelError: the model has caches that change otherwise.
    """
    from mlx_lm.models.cache import KVCache, make_prompt_cache

    caches: list[Any] = make_prompt_cache(checkpoint.load(1, 0))  # no layer's weights are needed
    odd = next((each for each in caches if each is not None and type(each) is not KVCache), None)
    if odd is not None:
        raise ModelError(
            f"{checkpoint.path} keeps a {type(odd).__name__}, which changes as a whole with every token: shadow=True "
            "is for models with full attention alone. Load it without; answers then go on by computing tokens again"
        )
