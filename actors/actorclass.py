"""Actor classes: what `@remote` makes of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from actors.creation import create_actor, create_group
from actors.options import ActorOptions, MethodOptions, TaskOptions
from actors.spec import METHOD_OPTIONS, describe
from actors.task import RemoteFunction

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.group import ActorGroup
    from actors.handle import ActorHandle

C = TypeVar("C")
P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")


class ActorClass(Generic[C]):
    """A class whose instances live in processes of their own.

    Attributes:
        cls: the plain class, for use here.
    """

    def __init__(self, cls: type[C], options: ActorOptions) -> None:
        self.cls = cls
        self._options = options
        self.__doc__ = cls.__doc__
        self.__name__ = cls.__name__

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Makes an actor and returns a handle at once.

        An error of its constructor is raised by the first call, as `ActorDiedError`.

        Raises:
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
            ActorAlreadyExistsError: another actor has the name.
        """
        describe(self.cls).constructor.check(args, kwargs)
        return create_actor(self.cls, self._options, args, kwargs)

    def options(self, **options: Any) -> ActorClass[C]:
        """Returns the same class with other options; see `actors.options.ActorOptions`."""
        return ActorClass(self.cls, self._options.merged(**options))

    def group(self, size: int, *args: Any, **kwargs: Any) -> ActorGroup:
        """Makes ``size`` actors that know each other's rank, spread over the nodes.

        Raises:
            ValueError: ``size`` is not a whole number from 1.
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
        """
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"a group has at least one actor: size={size!r}")
        describe(self.cls).constructor.check(args, kwargs)
        return create_group(self.cls, self._options, size, args, kwargs)

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


@overload
def remote(cls: type[C], /) -> ActorClass[C]: ...  # type: ignore[overload-overlap]  # a class is callable too
@overload
def remote(function: Callable[P, T], /) -> RemoteFunction[P, T]: ...
@overload
def remote(**options: Any) -> Any: ...
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


def method(**options: Any) -> Callable[[F], F]:
    """Sets options of a method where it is written; see `actors.options.MethodOptions`.

    Raises:
        TypeError: an option nobody knows.
        ValueError: a value out of range.
    """
    chosen = MethodOptions().merged(**options)

    def mark(function: F) -> F:
        setattr(function, METHOD_OPTIONS, chosen)
        return function

    return mark
