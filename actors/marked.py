"""Marked methods: what `@method` leaves on a method, and how a type checker sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.options import MethodOptions
from actors.spec import METHOD_OPTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from typing import Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

    from actors.handle import RemoteMethod
    from actors.refs import ObjectRef
    from actors.stream import ObjectRefGenerator

    P = ParamSpec("P")
    T = TypeVar("T")
    Y = TypeVar("Y")
    R = TypeVar("R")

    R_co = TypeVar("R_co", covariant=True)

    class Call(Protocol[P, R_co]):
        """A remote call, as far as plain types can say it: any of the first three may be a reference to its value."""

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
        @overload
        def __call__(self, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> R_co: ...
        @overload
        def __call__(self, first: Any, second: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> R_co: ...
        @overload
        def __call__(self, first: Any, second: Any, third: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> R_co: ...

    class BoundMethod(RemoteMethod[P, R], Generic[P, T, R]):
        """A marked method of an instance: called as it is in its own class, by ``.remote`` on a handle."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
            """Calls it here."""
            ...

    class Method(Generic[P, T, R]):
        """What a marked method is in its class."""

        def __get__(self, instance: object, owner: type | None = None, /) -> BoundMethod[P, T, R]:
            """Binds it."""
            ...

    # A coroutine function is a function too: the first overload that fits is meant, here and below.
    class Mark(Protocol):
        """`method` with options, which goes before a method."""

        @overload
        def __call__(
            self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
        ) -> Method[P, Coroutine[Any, Any, T], ObjectRef[T]]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, function: Callable[Concatenate[Any, P], Iterator[Y]], /
        ) -> Method[P, Iterator[Y], ObjectRefGenerator[Y]]: ...
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, function: Callable[Concatenate[Any, P], AsyncIterator[Y]], /
        ) -> Method[P, AsyncIterator[Y], ObjectRefGenerator[Y]]: ...
        @overload
        def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Method[P, T, ObjectRef[T]]: ...

    class OpenMark:
        """`method` with ``num_returns``: what a call gives cannot be told from the types."""

        def __call__(self, function: Callable[Concatenate[Any, P], T], /) -> Method[P, T, Any]:
            """Marks a method."""
            ...


class Marked:
    """A class to inherit from whose remote methods are all marked by `method`.

    It changes nothing but what a type checker knows without the plugin ``actors.mypy``: an actor's handle has the
    class's own methods, and each has its own parameters.
    """

    __slots__ = ()


if TYPE_CHECKING:

    @overload
    def method(
        function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]], /
    ) -> Method[P, Coroutine[Any, Any, T], ObjectRef[T]]: ...
    @overload
    def method(  # type: ignore[overload-overlap]
        function: Callable[Concatenate[Any, P], Iterator[Y]], /
    ) -> Method[P, Iterator[Y], ObjectRefGenerator[Y]]: ...
    @overload
    def method(  # type: ignore[overload-overlap]
        function: Callable[Concatenate[Any, P], AsyncIterator[Y]], /
    ) -> Method[P, AsyncIterator[Y], ObjectRefGenerator[Y]]: ...
    @overload
    def method(function: Callable[Concatenate[Any, P], T], /) -> Method[P, T, ObjectRef[T]]: ...
    @overload
    def method(*, num_returns: int | str, **options: Any) -> OpenMark: ...
    @overload
    def method(**options: Any) -> Mark: ...


def method(function: Any = None, /, **options: Any) -> Any:
    """Sets options of a method where it is written; see `actors.options.MethodOptions`.

    Without options, ``@method`` alone, it only marks the method as a remote one, for readers and type checkers.

    Raises:
        TypeError: an option nobody knows, or what is marked is no method.
        ValueError: a value out of range.
    """
    if function is None:
        chosen = MethodOptions().merged(**options)
        return lambda function: _mark(function, chosen)
    if options:
        raise TypeError("@actors.method takes options by name alone, before what it decorates: @actors.method(...)")
    return _mark(function, MethodOptions())


def _mark(function: Any, chosen: MethodOptions) -> Any:
    if not callable(function) or isinstance(function, type):
        raise TypeError(f"@actors.method goes before a method, not {function!r}; options are given by name")
    setattr(function, METHOD_OPTIONS, chosen)
    return function
