"""Tokens out of logits, for one answer."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p, make_logits_processors

if TYPE_CHECKING:
    from .sampling import Request, Sampling

_CONTEXT: Final = 20  # tokens that penalties look at; mlx-lm's own
_COLD: Final = 1e-3  # temperatures below leave the likeliest token alone, and may be too small to divide by


@dataclass(frozen=True, slots=True)
class Choice:
    """A token that was chosen, with what was asked to be told about it; see `sampling.Sampling.logprobs`."""

    id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one answer, with a random state of its own: answers take turns in one process.

    The operations are mlx-lm's, so that greedy tokens are exactly those of its own loop.
    """

    def __init__(self, request: Request) -> None:
        sampling = request.sampling
        self._sampling = sampling
        self._tokens = [*request.prompt, *request.kept]
        self._prompt_length = len(request.prompt)
        self._processors = _processors(sampling)
        self._custom = None if request.processor is None else request.processor()
        self._key: mx.array | None = None
        if sampling.temperature > 0:
            self._key = mx.random.key(secrets.randbits(64) if sampling.seed is None else sampling.seed)
            for _ in request.kept:
                self._spend()

    def lazily(self, logits: mx.array) -> tuple[mx.array, mx.array]:
        """The next token (1,), and the logarithms of all probabilities (1, vocabulary), not computed yet."""
        if self._processors:
            recent = mx.array(self._tokens[-_CONTEXT:])
            for process in self._processors:
                logits = process(recent, logits)
        if self._custom is not None:
            logits = self._custom(self._tokens[self._prompt_length :], logits[0])[None]
        logprobs = logits - mx.logsumexp(logits, keepdims=True)
        return self._pick(logprobs), logprobs

    def tell(self, token: mx.array, logprobs: mx.array) -> Choice:
        """What `lazily` gave, computed and remembered."""
        number = int(_number(token))
        self._tokens.append(number)
        wanted = self._sampling.logprobs
        if wanted is None:
            return Choice(number)
        row = logprobs[0]
        if wanted == 0:
            return Choice(number, _number(row[number]))
        likeliest = mx.argpartition(-row, kth=wanted - 1)[:wanted]
        pairs = zip(_list(likeliest), _list(row[likeliest]), strict=True)
        top = sorted(((int(each), float(value)) for each, value in pairs), key=lambda pair: -pair[1])
        return Choice(number, _number(row[number]), tuple(top))

    @property
    def mark(self) -> tuple[int, mx.array | None]:
        """Where it stands, to come `back` to."""
        return len(self._tokens), self._key

    def back(self, mark: tuple[int, mx.array | None]) -> None:
        """Forget what was chosen since."""
        length, self._key = mark
        del self._tokens[length:]

    def skip(self, token: int) -> None:
        """Take a token as chosen, that was chosen elsewhere with the same random numbers."""
        self._tokens.append(token)
        if self._key is not None:
            self._spend()

    def _pick(self, logprobs: mx.array) -> mx.array:
        sampling = self._sampling
        if sampling.temperature < _COLD:
            return mx.argmax(logprobs, axis=-1)
        if sampling.top_p < 1:
            logprobs = apply_top_p(logprobs, sampling.top_p)
        if sampling.min_p > 0:
            logprobs = apply_min_p(logprobs, sampling.min_p)
        if 0 < sampling.top_k < logprobs.shape[-1]:
            logprobs = apply_top_k(logprobs, sampling.top_k)
        return mx.random.categorical(logprobs * (1.0 / sampling.temperature), key=self._spend())

    def _spend(self) -> mx.array:
        """The key of the next token: each takes one."""
        assert self._key is not None
        self._key, key = mx.random.split(self._key)
        return key


def _processors(sampling: Sampling) -> list[Any]:
    return list(
        make_logits_processors(
            logit_bias=dict(sampling.logit_bias) or None,
            repetition_penalty=sampling.repetition_penalty if sampling.repetition_penalty != 1 else None,
            presence_penalty=sampling.presence_penalty or None,
            frequency_penalty=sampling.frequency_penalty or None,
        )
    )


def _list(array: mx.array) -> list[Any]:
    values = array.tolist()
    assert isinstance(values, list)
    return values


def _number(array: mx.array) -> float:
    value = array.item()
    assert isinstance(value, int | float)
    return value
