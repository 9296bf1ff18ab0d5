"""Why a value cannot be sent: its parts, tried one by one."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from actors.exceptions import SerializationError
from actors.sealed import of_value

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True, eq=False)
class FailureTuple:
    """A part that cannot be sent.

    Attributes:
        obj: the part.
        path: the names that lead to it.
        parent: what it is a part of; None for the whole.
    """

    obj: Any
    path: tuple[str, ...]
    parent: Any

    @property
    def name(self) -> str:
        """What its parent calls it."""
        return self.path[-1] if self.path else "unknown"

    def __repr__(self) -> str:
        path = " -> ".join(self.path) or "unknown"
        return f"FailTuple({self.name} [path={path}, obj={_shown(self.obj)}, parent={_shown(self.parent)}])"


def inspect_serializability(
    base_obj: Any, name: str | None = None, depth: int = 3, print_file: TextIO | None = None
) -> tuple[bool, set[FailureTuple]]:
    """Finds out which parts of a value keep it from being sent to an actor, and prints what was tried.

    Args:
        base_obj: the value: an object, a function or a class.
        name: what to call it; None takes its own name, or that of its class.
        depth: how deep to look for the parts: attributes, items, and the variables that a function uses.
        print_file: where to print; None prints to standard output.

    Returns:
        Whether it can be sent, and the smallest parts found that cannot.
    """
    if name is None:
        name = getattr(base_obj, "__name__", type(base_obj).__name__)
    report = _Report(print_file)
    report.title(f"Can {name} be sent? {_shown(base_obj)}")
    failures: set[FailureTuple] = set()
    if _try(base_obj, (name,), report, 0):
        report.line(0, "It can.")
        return True, failures
    _search(base_obj, (name,), None, depth, failures, report)
    for failure in failures:
        report.line(0, f"{' -> '.join(failure.path)} cannot be sent: {_shown(failure.obj)}")
    report.line(0, "Leave it out, or make it where it is used: in the method, the function or the constructor.")
    return False, failures


class _Report:
    def __init__(self, file: TextIO | None) -> None:
        self._file = file

    def title(self, text: str) -> None:
        rule = "=" * min(len(text), 80)
        print(rule, text, rule, sep="\n", file=self._file)

    def line(self, level: int, text: str) -> None:
        print("    " * level + text, file=self._file)


def _search(  # noqa: PLR0917 - one caller beside itself
    value: Any, path: tuple[str, ...], parent: Any, depth: int, failures: set[FailureTuple], report: _Report
) -> None:
    found = False
    if depth > 0:
        for name, part in _parts(value):
            if not _try(part, (*path, name), report, len(path)):
                _search(part, (*path, name), value, depth - 1, failures, report)
                found = True
    if not found:
        failures.add(FailureTuple(value, path, parent))


def _try(value: Any, path: tuple[str, ...], report: _Report, level: int) -> bool:
    try:
        of_value(value)
    except SerializationError as error:
        report.line(level, f"{path[-1]}: cannot be sent: {error}")
        return False
    report.line(level, f"{path[-1]}: can be sent")
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"[{_shown(key)}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    elif inspect.ismethod(value):
        yield "__self__", value.__self__
        yield "__func__", value.__func__
    elif inspect.isfunction(value):
        used = inspect.getclosurevars(value)
        yield from used.nonlocals.items()
        yield from used.globals.items()
    elif isinstance(value, type):
        yield from ((name, part) for name, part in vars(value).items() if inspect.isfunction(part) or name[:2] != "__")
    else:
        yield from getattr(value, "__dict__", {}).items()
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in {"__dict__", "__weakref__"} and hasattr(value, name):
                    yield name, getattr(value, name)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        return f"<a {type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:200]}…"
