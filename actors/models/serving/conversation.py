"""Conversations, as chat templates take them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .errors import wrong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fields import CalledTool, Message, Part


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages of a request as a template takes them.

    Raises:
        ApiError: a message has a part that is no text, or says nothing.
    """
    return [_message(number, message) for number, message in enumerate(messages)]


def _message(number: int, message: Message) -> dict[str, Any]:
    where = f"messages.{number}"
    if message.content is None and not message.tool_calls:
        raise wrong(f"{where}.content", f"{where} has no content")
    told: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": _text(where, message.content),
    }
    if message.name is not None:
        told["name"] = message.name
    if message.tool_calls:
        told["tool_calls"] = [_called(f"{where}.tool_calls.{at}", call) for at, call in enumerate(message.tool_calls)]
    if message.role == "tool":
        if message.tool_call_id is None:
            raise wrong(f"{where}.tool_call_id", f"{where} answers a call, but does not say which one")
        told["tool_call_id"] = message.tool_call_id
    return told


def _text(where: str, content: str | list[Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for at, part in enumerate(content):
        if part.type not in {"text", "input_text", "output_text"} or part.text is None:
            raise wrong(f"{where}.content.{at}", f"this model takes text only, not a part of type {part.type!r}")
    return "".join(part.text or "" for part in content)


def _called(where: str, call: CalledTool) -> dict[str, Any]:
    """A call, with its arguments as the object that templates turn into JSON."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError:
        raise wrong(f"{where}.function.arguments", f"{where}: its arguments are not JSON") from None
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}
