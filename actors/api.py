"""What a program does with actors beside calling them: the public functions, over the engine of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from actors.engine import chosen
from actors.exceptions import ArgumentError, RemoteError
from actors.handle import handle_of
from actors.refs import ObjectRef, Pending, check_timeout, kind_of
from actors.stream import ObjectRefGenerator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.context import RuntimeContext
    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo

T = TypeVar("T")
W = TypeVar("W", bound=Pending)


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
@overload
def get(refs: ObjectRefGenerator[T], *, timeout: float | None = None) -> ObjectRefGenerator[T]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """Waits for one reference, or for a list of them, and returns the value or the list of values.

    What a generator method gives is returned as it is, at once. Ctrl-C ends the wait; the calls go on.

    Raises:
        GetTimeoutError: not all were there within ``timeout`` seconds.
        TaskError: a method raised; the error is of the user's own class too.
        ActorDiedError: an actor, or its node, is gone.
        ArgumentError: what was given is no reference; a TypeError and a ValueError.
    """
    __tracebackhide__ = True  # IPython and pytest show the caller's line instead
    try:
        return chosen().get(refs, timeout=timeout)
    except RemoteError as error:
        raise error.with_traceback(None)  # noqa: B904 - it brings the traceback of there; that of our own says nothing


def wait(
    refs: Sequence[W], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[W], list[W]]:
    """Waits until ``num_returns`` of the references are there, or ``timeout`` seconds are over.

    Args:
        refs: a list of references, each once. One may be what a generator method gave: that is there when its next
            reference is, or its end.
        num_returns: how many are wanted.
        timeout: seconds; None waits for as long as it takes.
        fetch_local: Ray's; a value that is ready is here already, so that it changes nothing.

    Returns:
        Those that are there, at most ``num_returns``, and the others; both in the order given.

    Raises:
        ValueError: ``timeout`` is negative, ``num_returns`` is not between 1 and the number of references, or a
            reference is given twice.
    """
    del fetch_local
    if not isinstance(refs, list | tuple) or not all(isinstance(ref, Pending) for ref in refs):
        raise TypeError(f"actors.wait takes a list of ObjectRefs, not {kind_of(refs, Pending)}")
    if len(set(refs)) != len(refs):
        raise ValueError("actors.wait was given the same reference twice")
    check_timeout(timeout)
    if not isinstance(num_returns, int) or isinstance(num_returns, bool):
        raise TypeError(f"num_returns must be a whole number, not {num_returns!r}")
    if not refs:
        return [], []
    if not 1 <= num_returns <= len(refs):
        raise ValueError(f"num_returns={num_returns}, but there are {len(refs)} references")
    return chosen().wait(refs, num_returns=num_returns, timeout=timeout)


def put(value: T) -> ObjectRef[T]:
    """Keeps a value in this process and returns a reference to it.

    Raises:
        SerializationError: it cannot be pickled.
        TypeError: it is a reference already.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("actors.put was given an ObjectRef, which is kept already: pass it on as it is")
    kept: ObjectRef[T] = chosen().put(value)
    return kept


def kill(handle: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor at once; its open and later calls raise `ActorDiedError`. One that is gone already is left alone.

    Args:
        handle: whom to end.
        no_restart: whether it is over for good; else the actor is made anew, if its ``max_restarts`` allows it.

    Raises:
        TypeError: ``handle`` is no actor handle.
    """
    chosen().kill(handle_of(handle), no_restart=no_restart)


def move(handle: ActorHandle, node: str | NodeInfo) -> None:
    """Moves an actor to another node, with its state, while it is used; returns once it lives there.

    It stands still between two calls, its ``__actor_save__`` gives its state, and it is made anew on the other node,
    where its constructor runs and ``__actor_load__`` sets that state. Calls made meanwhile wait, and arrive there once
    and in order. Where anything fails it goes on where it is.

    Args:
        handle: whom to move.
        node: name or id of the node, or an element of `actors.nodes`.

    Raises:
        TypeError: ``handle`` is no actor handle, or ``node`` no node.
        ValueError: the actor cannot be moved: it lacks the two hooks, shares its process, is in a group, or has made
            actors that end with it.
        PlacementError: there is no such node, or the actor does not fit there.
        ActorDiedError: the actor is gone.
        ActorUnavailableError: one of its calls ran for more than 30 s, and it moves only between two.
    """
    if not isinstance(name := getattr(node, "id", node), str) or not name:
        raise ArgumentError(f"node is the name or id of a node, or one of actors.nodes(), not {node!r}")
    chosen().move(handle_of(handle), name)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Returns the handle of the actor with this name, or with this name on one node: ``"NODE/NAME"``.

    Raises:
        ValueError: no actor of the namespace has the name; the message lists those there are.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"an actor's name is a non-empty string, not {name!r}")
    return chosen().get_actor(name, namespace)


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Returns the names of living actors: as strings, or as ``{"name": …, "namespace": …}`` of all namespaces."""
    return chosen().list_named_actors(all_namespaces=all_namespaces)


def nodes() -> list[NodeInfo]:
    """Returns every node of the cluster that was ever seen, this one first; ``alive`` says which answer."""
    return chosen().nodes()


def cluster_resources() -> dict[str, float]:
    """Returns what all nodes have together, by name of the resource; ``"memory"`` is in bytes."""
    total: dict[str, float] = {}
    for node in nodes():
        for name, amount in node.resources.items() if node.alive else ():
            total[name] = total.get(name, 0.0) + amount
    return total


def available_resources() -> dict[str, float]:
    """Returns what is free of that now, by name of the resource; 0.0 where all is taken."""
    return chosen().available_resources()


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Cancels a call: one that waits is dropped, a running async method gets `CancelledError`, a stream stops.

    Args:
        ref: of the call.
        force: also stop a plain method that runs already, by ending its actor's process; the actor is made anew if
            its ``max_restarts`` allows it.
        recursive: also cancel the calls which that call has made.

    Raises:
        TypeError: ``ref`` is no reference.
    """
    if isinstance(ref, ObjectRefGenerator):
        ref.close(force=force, recursive=recursive)
        return
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"actors.cancel takes an ObjectRef, not {type(ref).__name__}")
    chosen().cancel(ref, force=force, recursive=recursive)


def exit_actor() -> NoReturn:
    """Ends the actor that this is called in, for good: it is not made anew.

    The current call raises `ActorDiedError` at its caller, and so do those that wait. What was registered with
    `atexit` runs.

    Raises:
        TypeError: this is called outside of an actor.
    """
    chosen().exit_actor()


def get_runtime_context() -> RuntimeContext:
    """Returns where the calling code is running: node, actor, call, rank."""
    return chosen().context()


def is_initialized() -> bool:
    """Whether this program is in a cluster."""
    return chosen().is_initialized()


def shutdown() -> None:
    """Leaves the cluster: this program's actors and the nodes it started end. Without a cluster it does nothing."""
    chosen().shutdown()
