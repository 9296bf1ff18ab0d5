"""What runs in Ray's workers: an actor of a user's class inside one of Ray's, and a task inside one of Ray's."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import ray

from actors import engine
from actors.common import COMMON
from actors.runtime import ActorExit
from actors.spec import describe

from .errors import RaisedError, place, raised
from .translation import HIDDEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from actors.spec import ClassSpec

    from .membership import Membership

_here: Host | None = None
running: ContextVar[str | None] = ContextVar("actors_on_ray_running", default=None)
"""What is called, such as ``"Counter.add"``."""


def here() -> Host | None:
    """Returns the actor that this process is; None where it is none of ours."""
    return _here


class Host:
    """An actor of Ray's that holds an object of a user's class. `host_of` adds that class's methods.

    Methods whose names begin with ``_actors_`` are ours and run beside the others.
    """

    def __init__(self, order: tuple[type, str, tuple[str, int, int] | None], *args: Any, **kwargs: Any) -> None:
        global _here  # noqa: PLW0603 - a process is one actor
        from .membership import Membership
        from .runtime import Ray

        engine.use(Ray())
        _here = self
        cls, self.label, group = order
        self.cls = cls
        self.first = group  # its id, this rank, how many ranks
        self.membership: Membership = Membership(self.label)
        if group is not None:
            self.membership.expect(*group)
        self._failed: RaisedError | None = None
        try:
            self.it = cls(*args, **kwargs)
        except ActorExit:
            ray.actor.exit_actor()
        except Exception as error:
            # Ray would end the actor and keep of the error no more than a part of its text.
            self._failed = raised(error, place(self.label, "__init__"), stillborn=True)

    def _begin(self, name: str) -> Any:
        if self._failed is not None:
            raise self._failed
        running.set(f"{self.cls.__name__}.{name}")
        return getattr(self.it, name)

    def _end(self, error: BaseException, name: str) -> BaseException:
        if isinstance(error, RaisedError):
            return error
        if isinstance(error, ActorExit):
            ray.actor.exit_actor()
        return raised(error, place(self.label, name))

    def _actors_common(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self._failed is not None:
            raise self._failed
        try:
            return COMMON[name][1](self.it, *args, **kwargs)
        except BaseException as error:
            raise self._end(error, name) from None

    @ray.method(concurrency_group=HIDDEN)
    def _actors_spec(self) -> ClassSpec:
        return describe(self.cls)

    @ray.method(concurrency_group=HIDDEN)
    def _actors_alive(self) -> None:
        return None

    @ray.method(concurrency_group=HIDDEN)
    def _actors_enter(self, *place: Any) -> None:
        self.membership.enter(*place)

    @ray.method(concurrency_group=HIDDEN)
    def _actors_leave(self, group: str) -> None:
        self.membership.leave(group)

    @ray.method(concurrency_group=HIDDEN)
    def _actors_take(self, group: str, source: int, tag: str, value: Any) -> None:
        self.membership.take(group, source, tag, value)


_hosts: WeakKeyDictionary[type, type[Host]] = WeakKeyDictionary()


def host_of(cls: type) -> type[Host]:
    """Returns the class of Ray's actors that hold an object of ``cls``."""
    known = _hosts.get(cls)
    if known is None:
        members = {name: _forward(cls, name) for name in describe(cls).methods}
        known = _hosts[cls] = type(cls.__name__, (Host,), {**members, "__module__": cls.__module__})
    return known


def _forward(cls: type, name: str) -> Callable[..., Any]:
    function = inspect.unwrap(getattr(cls, name))
    if inspect.isasyncgenfunction(function):
        return _async_stream(name)
    if inspect.iscoroutinefunction(function):
        return _coroutine(name)
    return _stream(name) if inspect.isgeneratorfunction(function) else _plain(name)


def _plain(name: str) -> Callable[..., Any]:
    def method(self: Host, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._begin(name)(*args, **kwargs)
        except BaseException as error:
            raise self._end(error, name) from None

    return method


def _coroutine(name: str) -> Callable[..., Any]:
    async def method(self: Host, *args: Any, **kwargs: Any) -> Any:
        import asyncio

        try:
            return await self._begin(name)(*args, **kwargs)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise self._end(error, name) from None

    return method


def _stream(name: str) -> Callable[..., Any]:
    def method(self: Host, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from self._begin(name)(*args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as error:
            raise self._end(error, name) from None

    return method


def _async_stream(name: str) -> Callable[..., Any]:
    async def method(self: Host, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        try:
            async for item in self._begin(name)(*args, **kwargs):
                yield item
        except GeneratorExit:
            raise
        except BaseException as error:
            raise self._end(error, name) from None

    return method


def begin_task(name: str) -> None:
    """This worker of Ray's runs a function of ours now. Called by name: what is in a closure would travel with it."""
    from .runtime import Ray

    engine.use(Ray())
    running.set(name)


def task_of(function: Callable[..., Any], name: str, generates: bool) -> Callable[..., Any]:
    """Returns the function that is run as a task of Ray's in place of ``function``."""

    def task(*args: Any, **kwargs: Any) -> Any:
        begin_task(name)
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            raise raised(error, place("task", name)) from None

    def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
        begin_task(name)
        try:
            yield from function(*args, **kwargs)
        except GeneratorExit:
            raise
        except BaseException as error:
            raise raised(error, place("task", name)) from None

    return stream if generates else task
