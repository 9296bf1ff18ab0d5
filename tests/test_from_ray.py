"""What is said of Ray is so: the page's names are there, and the table of features says what was measured."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import actors

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "from-ray.md").read_text("utf-8")
KEPT = json.loads((ROOT / "benchmarks" / "features.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def features() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("features")
    finally:
        sys.path.pop(0)


def first_cells(title: str) -> str:
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE))


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`(from actors[\w.]* import [\w, ]+)`", PAGE))))
def test_imports_that_replace_rays_work(line: str) -> None:
    module, _, names = line.removeprefix("from ").partition(" import ")
    for name in names.split(", "):
        assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`ray\.([a-z][\w.]*)`", PAGE.partition("## ")[0]))))
def test_names_of_ray_are_there(name: str) -> None:
    value: Any = actors
    for part in name.split("."):
        value = getattr(value, part)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(\w+)=`", first_cells("Not here")))))
def test_what_is_not_here_is_refused_with_a_reason(option: str) -> None:
    with pytest.raises(NotImplementedError, match="is not honoured: "):
        actors.remote(type("Thing", (), {})).options(**{option: None})


def test_the_table_says_what_was_measured(features: Any) -> None:
    assert (ROOT / "benchmarks" / "features.md").read_text("utf-8") == features.table(KEPT)


def test_no_row_differs_without_a_reason(features: Any) -> None:
    rows = {f"{topic}.{row['name']}": row for topic, found in KEPT["rows"].items() for row in found}
    assert set(rows) == set(KEPT["ray"]) == set(KEPT["actors"])
    differ = [
        name
        for name, row in rows.items()
        if features.verdict(row, KEPT["ray"][name], KEPT["actors"][name]) == "DIFFERS"
    ]
    assert differ == []


def test_nothing_hangs_here() -> None:
    assert [name for name, outcome in KEPT["actors"].items() if outcome in {"hangs", "the program dies"}] == []
