"""Fingerprints of classes: whether two are the same code, also where one was defined anew from the same text."""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import sys
from dataclasses import fields, is_dataclass
from enum import Enum
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

from actors.packages import travels_by_value, version_of

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
# What Python itself writes into a class, or what only says where and how it was written.
_NO_CODE = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__annotate__", "__annotate_func__",
    "__annotations_cache__", "__slotnames__", "__firstlineno__", "__static_attributes__", "__parameters__",
    "__orig_bases__", "_abc_impl",
}  # fmt: skip
_ANOTHER_PYTHON = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}:"


def fingerprint(cls: type) -> str:
    """Returns a text that is the same for classes of equal code, in every process of one Python version.

    A class that travels by value is known by its code: methods, defaults, plain attributes, bases, and the functions
    and classes of its own module that they name. Comments and line numbers do not count, nor do the values of global
    variables. An installed class is known by its name and its package's version.
    """
    digest = _Digest()
    digest.add(cls)
    return _ANOTHER_PYTHON + digest.text()


def differ(one: str, other: str) -> bool:
    """Whether two fingerprints are of different code; those of two versions of Python cannot be compared."""
    return bool(one and other) and one.partition(":")[0] == other.partition(":")[0] and one != other


class _Digest:
    """Takes in values one after the other, each marked with its kind."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._met: dict[int, int] = {}  # classes, functions and containers by id, which may refer to each other
        self._kept: list[Any] = []  # so that no id is used twice

    def text(self) -> str:
        return self._hash.hexdigest()[:32]

    def _mark(self, *words: object) -> None:
        self._hash.update(repr(words).encode(errors="surrogatepass"))

    def add(self, value: Any) -> None:
        """Takes in one value."""
        if isinstance(value, _PLAIN):
            self._mark(type(value).__name__, value)
            return
        if isinstance(value, tuple | frozenset):  # whether equal ones are one object is up to Python
            self._container(value)
            return
        if id(value) in self._met:
            self._mark("again", self._met[id(value)])
            return
        self._met[id(value)] = len(self._met)
        self._kept.append(value)
        if isinstance(value, type):
            self._class(value)
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, CodeType):
            self._code(value)
        elif isinstance(value, Enum):
            self._mark("enum", type(value).__qualname__, value.name)
        elif isinstance(value, list | set | dict):
            self._container(value)
        else:
            self._object(value)

    def _container(self, value: Any) -> None:
        if isinstance(value, set | frozenset):
            self._mark(type(value).__name__, *sorted(_one(item) for item in value))
            return
        self._mark(type(value).__name__, len(value))
        self._each(value)
        if isinstance(value, dict):
            self._each(value.values())

    def _each(self, values: Any) -> None:
        for value in values:
            self.add(value)

    def _class(self, cls: type) -> None:
        if not travels_by_value(cls.__module__):
            self._mark("class", cls.__module__, cls.__qualname__, version_of(cls.__module__))
            return
        self._mark("class", cls.__qualname__, type(cls).__qualname__)
        self._each(cls.__bases__)
        for name in sorted(vars(cls).keys() - _NO_CODE):
            self._mark(name)
            self.add(vars(cls)[name])

    def _function(self, function: FunctionType) -> None:
        if not travels_by_value(function.__module__):
            self._mark("function", function.__module__, function.__qualname__, version_of(function.__module__))
            return
        self._mark("function", function.__qualname__)
        self._each((function.__code__, function.__defaults__, function.__kwdefaults__))
        self._each(vars(function).get(name) for name in sorted(vars(function)))
        for cell in function.__closure__ or ():
            self.add(cell.cell_contents if cell != CellType() else None)
        for name in sorted(_globals_in(function.__code__)):
            found = function.__globals__.get(name)
            if isinstance(found, type | FunctionType) and found.__module__ == function.__module__:
                self._mark(name)
                self.add(found)

    def _code(self, code: CodeType) -> None:
        self._mark(
            "code", code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags,
        )  # fmt: skip
        self._each(code.co_consts)

    def _object(self, value: Any) -> None:
        kind = type(value)
        self._mark("object", kind.__module__, kind.__qualname__)
        match value:
            case staticmethod() | classmethod() | MethodType():
                self.add(value.__func__)
            case property():
                self._each((value.fget, value.fset, value.fdel))
            case functools.partial() | functools.partialmethod():
                self._each((value.func, value.args, value.keywords))
            case functools.cached_property():
                self.add(value.func)
            case _ if is_dataclass(value) and not isinstance(value, type):
                self._each(getattr(value, field.name) for field in fields(value))
            case _ if callable(wrapped := inspect.getattr_static(value, "__wrapped__", None)):
                self.add(wrapped)


def _one(value: Any) -> str:
    digest = _Digest()
    digest.add(value)
    return digest.text()


def _globals_in(code: CodeType) -> set[str]:
    """Returns the global names that a function reads, and those in it; attributes' names are others."""
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _globals_in(constant)
    return names
