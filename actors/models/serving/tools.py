"""Tools: how a model's chat template has them called, and the calls in its answers."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from . import grammar
from .errors import wrong
from .fields import NamedTool
from .scanner import Mark, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.models import Tokenizer

    from .fields import ChatBody, FunctionBody
    from .grammar import Vocabulary

_ANYTHING: Final[dict[str, Any]] = {"type": "object"}
_JSON_CALLS: Final = "json_tools"  # mlx-lm's name for {"name": …, "arguments": …} between marks


@dataclass(frozen=True, slots=True)
class Call:
    """A call that a model wants to be made; `arguments` are JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Dialect:
    """How a model writes calls, by mlx-lm's parsers."""

    name: str
    mark: Mark
    parse: Callable[[str, Any], Any]

    def calls(self, segment: Segment, tools: Sequence[dict[str, Any]]) -> list[Call] | None:
        """The calls in a segment; None where it is not what this model's calls look like."""
        try:
            parsed = self.parse(segment.text, list(tools))
            each = parsed if isinstance(parsed, list) else [parsed]
            return [_call(one) for one in each]
        except Exception:  # parsers raise anything over text that a model made up
            return None


def dialect_of(tokenizer: Tokenizer) -> Dialect | None:
    """How the model writes calls, or None where its template knows of no tools."""
    from mlx_lm.tokenizer_utils import _infer_tool_parser

    template = tokenizer.inner.chat_template
    if not isinstance(template, str) or "tools" not in template:
        return None
    name = _infer_tool_parser(tokenizer.inner)
    if name is None:
        return None
    module = import_module(f"mlx_lm.tool_parsers.{name}")
    return Dialect(name, Mark("call", module.tool_call_start, module.tool_call_end), module.parse_tool_call)


@dataclass(frozen=True)
class Toolbox:
    """The tools of one request.

    Attributes:
        tools: as the template takes them.
        grammar: which calls can be written, and whether one must be; None leaves it to the model.
        single: the answer ends with the first call.
    """

    dialect: Dialect
    tools: tuple[dict[str, Any], ...]
    grammar: str | None
    single: bool


def toolbox(body: ChatBody, dialect: Dialect | None, vocabulary: Vocabulary | None) -> Toolbox | None:
    """The tools of a request, or None where it has none to use.

    Raises:
        ApiError: the model knows of no tools, or cannot be made to call the one that is asked for.
    """
    choice = body.tool_choice
    if not body.tools:
        if choice not in {None, "none", "auto"}:
            raise wrong("tool_choice", "tool_choice needs tools, and there are none")
        return None
    if choice == "none":
        return None
    if dialect is None:
        raise wrong("tools", "this model's chat template has no tools: leave them out, or serve a model that has them")
    functions = [tool.function for tool in body.tools]
    single = body.parallel_tool_calls is False or isinstance(choice, NamedTool)
    tools = tuple(tool.model_dump(exclude_none=True) for tool in body.tools)
    return Toolbox(dialect, tools, _grammar(functions, choice, dialect, vocabulary, single), single)


def _grammar(
    functions: list[FunctionBody],
    choice: str | NamedTool | None,
    dialect: Dialect,
    vocabulary: Vocabulary | None,
    single: bool,
) -> str | None:
    forced = choice == "required" or isinstance(choice, NamedTool)
    if isinstance(choice, NamedTool):
        functions = [each for each in functions if each.name == choice.function.name]
        if not functions:
            raise wrong("tool_choice", f"no tool is called {choice.function.name!r}")
    strict = any(each.strict for each in functions)
    if not (forced or strict):
        return None
    if dialect.name != _JSON_CALLS or vocabulary is None:
        param, what = ("tool_choice", "be made to call a tool") if forced else ("tools", "be held to strict tools")
        raise wrong(param, f"this model cannot {what}: it writes calls in the manner of {dialect.name}")
    return (
        _forced(functions, dialect.mark, vocabulary, single) if forced else _free(functions, dialect.mark, vocabulary)
    )


def _forced(functions: list[FunctionBody], mark: Mark, vocabulary: Vocabulary, single: bool) -> str:
    """One call or more, and nothing else."""
    calls = " | ".join(f"call_{number}" for number in range(len(functions)))
    lines = [f"start: call{'' if single else chr(32) + '(' + json.dumps(chr(10)) + ' call)*'}", f"call: {calls}"]
    for number, function in enumerate(functions):
        opening = f'\n{{"name": {json.dumps(function.name)}, "arguments": '
        schema = json.dumps(grammar.spaced(_arguments(function)))
        start = mark.start if _is_special(mark.start, vocabulary) else json.dumps(mark.start)
        end = mark.end if _is_special(mark.end, vocabulary) else json.dumps(mark.end)
        lines.append(f'call_{number}: {start} {json.dumps(opening)} %json {schema} "}}\\n" {end}')
    return "%llguidance {}\n" + "\n".join(lines)


def _free(functions: list[FunctionBody], mark: Mark, vocabulary: Vocabulary) -> str:
    """Any text; where a call begins, one that is right."""
    from llguidance import StructTag

    tags = [
        StructTag(
            trigger=mark.start,
            begin=f'{mark.start}\n{{"name": {json.dumps(function.name)}, "arguments": ',
            grammar=grammar.spaced(_arguments(function)),
            end="}\n" + mark.end,
        )
        for function in functions
    ]
    return StructTag.to_grammar(tags, assume_special=_is_special(mark.start, vocabulary))


def _arguments(function: FunctionBody) -> dict[str, Any]:
    return function.parameters or _ANYTHING


def _is_special(text: str, vocabulary: Vocabulary) -> bool:
    """Whether a mark is one special token, which a grammar calls by its name instead of its letters."""
    tokenizer = vocabulary.tokenizer()
    tokens = tokenizer.tokenize_str(text)
    return len(tokens) == 1 and tokenizer.is_special_token(tokens[0])


def _call(parsed: dict[str, Any]) -> Call:
    name, arguments = parsed["name"], parsed.get("arguments", {})
    if not isinstance(name, str):
        raise TypeError
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, ensure_ascii=False)
    return Call(str(parsed.get("id") or f"call_{secrets.token_hex(12)}"), name, arguments)
