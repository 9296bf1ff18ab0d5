"""What runs in Ray's workers: an actor of a user's class inside one of Ray's, and a task inside one of Ray's."""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from dataclasses import dataclass
from types import GeneratorType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import ray

from actors import engine
from actors.common import COMMON
from actors.exceptions import SerializationError
from actors.frozen import travelling
from actors.runtime import ActorExit
from actors.spec import describe

from .cancelling import Calls
from .errors import RaisedError, place, raised
from .translation import HIDDEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from actors.spec import ClassSpec

    from .membership import Membership

_here: Inside | None = None
running: ContextVar[str | None] = ContextVar("actors_on_ray_running", default=None)
"""What is called, such as ``"Counter.add"``."""


def here() -> Inside | None:
    """Returns the actor that this process is; None where it is none of ours."""
    return _here


AGAIN = "_actors_again"
"""Keyword of a call: the classes of what it may raise that it is to be tried again for."""

Kinds = tuple[type[BaseException], ...]


@travelling
@dataclass(frozen=True, slots=True)
class Manner:
    """How an actor wants to be called.

    Attributes:
        groups: its concurrency groups: a call in one that is not there would end Ray's process.
        again: what calls are tried again for that their methods raised.
    """

    groups: frozenset[str]
    again: Kinds


@travelling
@dataclass(frozen=True, slots=True)
class Order:
    """What an actor is made of, beside its class and its arguments.

    Attributes:
        label: how it is called in messages.
        manner: how it wants to be called.
        group: of a member of a group: that group's id, its rank, and how many ranks there are.
    """

    label: str
    manner: Manner
    group: tuple[str, int, int] | None


