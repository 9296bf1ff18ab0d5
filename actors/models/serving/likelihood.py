"""How likely the tokens of an answer were, in the shapes that clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.models import Token

    from .words import Words

_NEVER: Final = -9999.0


def of_chat(tokens: Sequence[Token], words: Words) -> dict[str, Any]:
    """The `logprobs` of a chat's choice."""
    return {"content": [_told(token, words) for token in tokens if not words.ends(token.id)], "refusal": None}


def of_completion(tokens: Sequence[Token], words: Words, offset: int) -> dict[str, Any]:
    """The `logprobs` of a completion's choice, whose text goes on at `offset`."""
    told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for token in tokens:
        if words.ends(token.id):
            continue
        told["tokens"].append(words.spelled(token.id)[0])
        told["token_logprobs"].append(_finite(token.logprob))
        told["top_logprobs"].append(
            {words.spelled(other)[0]: _finite(logprob) for other, logprob in token.top_logprobs}
        )
        told["text_offset"].append(offset)
        offset += len(token.text)
    return told


def _told(token: Token, words: Words) -> dict[str, Any]:
    others = [_entry(other, logprob, words) for other, logprob in token.top_logprobs]
    return {**_entry(token.id, token.logprob, words), "top_logprobs": others}


def _entry(token: int, logprob: float | None, words: Words) -> dict[str, Any]:
    text, spelled = words.spelled(token)
    return {"token": text, "logprob": _finite(logprob), "bytes": spelled}


def _finite(logprob: float | None) -> float | None:
    """JSON knows no infinity; OpenAI's own word for "never" is this."""
    return None if logprob is None else max(logprob, _NEVER)
