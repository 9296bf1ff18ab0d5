"""Code that travels by value brings its lines along, for tracebacks where its file is not."""

from __future__ import annotations

import linecache
from typing import TYPE_CHECKING, Any

import pytest

from actors import sources
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "<a cell of a test>"
TEXT = """# above
def outer(x):
    def inner():
        return 1 / x  # the inner line
    return inner()
# below
"""


@pytest.fixture
def outer() -> Iterator[Any]:
    linecache.cache[NAME] = (len(TEXT), None, TEXT.splitlines(keepends=True), NAME)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(TEXT, NAME, "exec"), names)
    yield names["outer"]
    linecache.cache.pop(NAME, None)


def test_the_lines_of_a_function_are_known_where_it_arrives(outer: Any) -> None:
    payload = dumps(outer)
    del linecache.cache[NAME]
    there = loads(payload)
    assert there.__code__.co_filename == NAME
    linecache.checkcache()
    assert linecache.getline(NAME, 4) == "        return 1 / x  # the inner line\n"
    assert linecache.getline(NAME, 1).strip() == ""
    with pytest.raises(ZeroDivisionError):
        there(0)


def test_a_text_goes_once_for_all_that_is_inside(outer: Any) -> None:
    assert dumps(outer).pickle.count(b"the inner line") == 1


def test_another_file_of_that_name_gives_way(tmp_path: Path) -> None:
    file = tmp_path / "program.py"
    file.write_text("one\ntwo\nthree\n")
    sources.keep(str(file), 2, "two\n")
    assert linecache.getline(str(file), 3) == "three\n"  # the same as far as it is known
    sources.keep(str(file), 2, "zwei\n")
    assert [linecache.getline(str(file), number) for number in (1, 2, 3)] == ["one\n", "zwei\n", "three\n"]
    sources.keep(str(file), 5, "fünf\n")
    assert [linecache.getline(str(file), number) for number in (2, 5)] == ["zwei\n", "fünf\n"]


def test_what_nobody_knows_or_is_too_long_is_left_out(outer: Any) -> None:
    assert sources.text_of(compile("def f(): pass", "<nowhere>", "exec").co_consts[0]) == ""
    linecache.cache[NAME] = (0, None, ["x = 1\n" * sources.MOST_CHARACTERS] * 5, NAME)
    assert sources.text_of(outer.__code__) == ""
    sources.keep(NAME, 1, "")