class Inside:
    """An actor, as the process that it is sees it: an object of a user's class, and what belongs to that.

    Args:
        order: what it is made of.
        cls: the user's class.
        args: of its constructor.
        kwargs: of its constructor.

    Attributes:
        it: the object.
        cls: its class.
        label: how the actor is called in messages.
        manner: how it wants to be called.
        first: of a member of a group: that group's id, its rank, and how many ranks there are.
        membership: the groups that it is in.
        calls: those that run.
    """

    def __init__(self, order: Order, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        global _here  # noqa: PLW0603 - a process is one actor
        from .membership import Membership

        _here = self
        self.cls, self.label, self.manner, self.first = cls, order.label, order.manner, order.group
        self.membership: Membership = Membership(self.label)
        self.calls = Calls()
        if order.group is not None:
            self.membership.expect(*order.group)
        self._failed: RaisedError | None = None
        try:
            self.it = cls(*args, **kwargs)
        except ActorExit:
            ray.actor.exit_actor()
        except Exception as error:
            # Ray would end the actor and keep of the error no more than a part of its text.
            self._failed = raised(error, place(self.label, "__init__"), stillborn=True)

    def check(self) -> None:
        """Raises what its constructor has raised."""
        if self._failed is not None:
            raise self._failed

    def begin(self, name: str) -> Any:
        """A call begins; returns the method."""
        self.check()
        running.set(f"{self.cls.__name__}.{name}")
        self.calls.begin(f"{self.label}.{name}")
        return getattr(self.it, name)

    def problem(self, error: BaseException, name: str, again: Kinds = ()) -> BaseException:
        """Returns what a call raises for what its method has raised."""
        if isinstance(error, RaisedError | SystemExit):  # by the second Ray ends the process, for good or not
            return error
        if isinstance(error, ActorExit):
            ray.actor.exit_actor()
        return raised(error, place(self.label, name), again)


class Host:
    """An actor of Ray's that holds one of ours. `host_of` adds the methods of a user's class.

    All that it has itself begins with ``_actors_``, as the others may have any name; those run beside them.
    """

    def __init__(self, order: Order, cls: type, /, *args: Any, **kwargs: Any) -> None:
        from .runtime import Ray

        engine.use(Ray())
        self._actors_inside = Inside(order, cls, args, kwargs)

    def _actors_common(self, name: str, *args: Any, **kwargs: Any) -> Any:
        inside = self._actors_inside
        inside.check()
        try:
            return COMMON[name][1](inside.it, *args, **kwargs)
        except BaseException as error:
            raise inside.problem(error, name) from None

    @ray.method(concurrency_group=HIDDEN)
    def _actors_spec(self) -> tuple[ClassSpec, Manner]:
        return describe(self._actors_inside.cls), self._actors_inside.manner

    @ray.method(concurrency_group=HIDDEN)
    def _actors_no_group(self, method: str, group: str) -> None:
        inside = self._actors_inside
        there = ", ".join(sorted(inside.manner.groups)) or "none"
        error = ValueError(
            f"{inside.label}.{method} was called in the concurrency group {group!r}, which the actor does not have; "
            f"there are: {there}. Name them all in concurrency_groups= of the actor"
        )
        raise raised(error, place(inside.label, method))

    @ray.method(concurrency_group=HIDDEN)
    def _actors_alive(self) -> str:
        self._actors_inside.check()
        return str(ray.get_runtime_context().get_worker_id())

    @ray.method(concurrency_group=HIDDEN)
    def _actors_enter(self, *place: Any) -> None:
        self._actors_inside.membership.enter(*place)

    @ray.method(concurrency_group=HIDDEN)
    def _actors_leave(self, group: str) -> None:
        self._actors_inside.membership.leave(group)

    @ray.method(concurrency_group=HIDDEN)
    def _actors_take(self, group: str, *message: Any) -> None:
        self._actors_inside.membership.take(group, *message)


class QueueingHost(Host):
    """One whose calls wait for their turn. Coroutines do not, and Ray's own cancelling is the quicker one for them."""

    @ray.method(concurrency_group=HIDDEN)
    def _actors_cancel(self, id: str) -> bool:
        return self._actors_inside.calls.cancel(id)


_hosts: WeakKeyDictionary[type, type[Host]] = WeakKeyDictionary()


def host_of(cls: type) -> type[Host]:
    """Returns the class of Ray's actors that hold an object of ``cls``."""
    known = _hosts.get(cls)
    if known is None:
        members = {name: _forward(cls, name) for name in describe(cls).methods}
        host = Host if any(map(_is_async, members.values())) else QueueingHost
        known = _hosts[cls] = type(cls.__name__, (host,), {**members, "__module__": cls.__module__})
    return known


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _forward(cls: type, name: str) -> Callable[..., Any]:
    function = inspect.unwrap(getattr(cls, name))
    if inspect.isasyncgenfunction(function):
        return _async_stream(name)
    if inspect.iscoroutinefunction(function):
        return _coroutine(name)
    return _stream(name) if inspect.isgeneratorfunction(function) else _plain(name)


def _plain(name: str) -> Callable[..., Any]:
    def method(self: Host, *args: Any, **kwargs: Any) -> Any:
        again = kwargs.pop(AGAIN, ())
        try:
            value = self._actors_inside.begin(name)(*args, **kwargs)
            if isinstance(value, GeneratorType):  # Ray would take its first item for the value
                raise SerializationError(f"{name} returned a generator, which cannot be sent: yield its items instead")
        except BaseException as error:
            raise self._actors_inside.problem(error, name, again) from None
        finally:
            self._actors_inside.calls.end()
        return value

    return method


def _coroutine(name: str) -> Callable[..., Any]:
    async def method(self: Host, *args: Any, **kwargs: Any) -> Any:
        import asyncio

        again = kwargs.pop(AGAIN, ())
        try:
            return await self._actors_inside.begin(name)(*args, **kwargs)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise self._actors_inside.problem(error, name, again) from None
        finally:
            self._actors_inside.calls.end()

    return method


def _stream(name: str) -> Callable[..., Any]:
    def method(self: Host, *args: Any, **kwargs: Any) -> Iterator[Any]:
        again = kwargs.pop(AGAIN, ())
        try:
            yield from _each(self._actors_inside.begin(name)(*args, **kwargs))
        except GeneratorExit:
            raise
        except BaseException as error:
            raise self._actors_inside.problem(error, name, again) from None
        finally:
            self._actors_inside.calls.end()

    return method


def _each(items: Iterator[Any]) -> Iterator[Any]:
    """Gives what a generator does: what Ray sends into it is not for that."""
    try:
        for item in items:  # noqa: UP028 - see above
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def _async_stream(name: str) -> Callable[..., Any]:
    async def method(self: Host, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        again = kwargs.pop(AGAIN, ())
        try:
            async for item in self._actors_inside.begin(name)(*args, **kwargs):
                yield item
        except GeneratorExit:
            raise
        except BaseException as error:
            raise self._actors_inside.problem(error, name, again) from None
        finally:
            self._actors_inside.calls.end()

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
        again = kwargs.pop(AGAIN, ())
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            raise raised(error, place("task", name), again) from None

    def stream(*args: Any, **kwargs: Any) -> Iterator[Any]:
        begin_task(name)
        again = kwargs.pop(AGAIN, ())
        try:
            yield from _each(function(*args, **kwargs))
        except GeneratorExit:
            raise
        except BaseException as error:
            raise raised(error, place("task", name), again) from None

    return stream if generates else task
