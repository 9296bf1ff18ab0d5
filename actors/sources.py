"""The text of code that travels by value: so that tracebacks and debuggers show its lines where the file is not."""

from __future__ import annotations

import linecache
from types import CodeType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_CHARACTERS = 20_000  # of one function; a longer one travels without its text


def nested_in(code: CodeType) -> Iterator[CodeType]:
    """Returns the code of all functions inside a function."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from nested_in(constant)


def text_of(code: CodeType) -> str:
    """Returns the lines of a function as they are in its file; empty where nobody knows them."""
    lines = linecache.getlines(code.co_filename)
    if not lines:
        return ""
    numbers = [line for each in (code, *nested_in(code)) for *_, line in each.co_lines() if line]
    text = "".join(lines[code.co_firstlineno - 1 : max(numbers, default=code.co_firstlineno)])
    return text if len(text) <= MOST_CHARACTERS else ""


def keep(filename: str, first: int, text: str) -> None:
    """Makes lines of a file known to this process, beginning at one. They go before those of a file of that name."""
    lines = text.splitlines(keepends=True)
    if not lines:
        return
    known = linecache.getlines(filename)
    if known[first - 1 : first - 1 + len(lines)] == lines:
        return
    kept = [*known, *["\n"] * (first - 1 + len(lines) - len(known))]
    kept[first - 1 : first - 1 + len(lines)] = lines
    # Without a time of its file linecache leaves it as it is.
    linecache.cache[filename] = (sum(map(len, kept)), None, kept, filename)
