"""Groups: actors with a rank each, called together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, overload

from actors.engine import chosen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import ParamSpec, TypeVar

    from actors.handle import ActorHandle

    C = TypeVar("C", default=Any)  # a checker knows defaults, which the oldest Python here does not
    P = ParamSpec("P", default=...)
    R = TypeVar("R", default=Any)
else:
    from typing import ParamSpec, TypeVar

    C, P, R = TypeVar("C"), ParamSpec("P"), TypeVar("R")


class ActorGroup(Generic[C]):
    """Actors in rank order. ``group.method.remote(x)`` calls all of them with the same arguments."""

    __slots__ = ("_handles", "_id")

    def __init__(self, id: str, handles: Sequence[ActorHandle[C]]) -> None:
        self._id = id
        self._handles = tuple(handles)

    @property
    def id(self) -> str:
        """What tells this group from all others."""
        return self._id

    def __len__(self) -> int:
        return len(self._handles)

    def __iter__(self) -> Iterator[ActorHandle[C]]:
        return iter(self._handles)

    @overload
    def __getitem__(self, index: int) -> ActorHandle[C]: ...
    @overload
    def __getitem__(self, index: slice) -> ActorGroup[C]: ...
    def __getitem__(self, index: int | slice) -> ActorHandle[C] | ActorGroup[C]:
        if isinstance(index, slice):
            return ActorGroup(self._id, self._handles[index])
        try:
            return self._handles[index]
        except IndexError:
            raise IndexError(f"there is no rank {index} in a group of {len(self)}: take 0 to {len(self) - 1}") from None

    def __getattr__(self, name: str) -> GroupMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return GroupMethod([getattr(handle, name) for handle in self._handles], name)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *(dir(self._handles[0]) if self._handles else [])]

    def __reduce__(self) -> tuple[Any, ...]:
        return (ActorGroup, (self._id, self._handles))

    def __repr__(self) -> str:
        return f"ActorGroup({', '.join(map(repr, self._handles))})"

    def kill(self) -> None:
        """Ends all actors of the group at once."""
        for handle in self._handles:
            chosen().kill(handle, no_restart=True)


class GroupMethod(Generic[P, R]):
    """A method of all actors of a group."""

    __slots__ = ("_methods", "_name")

    def __init__(self, methods: Sequence[Any], name: str) -> None:
        self._methods = methods
        self._name = name

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> list[R]:
        """Calls every actor with the same arguments; returns the references in rank order."""
        return [method.remote(*args, **kwargs) for method in self._methods]

    def map(self, values: Iterable[Any]) -> list[R]:
        """Calls each actor with an argument of its own, in rank order.

        Raises:
            ValueError: there are not as many values as actors.
        """
        values = list(values)
        if len(values) != len(self._methods):
            raise ValueError(f"{self._name}.map needs one value for each of {len(self._methods)} actors: {len(values)}")
        return [method.remote(value) for method, value in zip(self._methods, values, strict=True)]
