"""Classes that are sent pickled may grow at their end, though processes of two versions talk to each other."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
from dataclasses import dataclass, field
from typing import Any

import pytest

from actors.frozen import frozen, travelling

MODULES = (
    "address", "demand", "environment", "events.event", "events.view", "failure", "messages", "node.copies",
    "nodeinfo", "options", "sealed", "spec", "strategy",
)  # fmt: skip


def versions(kind: Any) -> tuple[type, type]:
    @kind
    class Older:
        name: str
        count: int = 0

    @kind
    class Newer:
        name: str
        count: int = 0
        more: str = "as ever"
        items: list[int] = field(default_factory=list)

    return Older, Newer


def sent(value: object, name: str, known_as: type) -> Any:
    """Pickles a value in a process that knows its class, and unpickles it where that is another version of it."""
    globals()["Older"] = globals()["Newer"] = type(value)
    type(value).__qualname__ = type(value).__name__ = name
    pickled = pickle.dumps(value)
    known_as.__qualname__ = known_as.__name__ = name
    globals()[name] = known_as
    return pickle.loads(pickled)


@pytest.mark.parametrize("kind", [frozen, lambda cls: travelling(dataclass(frozen=True, slots=True)(cls))])
def test_a_newer_field_has_its_default_and_an_unknown_one_is_left_out(kind: Any) -> None:
    older, newer = versions(kind)
    assert sent(older("a", 3), "Older", newer) == newer("a", 3, "as ever", [])
    older, newer = versions(kind)
    assert sent(newer("b", 4, "else", [1]), "Newer", older) == older("b", 4)


@pytest.mark.parametrize("module", MODULES)
def test_what_travels_is_made_for_it(module: str) -> None:
    found = vars(importlib.import_module(f"actors.{module}")).values()
    classes = [one for one in found if isinstance(one, type) and dataclasses.is_dataclass(one)]
    own = [cls for cls in classes if cls.__module__ == f"actors.{module}"]
    assert own
    for cls in own:
        if not cls.__name__.startswith("_"):
            assert cls.__setstate__.__module__ == "actors.frozen", cls
