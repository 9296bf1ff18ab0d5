"""`/v1/responses`: OpenAI's newer form of a conversation, told as the older one. Nothing is kept between requests."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from .errors import wrong
from .fields import Body, ChatBody, Real, Said, check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .answer import Answer, Delta
    from .errors import ApiError
    from .tools import Call


class Item(Said):
    """A part of the input: a message, a call that the model made, or what came of it."""

    type: str = "message"
    role: str | None = None
    content: Any = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Any = None


class TextBody(Body):
    """The form of the answer."""

    format: dict[str, Any] | None = None
    verbosity: Any = None


class Reasoning(Body):
    """How much is thought."""

    effort: str | None = None
    summary: Any = None
    generate_summary: Any = None


class ResponsesBody(Body):
    """The fields of a request."""

    model: str
    input: str | list[Item]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[Real, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Real, Field(ge=0, le=1)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    # Taken without effect.
    include: list[str] | None = None
    stream_options: Any = None
    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None

    def as_chat(self) -> dict[str, Any]:
        """The same request in the older form.

        Raises:
            ApiError: it has something that cannot be had.
        """
        messages = [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        items = [Item(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        for number, item in enumerate(items):
            messages += _messages(number, item)
        told = {
            "model": self.model, "messages": messages, "stream": self.stream, "temperature": self.temperature,
            "max_completion_tokens": self.max_output_tokens, "top_p": self.top_p,
            "tools": [_tool(number, tool) for number, tool in enumerate(self.tools or [])] or None,
            "tool_choice": _choice(self.tool_choice), "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": None if self.text is None else _format(self.text.format),
            "reasoning_effort": None if self.reasoning is None else self.reasoning.effort,
        }  # fmt: skip
        return {name: value for name, value in told.items() if value is not None}


def chat_body(body: ResponsesBody) -> ChatBody:
    """The same request as a chat.

    Raises:
        ApiError: it has something that cannot be had.
    """
    return check(ChatBody, body.as_chat())


class ResponseReply:
    """Tells one answer as a response, whole or event by event; see `reply.Reply`.

    Args:
        model: its name, as the client wrote it.
    """

    done = b""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = f"resp_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._number = 0  # of the next event
        self._items: list[dict[str, Any]] = []
        self._open = False  # whether the last item is a message that is being written
        self._ended = "completed"

    def whole(self, deltas: Sequence[Delta], answer: Answer) -> dict[str, Any]:
        """The whole answer as one object."""
        for delta in deltas:
            self.chunk(delta)
        self._close()
        return self._response(self._ended, answer)

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """Events that come before the first word."""
        del choices
        response = self._response("in_progress", None)
        return [self._event(kind, response=response) for kind in ("response.created", "response.in_progress")]

    def chunk(self, delta: Delta) -> list[dict[str, Any]]:
        """What has been added, as events."""
        told = []
        if delta.text:
            told += self._begin() if not self._open else []
            part = self._items[-1]["content"][0]
            part["text"] += delta.text
            told.append(self._event("response.output_text.delta", **self._place(), delta=delta.text, logprobs=[]))
        for call in delta.calls:
            told += [*self._close(), *self._call(call)]
        if delta.finish_reason == "length":
            self._ended = "incomplete"
        return told

    def closing(self, answer: Answer) -> list[dict[str, Any]]:
        """Events that come after the last word."""
        return [*self._close(), self._event(f"response.{self._ended}", response=self._response(self._ended, answer))]

    def failing(self, error: ApiError) -> dict[str, Any]:
        """An event that tells why there is no more."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _begin(self) -> list[dict[str, Any]]:
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item: dict[str, Any] = {
            "id": f"msg_{secrets.token_hex(16)}", "type": "message", "role": "assistant", "status": "in_progress",
            "content": [],
        }  # fmt: skip
        self._items.append(item)
        self._open = True
        added = self._event("response.output_item.added", output_index=len(self._items) - 1, item={**item})
        item["content"] = [part]
        return [added, self._event("response.content_part.added", **self._place(), part={**part})]

    def _close(self) -> list[dict[str, Any]]:
        if not self._open:
            return []
        self._open = False
        item = self._items[-1]
        item["status"] = "completed"
        (part,) = item["content"]
        return [
            self._event("response.output_text.done", **self._place(), text=part["text"], logprobs=[]),
            self._event("response.content_part.done", **self._place(), part=part),
            self._event("response.output_item.done", output_index=len(self._items) - 1, item=item),
        ]

    def _call(self, call: Call) -> list[dict[str, Any]]:
        item = {
            "id": f"fc_{secrets.token_hex(16)}", "type": "function_call", "call_id": call.id, "name": call.name,
            "arguments": call.arguments, "status": "completed",
        }  # fmt: skip
        self._items.append(item)
        place = {"output_index": len(self._items) - 1, "item_id": item["id"]}
        begun = {**item, "arguments": "", "status": "in_progress"}
        return [
            self._event("response.output_item.added", output_index=place["output_index"], item=begun),
            self._event("response.function_call_arguments.delta", **place, delta=call.arguments),
            self._event("response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments),
            self._event("response.output_item.done", output_index=place["output_index"], item=item),
        ]

    def _place(self) -> dict[str, Any]:
        return {"output_index": len(self._items) - 1, "item_id": self._items[-1]["id"], "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **fields}

    def _response(self, status: str, answer: Answer | None) -> dict[str, Any]:
        return {
            "id": self._id, "object": "response", "created_at": self._created, "model": self._model, "status": status,
            "output": list(self._items), "error": None, "instructions": None, "metadata": {},
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": None, "top_p": None,
            "usage": None if answer is None else _usage(answer),
        }  # fmt: skip


def _messages(number: int, item: Item) -> list[dict[str, Any]]:
    match item.type:
        case "message":
            return [{"role": item.role, "content": item.content}]
        case "function_call":
            called = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": called}
            return [{"role": "assistant", "content": None, "tool_calls": [call]}]
        case "function_call_output":
            return [{"role": "tool", "tool_call_id": item.call_id, "content": item.output}]
        case "reasoning":
            return []
    raise wrong(f"input.{number}.type", f"input of type {item.type!r} is not to be had here")


def _tool(number: int, tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise wrong(
            f"tools.{number}.type", f"tools of type {tool.get('type')!r} are not to be had here, only functions"
        )
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _format(form: dict[str, Any] | None) -> dict[str, Any] | None:
    if form is None or form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: value for name, value in form.items() if name != "type"}}


def _usage(answer: Answer) -> dict[str, Any]:
    prompt, completion = answer.prompt_tokens, answer.completion_tokens
    return {
        "input_tokens": prompt, "input_tokens_details": {"cached_tokens": answer.cached_tokens},
        "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }  # fmt: skip
