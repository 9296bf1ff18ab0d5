"""`/v1/completions`: from its fields to what the model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .engine import Order
from .errors import wrong
from .reply import CompletionReply
from .sampling import sampling

if TYPE_CHECKING:
    from .engine import Engine
    from .fields import CompletionBody

MAX_TOKENS = 16
"""Where a request does not say how many; OpenAI's own."""
MAX_PROMPTS = 128


async def completion_order(body: CompletionBody, engine: Engine) -> tuple[Order, CompletionReply]:
    """What the model is asked, and how the client is told.

    Raises:
        ApiError: something that is asked for cannot be had.
    """
    n = body.n or 1
    if body.best_of not in {None, n}:
        raise wrong("best_of", "best_of other than n is not to be had: all choices that are made are returned")
    if body.suffix:
        raise wrong("suffix", "suffix is not to be had: the model writes on, it does not fill in")
    if body.echo and body.logprobs is not None:
        raise wrong("logprobs", "logprobs of an echoed prompt are not to be had: leave out one of them")
    if body.stream_options is not None and not body.stream:
        raise wrong("stream_options", "stream_options is for streams only")
    prompts = await _prompts(body, engine)
    limit = MAX_TOKENS if body.max_tokens is None else body.max_tokens
    order = Order("prompt", prompts, n, sampling(body, max_tokens=limit, logprobs=body.logprobs))
    usage = bool(body.stream_options and body.stream_options.include_usage)
    echo = [engine.decode(prompt) for prompt in prompts for _ in range(n)] if body.echo else None
    logprobs = body.logprobs is not None
    return order, CompletionReply(body.model, engine.words, logprobs=logprobs, include_usage=usage, echo=echo)


async def _prompts(body: CompletionBody, engine: Engine) -> tuple[list[int], ...]:
    given = body.prompt
    if isinstance(given, str):
        return (await engine.encode(given),)
    if not given:
        raise wrong("prompt", "prompt is an empty list")
    if isinstance(given[0], int):
        given = [given]
    if len(given) > MAX_PROMPTS:
        raise wrong("prompt", f"{len(given)} prompts in one request; at most {MAX_PROMPTS} are taken")
    return tuple([await _tokens(prompt, engine) for prompt in given])


async def _tokens(prompt: object, engine: Engine) -> list[int]:
    if isinstance(prompt, str):
        return await engine.encode(prompt)
    assert isinstance(prompt, list)
    size = engine.model.plan.model.vocab_size
    if bad := [token for token in prompt if not 0 <= token < size]:
        raise wrong("prompt", f"{bad[0]} is no token of this model, which has {size}")
    return prompt
