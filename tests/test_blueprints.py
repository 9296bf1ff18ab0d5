"""Classes that travel by value are pickled once, and anew as soon as anything has changed that goes with them."""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

import actors
from actors.blueprints import KEPT_CLASSES, blueprint
from actors.serialize import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = '''
import json
import math
import xml

SCALE = 3
LIMITS = (1, 2)

def scaled(value, by=2, *, more=1):
    return value * SCALE * by + more + math.floor(0.5)

def made():
    offset = 5
    def inner(value):
        return value + offset
    return inner

added = made()

class Base:
    def twice(self, value):
        return added(added(value))

class Other(Base):
    pass

class Refused(Exception):
    reason = "old"

class Thing(Base):
    """A thing."""
    kind: int = 1
    limits = LIMITS

    def scale(self, value: int) -> "int":
        return scaled(value) + later(value)

    @method(max_task_retries=2, retry_exceptions=(Refused,))
    def tried(self):
        raise Refused

    @staticmethod
    def plain(value):
        return json.dumps(value)

    @classmethod
    def of(cls):
        return cls()

    @property
    def size(self):
        return scaled(1)

    def parsed(self, text):
        return xml.sax.parseString(text)

    def other(self):
        return super().twice(1)
'''


def _notebook(source: str = SOURCE) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "a_notebook", "method": actors.method}
    exec(compile(source, "a notebook", "exec"), names)
    return names


def _set(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda names: names.__setitem__(name, value)


def _in_class(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda names: setattr(names["Thing"], name, value)


def _another(self: object, value: int) -> int:
    return value


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "a global number": _set("SCALE", 4),
    "a global that was not there": _set("later", lambda value: value),
    "a builtin's name": _set("super", lambda: None),
    "a function that a method names": _set("scaled", lambda value: value),
    "that function's code": lambda names: setattr(names["scaled"], "__code__", (lambda value, by, *, more: 0).__code__),
    "its defaults": lambda names: setattr(names["scaled"], "__defaults__", (7,)),
    "its defaults by name": lambda names: names["scaled"].__kwdefaults__.__setitem__("more", 9),
    "its attributes": lambda names: setattr(names["scaled"], "note", "new"),
    "its documentation": lambda names: setattr(names["scaled"], "__doc__", "new"),
    "a variable of a function around one": lambda names: setattr(
        names["added"].__closure__[0], "cell_contents", 6
    ),
    "a method": _in_class("scale", _another),
    "its bases": lambda names: setattr(names["Thing"], "__bases__", (names["Other"],)),
    "its name": _in_class("__name__", "Something"),
    "an error that a method is called again for": lambda names: setattr(names["Refused"], "reason", "new"),
    "a new method": _in_class("new", _another),
    "a plain attribute": _in_class("kind", 2),
    "an attribute less": lambda names: delattr(names["Thing"], "limits"),
    "a base's method": lambda names: setattr(names["Base"], "twice", _another),
    "an annotation": lambda names: names["Thing"].__annotations__.__setitem__("kind", str),
    "a method's annotation": lambda names: names["Thing"].scale.__annotations__.__setitem__("value", float),
    "a module's place": _set("__file__", "/elsewhere"),
    "a submodule that is loaded": lambda _: sys.modules.__setitem__("xml.sax", types.ModuleType("xml.sax")),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_seen_and_nothing_else_pickles_anew(
    change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("xml.sax")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xml.sax", None)  # put back as it was in the end
    monkeypatch.delitem(sys.modules, "xml.sax")
    names = _notebook()
    cls = names["Thing"]
    first = blueprint(cls)
    assert first.pickle == dumps(cls).pickle
    assert blueprint(cls) is first, "pickled again, with nothing changed"
    change(names)
    second = blueprint(cls)
    assert second.pickle == dumps(cls).pickle
    assert second.pickle != first.pickle, "this change cannot show whether it was seen"


UNSEEN = ("[1]", "{'a': 1}", "set()", "object()", "type('Meta', (type,), {})('Made', (), {})")


@pytest.mark.parametrize("value", UNSEEN)
def test_what_may_change_unseen_is_never_kept(value: str) -> None:
    names = _notebook(f"shared = {value}\nclass Thing:\n    def get(self):\n        return shared\n")
    cls = names["Thing"]
    assert blueprint(cls) is not blueprint(cls)
    names["shared"] = 1
    assert blueprint(cls).pickle == dumps(cls).pickle


def test_few_are_kept() -> None:
    classes = [_notebook()["Thing"] for _ in range(KEPT_CLASSES + 1)]
    first = [blueprint(cls) for cls in classes]
    assert blueprint(classes[-1]) is first[-1]
    assert blueprint(classes[0]) is not first[0]


def test_a_class_of_an_installed_package_goes_by_its_name() -> None:
    assert blueprint(types.SimpleNamespace) is blueprint(types.SimpleNamespace)
    assert blueprint(types.SimpleNamespace).pickle == dumps(types.SimpleNamespace).pickle
