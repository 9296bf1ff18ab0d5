"""What a program does with actors beside calling them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from actors import runtime
from actors.cluster import joined
from actors.creation import find_named
from actors.refs import ObjectRef
from actors.stream import ObjectRefGenerator

if TYPE_CHECKING:
    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Returns the handle of the actor with this name, or with this name on one node: ``"NODE/NAME"``.

    Raises:
        ValueError: no actor of the namespace has the name; the message lists those there are.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"an actor's name is a non-empty string, not {name!r}")
    process = joined()
    space = namespace or process.namespace
    handle = process.portal.run(find_named(process, name, space))
    if handle is None:
        # One that is ending, since nobody has a handle of it, may have the name still.
        names = [found for _, found in process.portal.run(process.ask_home("named", space)) if found != name]
        raise ValueError(f"no actor is named {name!r} in namespace {space!r}; there are: {', '.join(names) or 'none'}")
    return handle


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Returns the names of living actors: as strings, or as ``{"name": …, "namespace": …}`` of all namespaces."""
    process = joined()
    found = process.portal.run(process.ask_home("named", None if all_namespaces else process.namespace))
    if all_namespaces:
        return [{"name": name, "namespace": space} for space, name in found]
    return [name for _, name in found]


def nodes() -> list[NodeInfo]:
    """Returns every node of the cluster that was ever seen, this one first; ``alive`` says which answer."""
    process = joined()
    found: list[NodeInfo] = process.portal.run(process.ask_home("nodes"))
    return found


def cluster_resources() -> dict[str, float]:
    """Returns what all nodes have together, by name of the resource; ``"memory"`` is in bytes."""
    total: dict[str, float] = {}
    for node in nodes():
        for name, amount in node.resources.items() if node.alive else ():
            total[name] = total.get(name, 0.0) + amount
    return total


def available_resources() -> dict[str, float]:
    """Returns what is free of that now, by name of the resource; 0.0 where all is taken."""
    process = joined()
    found: dict[str, float] = process.portal.run(process.ask_home("available"))
    return found


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
    ref.cancel(force=force, recursive=recursive)


def exit_actor() -> NoReturn:
    """Ends the actor that this is called in, for good: it is not made anew.

    The current call raises `ActorDiedError` at its caller, and so do those that wait. What was registered with
    `atexit` runs.

    Raises:
        TypeError: this is called outside of an actor.
    """
    actor = runtime.myself()
    if actor is None:
        raise TypeError("exit_actor() ends the actor it is called in, and this is none: use actors.kill(handle)")
    actor.leave()
    raise runtime.ActorExit
