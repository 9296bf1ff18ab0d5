"""The engine of this package's own: actors on the devices of a LAN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from actors import cluster, creation, handle, refs, runtime
from actors.cluster import joined
from actors.context import RuntimeContext

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.group import ActorGroup
    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo
    from actors.task import RemoteFunction


class Lan:
    """See `actors.engine.Engine`."""

    name = "lan"

    create_actor = staticmethod(creation.create_actor)
    create_group = staticmethod(creation.create_group)
    get = staticmethod(refs.get)
    wait = staticmethod(refs.wait)
    put = staticmethod(refs.put)
    kill = staticmethod(handle.kill)
    move = staticmethod(handle.move)
    is_initialized = staticmethod(cluster.is_joined)
    shutdown = staticmethod(cluster.leave)

    def run_task(self, function: RemoteFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Engine`."""
        return function.run(args, kwargs)

    def group_of(self, handles: Sequence[ActorHandle], backend: str) -> ActorGroup:
        """See `Engine`."""
        from actors.collective import making  # late: it loads numpy

        return making.group_of(handles, backend)

    def end_group(self, group: ActorGroup) -> None:
        """See `Engine`."""
        from actors.collective import making

        making.end_group(group)

    def cancel(self, ref: Any, *, force: bool, recursive: bool) -> None:
        """See `Engine`."""
        ref.cancel(force=force, recursive=recursive)

    def get_actor(self, name: str, namespace: str | None) -> ActorHandle:
        """See `Engine`."""
        process = joined()
        space = namespace or process.namespace
        handle = process.portal.run(creation.find_named(process, name, space))
        if handle is None:
            # One that is ending, since nobody has a handle of it, may have the name still.
            names = [found for _, found in process.portal.run(process.ask_home("named", space)) if found != name]
            known = ", ".join(names) or "none"
            raise ValueError(f"no actor is named {name!r} in namespace {space!r}; there are: {known}")
        return handle

    def list_named_actors(self, *, all_namespaces: bool) -> list[Any]:
        """See `Engine`."""
        process = joined()
        found = process.portal.run(process.ask_home("named", None if all_namespaces else process.namespace))
        if all_namespaces:
            return [{"name": name, "namespace": space} for space, name in found]
        return [name for _, name in found]

    def nodes(self) -> list[NodeInfo]:
        """See `Engine`."""
        process = joined()
        found: list[NodeInfo] = process.portal.run(process.ask_home("nodes"))
        return found

    def available_resources(self) -> dict[str, float]:
        """See `Engine`."""
        process = joined()
        found: dict[str, float] = process.portal.run(process.ask_home("available"))
        return found

    def exit_actor(self) -> NoReturn:
        """See `Engine`."""
        actor = runtime.myself()
        if actor is None:
            raise TypeError("exit_actor() ends the actor it is called in, and this is none: use actors.kill(handle)")
        actor.leave()
        raise runtime.ActorExit

    def context(self) -> RuntimeContext:
        """See `Engine`."""
        return RuntimeContext(joined())
