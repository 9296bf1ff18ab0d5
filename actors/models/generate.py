"""Tokens from a model whose last stage is here.

The loop does what mlx-lm's `generate_step` does, prompt chunk for prompt chunk and operation for operation, so that
greedy tokens are exactly those of the whole model. It differs in one thing: mlx-lm begins the next step before it
hands out a token, which hides the cost of Python but not that of asking other stages. Here each token goes out as soon
as it is known, and no step is computed for a token that nobody wants.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import mlx.core as mx
from mlx_lm.sample_utils import apply_top_p

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

PREFILL_CHUNK: Final = 2048  # tokens; mlx-lm's own, since other chunks round differently


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest token; more is more random.
        top_p: sample among the likeliest tokens that together have this probability, above 0 and up to 1.
        seed: the same seed gives the same tokens; None a different one each time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.temperature) and 0 <= self.temperature < float("inf")):
            raise ValueError(f"temperature is {self.temperature!r}; it must be a number from 0")
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p is {self.top_p!r}; it must be a number above 0 and at most 1")
        if self.seed is not None and not (_is_whole(self.seed) and 0 <= self.seed < 2**64):
            raise ValueError(f"seed is {self.seed!r}; it must be None or a whole number from 0, below 2**64")


class Steps(Protocol):
    """A model that goes on with one sequence; see `stage.Pipeline`."""

    def prefill(self, ids: Sequence[int]) -> None:
        """Take tokens in, without asking what comes next."""
        ...

    def logits(self, ids: Sequence[int]) -> mx.array:
        """Take tokens in, and give the logits (1, vocabulary) of what comes next."""
        ...


def check_request(prompt: Sequence[int], max_tokens: int) -> None:
    """See whether there is something to go on from, and a sensible end.

    Raises:
        ValueError: the prompt is empty, or max_tokens is no whole number from 0.
    """
    if not len(prompt):
        raise ValueError("the prompt has no tokens; a model needs at least one to go on from")
    if not (_is_whole(max_tokens) and max_tokens >= 0):
        raise ValueError(f"max_tokens is {max_tokens!r}; it must be a whole number from 0")


def generate(
    steps: Steps, prompt: Sequence[int], *, max_tokens: int, sampling: Sampling, stop_ids: Collection[int] = ()
) -> Iterator[int | None]:
    """Yield the tokens that follow `prompt`, at most `max_tokens`; a token of `stop_ids` is the last one yielded.

    None is yielded after each piece of a long prompt, so that others get their turn and the work can be stopped.

    Raises:
        ValueError: see `check_request`.
    """
    check_request(prompt, max_tokens)
    return _generate(steps, prompt, max_tokens, _Sampler(sampling), stop_ids)


def _generate(
    steps: Steps, prompt: Sequence[int], max_tokens: int, sampler: _Sampler, stop_ids: Collection[int]
) -> Iterator[int | None]:
    if max_tokens == 0:
        return
    head, ids = prompt[:-1], prompt[-1:]
    for start in range(0, len(head), PREFILL_CHUNK):
        steps.prefill(head[start : start + PREFILL_CHUNK])
        mx.clear_cache()
        yield None
    for _ in range(max_tokens):
        token = sampler(steps.logits(ids))
        yield token
        if token in stop_ids:
            return
        ids = [token]


class _Sampler:
    """Chooses tokens for one sequence, with a random state of its own: sequences take turns in one process."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        if sampling.temperature > 0:
            self._key = mx.random.key(secrets.randbits(64) if sampling.seed is None else sampling.seed)

    def __call__(self, logits: mx.array) -> int:
        logprobs = logits - mx.logsumexp(logits, keepdims=True)
        if self._sampling.temperature == 0:
            return _only(mx.argmax(logprobs, axis=-1))
        if self._sampling.top_p < 1:
            logprobs = apply_top_p(logprobs, self._sampling.top_p)
        self._key, key = mx.random.split(self._key)
        return _only(mx.random.categorical(logprobs * (1.0 / self._sampling.temperature), key=key))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _only(token: mx.array) -> int:
    value = token.item()
    assert isinstance(value, int)
    return value
