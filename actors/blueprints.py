"""Blueprints: classes as they travel, kept for as long as nothing has changed that went into them.

A class that travels by value is sent with all that its methods refer to, and any of that may be another by the next
time, as in a notebook. To look whether it is takes a tenth of pickling it.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import fields
from operator import is_
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GenericAlias,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
    UnionType,
)
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from actors.options import MethodOptions
from actors.serialize import dumps, globals_of, travels_by_name, travels_by_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from actors.messages import Payload

KEPT_CLASSES = 16  # with all that they refer to

_FIXED = {  # nothing in them can change
    bool, int, float, complex, str, bytes, type(None), type(...), type(NotImplemented), GetSetDescriptorType,
    MemberDescriptorType,
}  # fmt: skip
_ABOUT_MODULE = ("__package__", "__name__", "__path__", "__file__")  # of a function's, which travel with it
_MISSING = object()


class _ChangeableError(Exception):
    """Something went into it that may change unseen."""


class _Parts:
    """What goes into a class's pickle: that, and only that, which it refers to now.

    Raises:
        _ChangeableError: a part may change without becoming another object, such as a list.
    """

    def __init__(self, cls: type) -> None:
        self._met: set[int] = set()
        self._names: list[tuple[Mapping[str, Any], str, object]] = []
        self._sizes: list[tuple[Mapping[str, Any], int]] = []
        self._states: list[tuple[Callable[[Any], tuple[object, ...]], object, tuple[object, ...]]] = []
        self._cells: list[tuple[CellType, object]] = []
        self._add(cls)

    @property
    def are_same(self) -> bool:
        """Whether each is the object that it was."""
        # Plain loops, since this is done for each actor: `all` of a generator takes twice as long.
        for names, name, value in self._names:
            if names.get(name, _MISSING) is not value:
                return False
        for names, size in self._sizes:
            if len(names) != size:
                return False
        for state_of, thing, state in self._states:
            if not all(map(is_, state_of(thing), state)):
                return False
        return all(_content(cell) is value for cell, value in self._cells)

    def _add(self, value: Any) -> None:
        kind = type(value)
        if kind in _FIXED or id(value) in self._met:
            return
        self._met.add(id(value))  # what is met is kept by what refers to it
        if kind is tuple or kind is frozenset:
            self._each(value)
        elif kind is staticmethod or kind is classmethod:
            self._add(value.__func__)
        elif kind is property:
            self._each((value.fget, value.fset, value.fdel, value.__doc__))
        elif kind is GenericAlias or kind is UnionType:
            self._each(value.__args__)
            self._add(getattr(value, "__origin__", None))
        elif kind is MethodOptions:
            self._each(getattr(value, field.name) for field in fields(value))
        elif kind is ModuleType:
            if not travels_by_name(value):
                raise _ChangeableError
        elif kind is BuiltinFunctionType:
            self._add(value.__self__)
        elif not isinstance(value, type | FunctionType):
            raise _ChangeableError
        elif travels_by_value(value):
            self._class(value) if isinstance(value, type) else self._function(value)

    def _each(self, values: Iterable[Any]) -> None:
        for value in values:
            self._add(value)

    def _all_of(self, names: Mapping[str, Any]) -> None:
        self._sizes.append((names, len(names)))
        for name, value in tuple(names.items()):
            self._names.append((names, name, value))
            self._all_of(value) if name == "__annotations__" and type(value) is dict else self._add(value)

    def _class(self, cls: type) -> None:
        if type(cls) is not type:  # a metaclass may have it pickled in its own way
            raise _ChangeableError
        self._states.append((_state_of_class, cls, _state_of_class(cls)))
        self._each(cls.__bases__)
        self._all_of(vars(cls))

    def _function(self, function: FunctionType) -> None:
        code, names = function.__code__, function.__globals__
        self._states.append((_state, function, _state(function)))
        self._each(function.__defaults__ or ())
        for attributes in (function.__kwdefaults__, function.__annotations__, vars(function)):
            if attributes is not None:
                self._all_of(attributes)
        for name in _ABOUT_MODULE:
            self._names.append((names, name, names.get(name, _MISSING)))
        variables = [(names, name, names.get(name, _MISSING)) for name in globals_of(code)]
        cells = [(cell, _content(cell)) for cell in function.__closure__ or ()]
        self._names += variables
        self._cells += cells
        for value in (*(value for *_, value in variables), *(value for _, value in cells)):
            if value is not _MISSING:
                self._add(value)
            if isinstance(value, ModuleType):
                self._submodules(value.__name__, code)

    def _submodules(self, package: str, code: CodeType) -> None:
        """Those that are loaded and that the function may mean are named in the pickle as well."""
        for name in code.co_names:
            full = f"{package}.{name}"
            self._names.append((sys.modules, full, sys.modules.get(full, _MISSING)))
            if full in sys.modules:
                self._submodules(full, code)


def _state(function: FunctionType) -> tuple[object, ...]:
    f = function
    # The last two are made when they are first asked for, and then stay the same.
    return (
        f.__code__, f.__defaults__, f.__kwdefaults__, f.__name__, f.__qualname__, f.__module__, f.__doc__,
        f.__annotations__, f.__dict__,
    )  # fmt: skip


def _state_of_class(cls: type) -> tuple[object, ...]:
    return cls.__bases__, cls.__name__, cls.__qualname__


def _content(cell: CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return _MISSING


_kept: OrderedDict[type, tuple[_Parts, Payload]] = OrderedDict()
_changeable: WeakSet[type] = WeakSet()


def blueprint(cls: type) -> Payload:
    """Returns a class as `actors.serialize.dumps` pickles it now; mostly, as it was pickled before.

    Raises:
        SerializationError: it cannot be pickled; the message names the part that cannot.
    """
    known = _kept.get(cls)
    if known is not None and known[0].are_same:
        return known[1]
    parts = _parts(cls)
    pickled = dumps(cls)
    _kept.pop(cls, None)
    # What is counted for each message that it is in is not for several; and it may have changed meanwhile.
    if parts is not None and not pickled.holds and not pickled.buffers and parts.are_same:
        _kept[cls] = parts, pickled
        while len(_kept) > KEPT_CLASSES:
            _kept.popitem(last=False)
    return pickled


def _parts(cls: type) -> _Parts | None:
    if cls in _changeable:
        return None
    try:
        return _Parts(cls)
    except _ChangeableError:
        _changeable.add(cls)
        return None
