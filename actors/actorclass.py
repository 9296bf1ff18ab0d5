"""Actor classes: what `@remote` makes of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from actors.engine import chosen
from actors.options import ActorOptions, TaskOptions
from actors.signed import Signed, signed
from actors.spec import describe
from actors.task import RemoteFunction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol, overload

    from typing_extensions import ParamSpec, TypeVar

    from actors.group import ActorGroup
    from actors.handle import ActorHandle
    from actors.marked import Marked
    from actors.refs import ObjectRef
    from actors.stream import ObjectRefGenerator

    C = TypeVar("C", default=Any)
    P = ParamSpec("P", default=...)
    M = TypeVar("M", bound=Marked)
    C_co = TypeVar("C_co", covariant=True, default=Any)
    T = TypeVar("T")
    Y = TypeVar("Y")

    class _Class(Protocol[P, C_co]):
        """A class, which a function is not, and its constructor's parameters."""

        def mro(self) -> list[type]: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C_co: ...

    class Remote(Protocol):
        """`remote` with options, which goes before a class or a function."""

        @overload
        def __call__(self, cls: _Class[P, C], /) -> ActorClass[P, C]: ...  # type: ignore[overload-overlap]
        @overload
        def __call__(  # type: ignore[overload-overlap]
            self, function: Callable[P, Iterator[Y]], /
        ) -> RemoteFunction[P, ObjectRefGenerator[Y]]: ...
        @overload
        def __call__(self, function: Callable[P, T], /) -> RemoteFunction[P, ObjectRef[T]]: ...

    class OpenRemote:
        """`remote` with ``num_returns``: what a call gives cannot be told from the types."""

        def __call__(self, function: Callable[P, Any], /) -> RemoteFunction[P, Any]:
            """Decorates a function."""
            ...

else:
    from typing import ParamSpec, TypeVar

    C, P = TypeVar("C"), ParamSpec("P")


class ActorClass(Generic[P, C]):
    """A class whose instances live in processes of their own.

    Attributes:
        cls: the plain class, for use here.
    """

    def __init__(self, cls: type[C], options: ActorOptions) -> None:
        self.cls = cls
        self._options = options
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__

    if TYPE_CHECKING:

        @overload
        def remote(  # type: ignore[overload-overlap]  # the first that fits is meant
            self: ActorClass[P, M], *args: P.args, **kwargs: P.kwargs
        ) -> M: ...
        @overload
        def remote(self, *args: P.args, **kwargs: P.kwargs) -> ActorHandle[C]: ...
        @overload
        def remote(self, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorHandle[C]: ...
        @overload
        def remote(self, first: Any, second: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorHandle[C]: ...

        def remote(self, *args: Any, **kwargs: Any) -> Any:
            """Makes an actor and returns a handle at once."""
            ...

    else:

        @signed
        def remote(self) -> Signed:
            """Makes an actor and returns a handle at once.

            An error of its constructor is raised by the first call, as `ActorDiedError`.

            Raises:
                TypeError: the arguments do not fit the constructor, or cannot be pickled.
                ActorAlreadyExistsError: another actor has the name.
            """
            return Signed(_make, self.cls, self._options)

    def options(self, **options: Any) -> ActorClass[P, C]:
        """Returns the same class with other options; see `actors.options.ActorOptions`."""
        return ActorClass(self.cls, self._options.merged(**options))

    if TYPE_CHECKING:

        @overload
        def group(self, size: int, *args: P.args, **kwargs: P.kwargs) -> ActorGroup[C]: ...
        @overload
        def group(self, size: int, first: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ActorGroup[C]: ...

    def group(self, size: int, *args: Any, **kwargs: Any) -> Any:
        """Makes ``size`` actors that know each other's rank, spread over the nodes.

        Raises:
            ValueError: ``size`` is not a whole number from 1.
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"a group has at least one actor: size={size!r}")
        describe(self.cls).constructor.check(args, kwargs)
        return chosen().create_group(self.cls, self._options, size, args, kwargs)

    if not TYPE_CHECKING:  # what only refuses is an error for a type checker without them

        def __call__(self, *_: Any, **__: Any) -> Any:
            """Refuses: an actor is not made like a plain object."""
            name = self.cls.__name__
            raise TypeError(f"use {name}.remote(...) to make an actor, or {name}.cls(...) to make a plain object here")

        def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
            """Refuses: what is inherited from is the plain class."""
            name = self.cls.__name__
            raise TypeError(f"{name} is an actor class: inherit from {name}.cls, and decorate the subclass")

        def __getattr__(self, name: str) -> Any:
            cls = self.__dict__.get("cls")
            if cls is None or not hasattr(cls, name):
                raise AttributeError(f"{self!r} has no attribute {name!r}")
            if callable(getattr(cls, name)):
                what = f"{name!r} is called on an actor: make one first, by {cls.__name__}.remote(...)"
                raise AttributeError(what)  # noqa: TRY004 - hasattr must go on working
            raise AttributeError(f"{name!r} belongs to the plain class: use {cls.__name__}.cls.{name}")

    def __reduce__(self) -> tuple[Any, ...]:
        return (ActorClass, (self.cls, self._options))

    def __repr__(self) -> str:
        return f"ActorClass({self.cls.__qualname__})"


def _make(cls: type, options: ActorOptions, /, *args: Any, **kwargs: Any) -> ActorHandle:
    describe(cls).constructor.check(args, kwargs)
    return chosen().create_actor(cls, options, args, kwargs)


if TYPE_CHECKING:

    @overload
    def remote(cls: _Class[P, C], /) -> ActorClass[P, C]: ...  # type: ignore[overload-overlap]
    @overload
    def remote(  # type: ignore[overload-overlap]
        function: Callable[P, Iterator[Y]], /
    ) -> RemoteFunction[P, ObjectRefGenerator[Y]]: ...
    @overload
    def remote(function: Callable[P, T], /) -> RemoteFunction[P, ObjectRef[T]]: ...
    @overload
    def remote(*, num_returns: int | str, **options: Any) -> OpenRemote: ...
    @overload
    def remote(**options: Any) -> Remote: ...


def remote(thing: Any = None, /, **options: Any) -> Any:
    """Turns a class into an actor class, or a function into one that runs on workers; takes their options.

    Raises:
        TypeError: it was given neither, or an option nobody knows.
        NotImplementedError: an option that is not honoured.
    """
    if thing is not None and options:
        raise TypeError("@actors.remote takes options by name alone, before what it decorates: @actors.remote(...)")
    if thing is None:
        if not options:
            raise TypeError("@actors.remote() needs options; without any leave the parentheses out")
        return lambda thing: _remote(thing, options)
    return _remote(thing, {})


def _remote(thing: Any, options: dict[str, Any]) -> Any:
    if isinstance(thing, ActorClass | RemoteFunction):
        raise TypeError(f"{thing!r} is remote already")
    if isinstance(thing, type):
        return ActorClass(thing, ActorOptions().merged(**options))
    if callable(thing):
        return RemoteFunction(thing, TaskOptions().merged(**options))
    raise TypeError(f"@actors.remote goes before a class or a function, not {thing!r}; options are given by name")
