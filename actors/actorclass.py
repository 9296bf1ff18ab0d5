"""Actor classes: what `@remote` makes of a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from actors.creation import create_actor, create_group
from actors.options import ActorOptions, MethodOptions
from actors.spec import METHOD_OPTIONS, describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.group import ActorGroup
    from actors.handle import ActorHandle

C = TypeVar("C")
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
def remote(cls: type[C], /) -> ActorClass[C]: ...
@overload
def remote(**options: Any) -> Callable[[type[C]], ActorClass[C]]: ...
def remote(cls: Any = None, /, **options: Any) -> Any:
    """Turns a class into an actor class; takes an actor's options.

    Raises:
        TypeError: it was not given a class, or an option nobody knows.
        NotImplementedError: it was given a function, or an option that is not honoured yet.
    """
    chosen = ActorOptions().merged(**options)
    if cls is None:
        return lambda cls: _actor_class(cls, chosen)
    return _actor_class(cls, chosen)


def _actor_class(cls: Any, options: ActorOptions) -> ActorClass[Any]:
    if isinstance(cls, ActorClass):
        raise TypeError(f"{cls.__name__} is an actor class already")
    if not isinstance(cls, type):
        if callable(cls):
            raise NotImplementedError("remote functions are not there yet; put the function in a class as a method")
        raise TypeError(f"@actors.remote goes before a class, not {cls!r}; options are given by name")
    return ActorClass(cls, options)


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
