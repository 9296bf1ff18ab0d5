"""`/v1/chat/completions`: from its fields to what the model is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from . import grammar
from .conversation import conversation
from .engine import Order
from .errors import wrong
from .fields import ObjectFormat, SchemaFormat
from .grammar import Guide
from .reply import ChatReply
from .sampling import sampling
from .tools import toolbox

if TYPE_CHECKING:
    from .engine import Engine
    from .fields import ChatBody
    from .tools import Toolbox

# What transformers takes beside what goes to the template; a template of the client's own would be a program to run.
_RESERVED: Final = frozenset(
    {
        "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length",
        "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors", "tokenize",
        "tokenizer_kwargs", "tools", "truncation",
    }
)  # fmt: skip


async def chat_order(body: ChatBody, engine: Engine) -> tuple[Order, ChatReply]:
    """What the model is asked, and how the client is told.

    Raises:
        ApiError: something that is asked for cannot be had.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise wrong("top_logprobs", "top_logprobs needs logprobs to be true")
    if body.stream_options is not None and not body.stream:
        raise wrong("stream_options", "stream_options is for streams only")
    box = toolbox(body, engine.dialect, engine.vocabulary)
    guide = await _guide(body, box, engine)
    prompt = await engine.encode_chat(conversation(body.messages), box.tools if box else None, _options(body, guide))
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    chosen = sampling(body, max_tokens=limit, logprobs=logprobs)
    order = Order("messages", (prompt,), body.n or 1, chosen, guide, box)
    usage = bool(body.stream_options and body.stream_options.include_usage)
    return order, ChatReply(body.model, engine.words, logprobs=bool(body.logprobs), include_usage=usage)


async def _guide(body: ChatBody, box: Toolbox | None, engine: Engine) -> Guide | None:
    param, text = "response_format", _form(body)
    if box is not None:
        if text is not None:
            raise wrong(param, "an answer cannot be held to a form and call tools as well: leave out one of them")
        param, text = "tools", box.grammar
    if text is None:
        return None
    if engine.vocabulary is None:
        raise wrong(
            param, f"{param} cannot be honoured: this model's tokenizer is of a kind that no grammar can follow"
        )
    guide = Guide(engine.vocabulary, text)
    await engine.check(guide, param)
    return guide


def _form(body: ChatBody) -> str | None:
    """The grammar of the answer that is asked for; None for any text."""
    match body.response_format:
        case ObjectFormat():
            return grammar.of_schema(grammar.ANY_OBJECT)
        case SchemaFormat(json_schema=named):
            return grammar.of_schema(grammar.ANY_OBJECT if named.schema_ is None else named.schema_)
    return None


def _options(body: ChatBody, guide: Guide | None) -> dict[str, Any]:
    """What the template is told besides the messages."""
    options = dict(body.chat_template_kwargs or {})
    if taken := sorted(_RESERVED & options.keys()):
        raise wrong("chat_template_kwargs", f"chat_template_kwargs may not have {taken[0]}: that is not the template's")
    if guide is not None:
        options["enable_thinking"] = False  # a form leaves no room for thoughts before it
    if body.reasoning_effort is not None:
        options["reasoning_effort"] = body.reasoning_effort
    return options
