"""What is sent back: the same answer whole, or as chunks of a stream."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from actors.version import __version__

from . import likelihood

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.models import Token

    from .answer import Answer, Delta
    from .errors import ApiError
    from .tools import Call
    from .words import Words


class Reply(ABC):
    """Tells one answer to one client.

    Args:
        model: its name, as the client wrote it.
        words: of the model.
        logprobs: whether the client wants to know how likely the tokens were.
        include_usage: whether a stream ends with the count of its tokens.
    """

    kind: ClassVar[str]
    chunk_kind: ClassVar[str]
    prefix: ClassVar[str]
    done: ClassVar[bytes] = b"data: [DONE]\n\n"
    """What ends a stream that came to its end."""

    def __init__(self, model: str, words: Words, *, logprobs: bool, include_usage: bool) -> None:
        self.model = model
        self._words = words
        self._logprobs = logprobs
        self._include_usage = include_usage
        self._id = f"{self.prefix}-{secrets.token_hex(12)}"
        self._created = int(time.time())

    def whole(self, deltas: Sequence[Delta], answer: Answer) -> dict[str, Any]:
        """The whole answer as one object."""
        choices = []
        for index in range(len(answer.choices)):
            own = [delta for delta in deltas if delta.choice == index]
            tokens = [token for delta in own for token in delta.tokens]
            reason = next((delta.finish_reason for delta in own if delta.finish_reason), None)
            choices.append({"index": index, **self._choice(own, tokens), "finish_reason": reason})
        return {**self._head(self.kind), "choices": choices, "usage": usage(answer)}

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """Chunks that come before the first word."""
        del choices
        return []

    @abstractmethod
    def chunk(self, delta: Delta) -> list[dict[str, Any]]:
        """What has been added, as chunks."""

    def failing(self, error: ApiError) -> dict[str, Any]:
        """What tells why there is no more."""
        return error.body

    def closing(self, answer: Answer) -> list[dict[str, Any]]:
        """Chunks that come after the last word."""
        if not self._include_usage:
            return []
        return [{**self._head(self.chunk_kind), "choices": [], "usage": usage(answer)}]

    @abstractmethod
    def _choice(self, deltas: Sequence[Delta], tokens: Sequence[Token]) -> dict[str, Any]: ...

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        none = {"usage": None} if self._include_usage else {}
        return {**self._head(self.chunk_kind), "choices": [choice], **none}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self._id, "object": kind, "created": self._created, "model": self.model,
            "system_fingerprint": f"actors-{__version__}",
        }  # fmt: skip


class ChatReply(Reply):
    """Of `/v1/chat/completions`."""

    kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"
    prefix = "chatcmpl"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._calls: dict[int, int] = {}  # made so far, by choice

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """Says whose message it is."""
        said = {"role": "assistant", "content": "", "refusal": None}
        return [
            self._chunk({"index": index, "delta": said, "logprobs": None, "finish_reason": None})
            for index in range(choices)
        ]

    def chunk(self, delta: Delta) -> list[dict[str, Any]]:
        """What has been added, as a chunk."""
        added: dict[str, Any] = {}
        if delta.text:
            added["content"] = delta.text
        if delta.thought:
            added["reasoning_content"] = delta.thought
        if delta.calls:
            begin = self._calls.get(delta.choice, 0)
            self._calls[delta.choice] = begin + len(delta.calls)
            added["tool_calls"] = [{"index": begin + at, **_call(call)} for at, call in enumerate(delta.calls)]
        told = likelihood.of_chat(delta.tokens, self._words) if self._logprobs else None
        choice = {"index": delta.choice, "delta": added, "logprobs": told, "finish_reason": delta.finish_reason}
        return [self._chunk(choice)]

    def _choice(self, deltas: Sequence[Delta], tokens: Sequence[Token]) -> dict[str, Any]:
        text = "".join(delta.text for delta in deltas)
        thought = "".join(delta.thought for delta in deltas)
        calls = [call for delta in deltas for call in delta.calls]
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
        if thought:
            message["reasoning_content"] = thought
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
        return {"message": message, "logprobs": likelihood.of_chat(tokens, self._words) if self._logprobs else None}


class CompletionReply(Reply):
    """Of `/v1/completions`.

    Args:
        echo: for each choice, the prompt that is told before it; None for none.
    """

    kind = "text_completion"
    chunk_kind = "text_completion"
    prefix = "cmpl"

    def __init__(self, *arguments: Any, echo: Sequence[str] | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._echo = echo
        self._told: dict[int, int] = {}  # characters, by choice

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """Tells the prompts, where that is asked for."""
        if self._echo is None:
            return []
        return [
            self._chunk({"index": index, "text": self._echo[index], "logprobs": None, "finish_reason": None})
            for index in range(choices)
        ]

    def chunk(self, delta: Delta) -> list[dict[str, Any]]:
        """What has been added, as a chunk."""
        told = self._likelihood(delta.choice, delta.tokens)
        self._told[delta.choice] = self._told.get(delta.choice, 0) + len(delta.text)
        choice = {"index": delta.choice, "text": delta.text, "logprobs": told, "finish_reason": delta.finish_reason}
        return [self._chunk(choice)]

    def _choice(self, deltas: Sequence[Delta], tokens: Sequence[Token]) -> dict[str, Any]:
        text = "".join(delta.text for delta in deltas)
        choice = deltas[0].choice
        before = "" if self._echo is None else self._echo[choice]
        return {"text": before + text, "logprobs": self._likelihood(choice, tokens)}

    def _likelihood(self, choice: int, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self._logprobs:
            return None
        before = 0 if self._echo is None else len(self._echo[choice])
        return likelihood.of_completion(tokens, self._words, before + self._told.get(choice, 0))


def usage(answer: Answer) -> dict[str, Any]:
    """The count of an answer's tokens."""
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
