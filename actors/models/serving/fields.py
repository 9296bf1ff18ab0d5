"""The bodies of requests: which fields there are, of what type, within which bounds.

A field that cannot be honoured is refused. A few change nothing that a server of one's own could do, and are taken
without effect: who the user is, whether to keep the answer, how it is billed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import ApiError, wrong

MAX_CHOICES = 128
MAX_STOPS = 16
MAX_TOP_LOGPROBS = 20

Real = Annotated[float, Field(allow_inf_nan=False)]
Stops = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else [] if value is None else value),
    Field(max_length=MAX_STOPS),
]


class Body(BaseModel):
    """What the fields of every body are held to: no unknown ones, and no numbers as texts."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StreamOptions(Body):
    """What a stream tells besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingBody(Body):
    """How the next token is chosen, and when it is enough."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[Real, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Real, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[Real, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Real, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[Real, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Real, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, Annotated[Real, Field(ge=-100, le=100)]], Field(max_length=1024)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: Stops = []
    # Taken without effect.
    user: Any = None
    store: Any = None
    metadata: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    prediction: Any = None  # makes an answer quicker, not another one


class CompletionBody(SamplingBody):
    """`/v1/completions`: text that goes on."""

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None
    suffix: str | None = None


class FunctionBody(Body):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(Body):
    """A tool; there are functions only."""

    type: Literal["function"]
    function: FunctionBody


class NamedFunction(Body):
    """The function that has to be called."""

    name: str


class NamedTool(Body):
    """The tool that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class SchemaBody(Body):
    """A JSON schema by name."""

    name: str
    description: str | None = None
    # "schema" is a method of pydantic's own.
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(Body):
    """JSON of one shape."""

    type: Literal["json_schema"]
    json_schema: SchemaBody


Format = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class Said(Body):
    """A piece of an answer that comes back: what clients have added to it is no fault."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Part(Said):
    """A part of a message's content."""

    type: str
    text: str | None = None


class CalledFunction(Said):
    """The function of an earlier call."""

    name: str
    arguments: str


class CalledTool(Said):
    """A call that the model made earlier."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Said):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None


class ChatBody(SamplingBody):
    """`/v1/chat/completions`: the next message of a conversation."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    tools: list[ToolBody] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Any = None  # a hint


BodyT = TypeVar("BodyT", bound=Body)


def read(kind: type[BodyT], raw: bytes) -> BodyT:
    """Makes fields of a body.

    Raises:
        ApiError: it is not JSON, or a field is missing, unknown or out of its range.
    """
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise _told(error) from None


def check(kind: type[BodyT], fields: dict[str, Any]) -> BodyT:
    """Makes a body of fields that are read already.

    Raises:
        ApiError: as `read`.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _told(error) from None


def _told(error: ValidationError) -> ApiError:
    """The first fault of a body, in words."""
    first = error.errors(include_url=False, include_context=False)[0]
    # Of a choice between types, pydantic puts the name of the type it tried into the path.
    path = [str(step) for step in first["loc"] if isinstance(step, int) or step not in _TYPES]
    param = ".".join(path) or None
    match first["type"]:
        case "json_invalid":
            return wrong(None, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", "invalid_json")
        case "missing":
            return wrong(param, f"you must provide {param}", "missing_required_parameter")
        case "extra_forbidden":
            return wrong(param, f"unrecognized request argument: {param}", "unknown_parameter")
        case "model_type":
            return wrong(param, f"{param or 'the body'} must be a JSON object", "invalid_type")
    said = first["msg"][0].lower() + first["msg"][1:]
    return wrong(param, f"invalid {param}: {said} (it is {_short(first['input'])})", "invalid_value")


_TYPES = frozenset(
    {"str", "list[str]", "list[int]", "list[list[int]]", "list[Part]", "NamedTool", "literal['none','auto','required']"}
)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"
