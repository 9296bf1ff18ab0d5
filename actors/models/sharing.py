"""Which part of every layer each rank has, where layers are cut lengthwise: pure functions.

Shares need not be equal, nor divide anything: a head of keys and values, with the query heads that read it, is the
smallest piece. Ranks wait for each other after the heads and after the MLP, so that one which has more of the heads is
not helped by less of the MLP: each is dealt out by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final

from actors.exceptions import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FAMILY: Final = ("llama", "mistral", "qwen2", "qwen3")
_STEP: Final = 64  # of the MLP's numbers: a whole number of any group of quantised ones


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank has; ranges of heads of keys and values, of the MLP's inner numbers and of the vocabulary."""

    rank: int
    heads: range
    inner: range
    words: range


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the pieces of a model are."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    layers: int

    @classmethod
    def of(cls, config: Mapping[str, Any], layers: int, vocabulary: int) -> Shape:
        """From a configuration in mlx-lm's words.

        Raises:
            ModelError: it is of no architecture that can be cut so.
        """
        name = config.get("model_type")
        if name not in FAMILY:
            raise ModelError(f"strategy='tensor' is for the Llama family ({', '.join(FAMILY)}), not for {name!r}")
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            kv_heads = int(config.get("num_key_value_heads") or heads)
            head_dim = int(config.get("head_dim") or hidden // heads)
            return cls(hidden, heads, kv_heads, head_dim, int(config["intermediate_size"]), vocabulary, layers)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"strategy='tensor' cannot make out this {name} model's heads and MLP: {error}") from error

    def shares(self, speeds: Sequence[float]) -> tuple[Share, ...]:
        """Deal heads, MLP and vocabulary out, each by the speeds of the ranks.

        Raises:
            ModelError: there are more ranks than heads of keys and values.
        """
        ranks = len(speeds)
        if not 1 <= ranks <= self.kv_heads:
            raise ModelError(
                f"a model with {self.kv_heads} heads of keys and values cannot be cut over {ranks} devices by "
                "strategy='tensor'; use fewer nodes, or 'pipeline'"
            )
        heads = _dealt(self.kv_heads, speeds, 1)
        inner = _dealt(self.inner, speeds, _STEP)
        words = _dealt(self.vocabulary, speeds, 1)
        return tuple(
            Share(rank, *each) for rank, each in enumerate(zip(*map(_ranges, (heads, inner, words)), strict=True))
        )

    def part(self, share: Share) -> float:
        """How much of the work of a layer a share is."""
        head, number = self._costs
        own = head * len(share.heads) + number * len(share.inner)
        return own / (head * self.kv_heads + number * self.inner)

    @property
    def _costs(self) -> tuple[int, int]:
        """Multiplications of one head of keys and values with its queries, and of one number inside the MLP."""
        return self.head_dim * self.hidden * (2 + 2 * self.heads // self.kv_heads), 3 * self.hidden


def _dealt(count: int, weights: Sequence[float], step: int) -> list[int]:
    """Give out `count` in multiples of `step`, but for the last, by weights; each at least one step."""
    ranks = len(weights)
    if count < ranks * step:
        step = 1
    cuts = [0]
    for rank, so_far in enumerate(accumulate(weights[:-1]), 1):
        wanted = round(count * so_far / sum(weights) / step) * step
        cuts.append(min(max(wanted, cuts[-1] + step), count - (ranks - rank) * step))
    cuts.append(count)
    return [stop - start for start, stop in pairwise(cuts)]


def _ranges(counts: Sequence[int]) -> list[range]:
    return [range(start, stop) for start, stop in pairwise(accumulate(counts, initial=0))]
