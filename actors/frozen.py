"""Frozen classes: those that are made with every call, and those that are sent to processes of other versions."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Makes a slotted dataclass that nobody changes: a type checker sees to it, and not each assignment.

    Where Python itself is to refuse changes (``dataclass(frozen=True)``), making an object takes four times as long,
    and a call makes a dozen.
    """
    return travelling(dataclass(slots=True, unsafe_hash=True)(cls))


def travelling(cls: type[T]) -> type[T]:
    """Lets a dataclass with slots grow at its end, by fields that have defaults, though versions of it meet.

    Pickled it is the list of its fields. What the list of an older version lacks has its default; what that of a newer
    one has beyond is left out.
    """
    known = fields(cls)  # type: ignore[arg-type]

    def state(self: T) -> list[Any]:
        return [getattr(self, each.name) for each in known]

    def restore(self: T, state: list[Any]) -> None:
        for each, value in zip(known, state, strict=False):
            object.__setattr__(self, each.name, value)
        for each in known[len(state) :]:
            if each.default is not MISSING:
                object.__setattr__(self, each.name, each.default)
            elif each.default_factory is not MISSING:
                object.__setattr__(self, each.name, each.default_factory())

    cls.__getstate__, cls.__setstate__ = state, restore  # type: ignore[assignment, attr-defined]
    return cls
