"""Handles: what a program holds of an actor class, and of an actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from actors import runtime
from actors.exceptions import ActorsError
from actors.options import ActorOptions
from actors.spec import ClassSpec, MethodSpec, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.address import Address
    from actors.group import ActorGroup
    from actors.line import Line
    from actors.refs import ObjectRef

C = TypeVar("C")


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
        from actors.birth import give_birth

        describe(self.cls).constructor.check(args, kwargs)
        return give_birth(self.cls, self._options, args, kwargs)

    def options(self, **options: Any) -> ActorClass[C]:
        """Returns the same class with other options; see `actors.options.ActorOptions`."""
        return ActorClass(self.cls, self._options.merged(**options))

    def group(self, size: int, *args: Any, **kwargs: Any) -> ActorGroup:
        """Makes ``size`` actors that know each other's rank, spread over the nodes.

        Raises:
            ValueError: ``size`` is not a whole number from 1.
            TypeError: the arguments do not fit the constructor, or cannot be pickled.
        """
        from actors.birth import give_births

        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"a group has at least one actor: size={size!r}")
        describe(self.cls).constructor.check(args, kwargs)
        return give_births(self.cls, self._options, size, args, kwargs)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuses: an actor is not made like a plain object."""
        name = self.cls.__name__
        raise TypeError(f"use {name}.remote(...) to make an actor, or {name}.cls(...) to make a plain object here")

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
        TypeError: it was not given a class.
    """
    chosen = ActorOptions().merged(**options)
    if cls is None:
        return lambda cls: remote(cls) if not options else _actor_class(cls, chosen)
    return _actor_class(cls, chosen)


def _actor_class(cls: Any, options: ActorOptions) -> ActorClass[Any]:
    if isinstance(cls, ActorClass):
        raise TypeError(f"{cls.__name__} is an actor class already")
    if not isinstance(cls, type):
        if callable(cls):
            raise NotImplementedError("remote functions are not there yet; put the function in a class as a method")
        raise TypeError(f"@actors.remote goes before a class, not {cls!r}; options are given by name")
    return ActorClass(cls, options)


class ActorHandle:
    """An actor, seen from anywhere: data that can be passed on. Its methods are called by ``.remote(...)``."""

    __slots__ = ("__weakref__", "_id", "_keeper", "_label", "_spec", "_where")

    def __init__(self, id: str, label: str, spec: ClassSpec, keeper: Address, where: Address | None = None) -> None:
        """Made by `ActorClass.remote` and by unpickling.

        Args:
            id: the actor's id.
            label: how it is called in messages.
            spec: its class's methods.
            keeper: process that knows where the actor is.
            where: where it is, once that is known.
        """
        self._id = id
        self._label = label
        self._spec = spec
        self._keeper = keeper
        self._where = where

    def __getattr__(self, name: str) -> RemoteMethod:
        method = self._spec.methods.get(name)
        if method is None:
            if name.startswith("_"):
                raise AttributeError(name)
            near = _nearest(name, self._spec.methods)
            raise AttributeError(f"{self._spec.name} has no method {name!r}{near}")
        return RemoteMethod(self, method)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._spec.methods]

    def _line(self) -> Line:
        process = runtime.current()
        line = process.keeper.lines.get(self._id)
        if line is None:
            from actors.birth import reach

            line = reach(process, self._id, self._label, self._keeper, self._where)
        return line

    def __repr__(self) -> str:
        return f"ActorHandle({self._label})"

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._id == self._id

    def __reduce__(self) -> tuple[Any, ...]:
        process = runtime.joined()
        line = process.keeper.lines.get(self._id) if process is not None else None
        where = line.address if line is not None else self._where
        return (ActorHandle, (self._id, self._label, self._spec, self._keeper, where))


class RemoteMethod:
    """A method of an actor."""

    __slots__ = ("_handle", "_method")

    def __init__(self, handle: ActorHandle, method: MethodSpec) -> None:
        self._handle = handle
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method; returns at once.

        Returns:
            An `ObjectRef` of the result; for a generator method an `ObjectRefGenerator`.

        Raises:
            TypeError: the arguments do not fit, or cannot be pickled.
        """
        from actors.calls import call

        self._method.check(args, kwargs)
        return call(self._handle, self._method, args, kwargs)

    def map(self, values: Iterable[Any]) -> list[ObjectRef[Any]]:
        """Calls the method once for each value, in order; returns the references in that order."""
        return [self.remote(value) for value in values]

    def options(self, **options: Any) -> RemoteMethod:
        """Returns the same method with other options.

        Raises:
            NotImplementedError: an option this version does not honour.
        """
        for name in options:
            raise NotImplementedError(f"the method option {name!r} is not honoured yet; leave it out")
        return self

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuses: a remote method is not called like a local one."""
        name = self._method.name
        raise TypeError(f"call it as {name}.remote(...): it runs in another process")

    def __repr__(self) -> str:
        return f"<remote method {self._handle!r}.{self._method.name}{self._method.signature}>"


def _nearest(name: str, names: Iterable[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, list(names), 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(sorted(names)) or 'none'}"


def handle_of(value: Any) -> ActorHandle:
    """Returns ``value`` if it is a handle.

    Raises:
        TypeError: it is not.
    """
    if not isinstance(value, ActorHandle):
        raise TypeError(f"an actor handle is needed, not {type(value).__name__}: it is what Class.remote(...) returns")
    return value


def line_of(handle: ActorHandle) -> Line:
    """Returns this process's line to an actor."""
    return handle._line()  # noqa: SLF001 - handles show nothing but methods


def id_of(handle: ActorHandle) -> str:
    """Returns an actor's id."""
    return handle._id  # noqa: SLF001 - handles show nothing but methods


__all__ = ["ActorClass", "ActorHandle", "ActorsError", "RemoteMethod", "handle_of", "id_of", "line_of", "remote"]
