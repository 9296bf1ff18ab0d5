"""How the next token is chosen, as the model takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import wrong

if TYPE_CHECKING:
    from .fields import SamplingBody


def sampling(body: SamplingBody, *, max_tokens: int | None, logprobs: int | None) -> dict[str, Any]:
    """The fields of a body that say how to choose tokens, under `ShardedModel.submit`'s names.

    Raises:
        ApiError: a bias for something that is no token.
    """
    temperature = 1.0 if body.temperature is None else body.temperature
    top_p = 1.0 if body.top_p is None else body.top_p
    chosen = {
        "temperature": temperature if top_p > 0 else 0.0,  # of the likeliest tokens, only the first
        "top_p": top_p or 1.0,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": _bias(body.logit_bias),
        "seed": None if body.seed is None else body.seed % 2**64,
        "stop": tuple(body.stop),
        "max_tokens": max_tokens,
        "logprobs": logprobs,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def _bias(bias: dict[str, float] | None) -> dict[int, float] | None:
    if not bias:
        return None
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError:
        raise wrong("logit_bias", "logit_bias goes from the numbers of tokens to what is added to each") from None
