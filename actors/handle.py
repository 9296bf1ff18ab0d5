"""Handles: what a program holds of an actor class, and of an actor."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic

from actors import runtime
from actors.batch import call_each
from actors.calls import call
from actors.cluster import joined
from actors.common import COMMON
from actors.exceptions import ActorError, ArgumentError
from actors.line import Line, reach
from actors.messages import Payload
from actors.serialize import dumps, loads
from actors.signed import Signed, signed
from actors.spec import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from inspect import Signature
    from typing import overload

    from typing_extensions import ParamSpec, TypeVar

    from actors.address import Address
    from actors.holdings import Hold
    from actors.marked import Call
    from actors.nodeinfo import NodeInfo
    from actors.options import MethodOptions
    from actors.process import Process
    from actors.spec import ClassSpec, Manner, MethodSpec

    C = TypeVar("C", default=Any)  # a checker knows defaults, which the oldest Python here does not
    P = ParamSpec("P", default=...)
    R = TypeVar("R", default=Any)
else:
    from typing import ParamSpec, TypeVar

    C, P, R = TypeVar("C"), ParamSpec("P"), TypeVar("R")


class ActorHandle(Generic[C]):
    """An actor, seen from anywhere: data that can be passed on. Its methods are called by ``.remote(...)``."""

    __slots__ = ("__weakref__", "_hold", "_id", "_keeper", "_label", "_manner", "_spec", "_where")

    def __init__(  # noqa: PLR0917 - two places make it
        self,
        id: str,
        label: str,
        spec: ClassSpec,
        manner: Manner,
        keeper: Address,
        where: Address | None,
        hold: Hold,
    ) -> None:
        """Made by `ActorClass.remote` and by unpickling.

        Args:
            id: the actor's id.
            label: how it is called in messages.
            spec: its class's methods.
            manner: how it wants to be called.
            keeper: process that knows where the actor is.
            where: where it is, once that is known.
            hold: keeps the actor alive.
        """
        self._id = id
        self._label = label
        self._spec = spec
        self._manner = manner
        self._keeper = keeper
        self._where = where
        self._hold = hold

    def __getattr__(self, name: str) -> RemoteMethod:
        method = self._spec.methods.get(name)
        if method is not None:
            return self._method(method)
        if name in COMMON:
            return self._method(COMMON[name][0])
        if name.startswith("_"):
            raise AttributeError(name)
        near = _nearest(name, self._spec.methods)
        raise AttributeError(f"{self._spec.name} has no method {name!r}{near}")

    def _method(self, method: MethodSpec) -> RemoteMethod:
        return RemoteMethod(self, method)

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._spec.methods]

    def _line(self) -> Line:
        process, hold = joined(), self._hold
        line = hold.subject
        if isinstance(line, Line) and line.process is process:  # one that a call went by before
            return line
        line = process.keeper.lines.get(self._id)
        if line is None:
            line = reach(process, self._id, self._label, self._manner, self._keeper, self._where)
        if line.hold is not hold:
            line.held_by(hold)
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
        return (_restore, (self._id, self._label, _packed(self._spec), self._manner, self._keeper, where, self._hold))


def _packed(spec: ClassSpec) -> bytes | ClassSpec:
    """Returns a class's methods as bytes, pickled once: they are most of a handle, which may go with every call."""
    if spec.packed is None:
        payload = dumps(spec)
        if payload.buffers or payload.holds:
            return spec
        object.__setattr__(spec, "packed", payload.pickle)
    assert spec.packed is not None
    return spec.packed


@lru_cache(maxsize=256)
def _unpacked(packed: bytes) -> ClassSpec:
    spec: ClassSpec = loads(Payload(packed))
    object.__setattr__(spec, "packed", packed)
    return spec


def _restore(  # noqa: PLR0917 - as `ActorHandle`
    id: str, label: str, spec: bytes | ClassSpec, manner: Manner, keeper: Address, where: Address | None, hold: Hold
) -> ActorHandle:
    known = _unpacked(spec) if isinstance(spec, bytes) else spec
    return ActorHandle(id, label, known, manner, keeper, where, hold)


