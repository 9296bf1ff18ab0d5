"""What is asked of a model: a prompt, how tokens are chosen, and where the answer ends. Plain data that travels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from actors.exceptions import ModelError

if TYPE_CHECKING:
    import mlx.core as mx

    Processor = Callable[[list[int], mx.array], mx.array]

MOST_LOGPROBS: Final = 20  # alternatives told with a token


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest token; more is more random.
        top_p: sample among the likeliest tokens that together have this probability, above 0 and up to 1.
        top_k: sample among this many of the likeliest tokens; 0 among all.
        min_p: leave out tokens whose probability is below this part of the likeliest one's, from 0 to 1.
        repetition_penalty: above 1, makes the last 20 tokens less likely to come again; 1 changes nothing.
        presence_penalty: taken off the logit of each of the last 20 tokens, from -2 to 2.
        frequency_penalty: the same, once for each time that the token occurred.
        logit_bias: pairs of a token and what is added to its logit.
        seed: the same seed gives the same tokens; None a different one each time.
        logprobs: None tells none; 0 the logarithm of the probability of each token; more, those of that many of the
            likeliest as well.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _expect("temperature", self.temperature, _is_number(self.temperature) and self.temperature >= 0,
                "a number from 0")  # fmt: skip
        _expect("top_p", self.top_p, _is_number(self.top_p) and 0 < self.top_p <= 1, "a number above 0 and at most 1")
        _expect("top_k", self.top_k, _is_whole(self.top_k) and self.top_k >= 0, "a whole number from 0")
        _expect("min_p", self.min_p, _is_number(self.min_p) and 0 <= self.min_p <= 1, "a number from 0 to 1")
        penalty = self.repetition_penalty
        _expect("repetition_penalty", penalty, _is_number(penalty) and penalty > 0, "a number above 0")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            _expect(name, value, _is_number(value) and -2 <= value <= 2, "a number from -2 to 2")
        _expect("seed", self.seed, self.seed is None or (_is_whole(self.seed) and 0 <= self.seed < 2**64),
                "None or a whole number from 0, below 2**64")  # fmt: skip
        told = self.logprobs
        _expect("logprobs", told, told is None or (_is_whole(told) and 0 <= told <= MOST_LOGPROBS),
                f"None or a whole number from 0 to {MOST_LOGPROBS}")  # fmt: skip

    @classmethod
    def of(cls, *, logit_bias: Mapping[int, float] | None = None, **settings: Any) -> Self:
        """Make it of a user's arguments.

        Raises:
            ValueError: one is out of its range.
            TypeError: there is no such argument.
        """
        known = [each.name for each in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise TypeError(f"an answer takes no {', '.join(unknown)}; how its tokens are chosen: {', '.join(known)}")
        if logit_bias is None:
            return cls(**settings)
        wrong = f"logit_bias is {logit_bias!r}; it must be a mapping of token ids to numbers"
        if not isinstance(logit_bias, Mapping):
            raise TypeError(wrong)
        if not all(_is_whole(token) and token >= 0 and _is_number(bias) for token, bias in logit_bias.items()):
            raise ValueError(wrong)
        return cls(logit_bias=tuple(logit_bias.items()), **settings)


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: how many tokens at most, those of `kept` included.
        sampling: how they are chosen.
        chunk: tokens of the prompt that are taken in at once; other chunks round differently.
        stop_ids: tokens that end the answer.
        kept: tokens of the answer that are there already; the model is taken through them again.
        processor: makes, where the tokens are chosen, a function of all tokens of the answer so far and the logits
            (vocabulary) of the next, which returns the logits to use.
        moved: the stages may have its caches from others, which gave the answer until now.
        key: what its sequence is called in all stages, where somebody stands beside it; its caches are then its own.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    chunk: int = 64
    stop_ids: frozenset[int] = frozenset()
    kept: tuple[int, ...] = ()
    processor: Callable[[], Processor] | None = None
    moved: bool = False
    key: str | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ValueError("the prompt has no tokens; a model needs at least one to go on from")
        _expect("max_tokens", self.max_tokens, _is_whole(self.max_tokens) and self.max_tokens >= 0,
                "a whole number from 0")  # fmt: skip

    @property
    def slots(self) -> int:
        """Places in the caches that it may come to need."""
        return len(self.prompt) + self.max_tokens

    def check_vocabulary(self, size: int) -> None:
        """See that all its tokens exist.

        Raises:
            ValueError: one does not.
        """
        for token in (*self.prompt, *(token for token, _ in self.sampling.logit_bias)):
            if not (_is_whole(token) and 0 <= token < size):  # MLX would read whatever lies beyond the table
                raise ValueError(f"token {token} is not in the vocabulary, which has the ids 0 to {size - 1}")

    def going_on(self, kept: Sequence[int], *, moved: bool = False) -> Request:
        """The same request, of whose answer `kept` is there."""
        return replace(self, kept=tuple(kept), moved=moved)


def check_stops(stop: str | Sequence[str]) -> tuple[str, ...]:
    """Texts that end an answer, as a tuple.

    Raises:
        ValueError: one is empty, or no text.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for each in stops:
        if not isinstance(each, str) or not each:
            raise ValueError(f"stop has {each!r} in it; it must be texts that are not empty")
    return stops


def refuse_if_never(request: Request, limit: int) -> None:
    """See that a request can be served at all.

    Raises:
        ModelError: it needs more places in the caches than there are.
    """
    if request.slots > limit:
        raise ModelError(
            f"{len(request.prompt)} tokens of prompt and up to {request.max_tokens} of answer do not fit: the caches "
            f"of all requests have room for {limit} tokens. Ask for fewer, or load the model with a larger kv_memory"
        )


def _expect(name: str, value: object, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r}; it must be {what}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
