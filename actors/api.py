"""What a program does with actors beside calling them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.birth import find_named
from actors.exceptions import ActorDiedError
from actors.handle import ActorHandle, handle_of, line_of
from actors.refs import ObjectRef
from actors.stream import ObjectRefGenerator

if TYPE_CHECKING:
    from actors.nodeinfo import NodeInfo
    from actors.process import Process


def kill(handle: ActorHandle, *, no_restart: bool = True) -> None:
    """Ends an actor at once; its open and later calls raise `ActorDiedError`. One that is gone already is left alone.

    Raises:
        TypeError: ``handle`` is no actor handle.
    """
    if not no_restart:
        raise NotImplementedError("kill(no_restart=False): restarts are not there yet")
    line = line_of(handle_of(handle))
    process = runtime.current()

    async def end() -> None:
        try:
            address = await line.placed()
        except Exception:
            return  # it never came to life
        node = await process.node_address(address.node)
        if node is not None:
            with contextlib.suppress(ActorDiedError):  # the node is gone, and the actor with it
                await process.ask(node, "node", "kill", address.process)

    process.portal.run(end())


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Returns the handle of the actor with this name.

    Raises:
        ValueError: no actor of the namespace has the name; the message lists those there are.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"an actor's name is a non-empty string, not {name!r}")
    process = runtime.current()
    space = namespace or process.namespace
    handle = process.portal.run(find_named(process, name, space))
    if handle is None:
        names = [found for _, found in process.portal.run(process.ask_home("named", space))]
        raise ValueError(f"no actor is named {name!r} in namespace {space!r}; there are: {', '.join(names) or 'none'}")
    return handle


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Returns the names of living actors: as strings, or as ``{"name", "namespace"}`` of all namespaces."""
    process = runtime.current()
    found = process.portal.run(process.ask_home("named", None if all_namespaces else process.namespace))
    if all_namespaces:
        return [{"namespace": space, "name": name} for space, name in found]
    return [name for _, name in found]


def nodes() -> list[NodeInfo]:
    """Returns every node of the cluster that was ever seen, this one first; ``alive`` says which answer."""
    process = runtime.current()
    found: list[NodeInfo] = process.portal.run(process.ask_home("nodes"))
    return found


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Cancels a call: one that waits is dropped, a running async method gets `CancelledError`, a stream stops.

    A plain method that runs already is not stopped.

    Raises:
        NotImplementedError: ``force=True``.
    """
    del recursive  # calls made by a cancelled call go on by themselves; see the promise in the documentation
    if force:
        raise NotImplementedError("cancel(force=True) is not there yet; actors.kill ends the whole actor")
    if isinstance(ref, ObjectRefGenerator):
        ref.close()
        return
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"actors.cancel takes an ObjectRef, not {type(ref).__name__}")
    if ref._call is not None:  # noqa: SLF001 - references show nothing but their value
        ref._call.cancel()  # noqa: SLF001


class RuntimeContext:
    """Where the code that asks is running."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._actor = runtime.myself()

    def get_node_id(self) -> str:
        """Returns the id of this process's node."""
        return self._process.address.node

    def get_actor_id(self) -> str | None:
        """Returns the id of the actor this runs in; None in a driver."""
        return self._actor.spec.id if self._actor is not None else None

    def get_actor_name(self) -> str | None:
        """Returns the name of the actor this runs in, if it has one."""
        return self._actor.spec.name if self._actor is not None else None

    @property
    def namespace(self) -> str:
        """The namespace names are looked up in."""
        return self._process.namespace

    @property
    def node_name(self) -> str | None:
        """Name of the node an actor runs on; None in a driver."""
        return self._actor.node if self._actor is not None else None

    @property
    def rank(self) -> int:
        """This actor's rank in its group; 0 outside a group."""
        group = self._actor.group if self._actor is not None else None
        return group.rank if group is not None else 0

    @property
    def world_size(self) -> int:
        """How many actors this one's group has; 1 outside a group."""
        group = self._actor.group if self._actor is not None else None
        return len(group.members) if group is not None else 1


def get_runtime_context() -> RuntimeContext:
    """Returns where the calling code is running: node, actor, rank."""
    return RuntimeContext(runtime.current())