class RemoteMethod(Generic[P, R]):
    """A method of an actor."""

    __slots__ = ("_handle", "_method", "_options")

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        """First line of the method's own docstring."""
        return self._method.doc

    @property
    def __signature__(self) -> Signature:
        return self._method.signature

    def __init__(self, handle: ActorHandle, method: MethodSpec, options: MethodOptions | None = None) -> None:
        self._handle = handle
        self._method = method
        self._options = options

    @property
    def handle(self) -> ActorHandle:
        """Whose method it is."""
        return self._handle

    @property
    def name(self) -> str:
        """What it is called."""
        return self._method.name

    @signed
    def remote(self) -> Call[P, R]:
        """Calls the method; returns at once.

        Returns:
            An `ObjectRef` of the result, a list of them where ``num_returns`` is more than 1; for a generator method
            an `ObjectRefGenerator`.

        Raises:
            TypeError: the arguments do not fit, or cannot be pickled.
        """
        return Signed(_call, self._method, self._handle, self._options)

    def map(self, values: Iterable[Any]) -> list[R]:
        """Calls the method once for each value, in order, in as few messages as can be.

        Returns:
            What each call gives, in that order; see `remote`.

        Raises:
            TypeError: the method does not take one argument.
            SerializationError: a value cannot be pickled; no call was made then.
            PendingCallsLimitExceeded: there is not room for all of them, where a call does not wait for room; no call
                was made then.
        """
        return call_each(line_of(self._handle), self._method, list(values), self._options)

    if TYPE_CHECKING:

        @overload
        def options(self, *, num_returns: int | str, **options: Any) -> RemoteMethod[P, Any]: ...
        @overload
        def options(self, **options: Any) -> RemoteMethod[P, R]: ...

    def options(self, **options: Any) -> Any:
        """Returns the same method with other options; see `actors.options.MethodOptions`.

        Raises:
            TypeError: an option nobody knows.
            ValueError: a value out of range.
        """
        if "public" in options:
            raise ArgumentError("public= belongs to the method: @actors.method(public=True) in its class")
        chosen = self._options if self._options is not None else DEFAULTS
        return RemoteMethod(self._handle, self._method, chosen.merged(**options))

    if not TYPE_CHECKING:  # what only refuses is an error for a type checker without it

        def __call__(self, *_: Any, **__: Any) -> Any:
            """Refuses: a remote method is not called like a local one."""
            name = self._method.name
            raise TypeError(f"call it as {name}.remote(...): it runs in another process")

    def __repr__(self) -> str:
        return f"<remote method {self._handle!r}.{self._method.name}{self._method.signature}>"


def _call(method: MethodSpec, handle: ActorHandle, options: MethodOptions | None, /, *args: Any, **kwargs: Any) -> Any:
    method.check(args, kwargs)
    return call(line_of(handle), method, args, kwargs, options)


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
        if hasattr(value, "kill"):
            raise ArgumentError(f"an actor handle is needed, not {type(value).__name__}: a group has its own .kill()")
        raise ArgumentError(
            f"an actor handle is needed, not {type(value).__name__}: it is what Class.remote(...) returns"
        )
    return value


def line_of(handle: ActorHandle) -> Line:
    """Returns this process's line to an actor."""
    return handle._line()  # noqa: SLF001 - handles show nothing but methods


def placed_at(handle: ActorHandle, where: Address | None) -> ActorHandle:
    """Returns a handle that knows where its actor is."""
    h = handle
    return ActorHandle(h._id, h._label, h._spec, h._manner, h._keeper, where, h._hold)  # noqa: SLF001 - one of us


def kept_by(handle: ActorHandle, keeper: Address) -> ActorHandle:
    """Returns a handle of an actor that is in the charge of another process now."""
    h = handle
    return ActorHandle(h._id, h._label, h._spec, h._manner, keeper, None, h._hold)  # noqa: SLF001 - one of us


def hold_of(handle: ActorHandle) -> Hold:
    """Returns what keeps an actor alive."""
    return handle._hold  # noqa: SLF001 - handles show nothing but methods


def kill(handle: ActorHandle, *, no_restart: bool = True) -> None:
    """See `actors.kill`."""
    line = line_of(handle_of(handle))
    process = joined()
    charge = process.keeper.charges.get(line.actor)
    process.portal.run(charge.kill(no_restart) if charge is not None else _kill(process, line, no_restart))


def move(handle: ActorHandle, node: str | NodeInfo) -> None:
    """See `actors.move`."""
    line = line_of(handle_of(handle))
    name = getattr(node, "id", node)
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"node is the name or id of a node, or one of actors.nodes(), not {node!r}")
    me = runtime.myself()
    if me is not None and me.spec.id == line.actor:
        raise ValueError(f"{line.label} cannot move itself: it moves between two calls, and this one runs")
    process = joined()
    charge = process.keeper.charges.get(line.actor)
    process.portal.run(charge.move(name) if charge is not None else _move(process, handle, name))


async def _move(process: Process, handle: ActorHandle, node: str) -> None:
    h = handle
    await process.ask(h._keeper, "keeper", "move", h._id, node, timeout=None)  # noqa: SLF001 - one of us


async def _kill(process: Process, line: Line, no_restart: bool) -> None:
    try:
        address = await line.located()
    except ActorError:
        return  # it never came to life, or has ended
    await process.kill(address, no_restart)
