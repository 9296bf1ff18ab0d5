"""The engine itself: what each public function is on Ray."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakKeyDictionary

import ray
from ray import cloudpickle
from ray.util import list_named_actors

from actors import engine
from actors.exceptions import ActorAlreadyExistsError, ArgumentError, CollectiveError, GetTimeoutError
from actors.group import ActorGroup
from actors.ids import new_id
from actors.messages import STREAM_WINDOW
from actors.nodeinfo import NodeInfo
from actors.refs import check_timeout, kind_of
from actors.runtime import ActorExit
from actors.saving import checkpoint_of
from actors.serialize import agree_with
from actors.spec import describe

from .context import RayContext
from .errors import TransientError, sending, translating
from .handles import RayHandle
from .hosting import AGAIN, Manner, Order, here, host_of, task_of
from .naming import answered, life, named_once, wait_for_end
from .refs import RayRef, RayStream, get_all, unwrapped, wrapped
from .translation import kinds, of_actor, of_task, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.handle import ActorHandle
    from actors.options import ActorOptions
    from actors.task import RemoteFunction

SPEC_SECONDS = 60.0


class Ray:
    """See `actors.engine.Engine`."""

    name = "ray"

    def __init__(self) -> None:
        agree_with(cloudpickle.cloudpickle)
        self._tasks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def create_actor(
        self, cls: type, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorHandle:
        """See `Engine`."""
        return self._create(cls, cls, options, options.name or cls.__name__, None, args, kwargs)

    def _create(  # noqa: PLR0917 - what an actor is made of
        self,
        cls: type,
        code: Any,
        options: ActorOptions,
        label: str,
        group: tuple[str, int, int] | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> RayHandle:
        chosen = of_actor(options)
        if checkpoint_of(cls, options) is not None:
            refuse(
                f"saved state, which {cls.__name__} has hooks for",
                "leave max_restarts= out, as it would be made anew without",
            )
        manner = Manner(frozenset(options.concurrency_groups or ()), kinds(options.retry_exceptions))
        plain, named = unwrapped(args, kwargs)
        try:
            with sending(plain, named, cls):
                made = ray.remote(concurrency_groups=chosen.pop("concurrency_groups"))(host_of(cls))
                make = partial(made.options(**chosen).remote, Order(label, manner, group), code, *plain, **named)
                raw = named_once(make, options) if options.name is not None else make()
        except ValueError as error:
            if options.name is not None and "already" in str(error):
                raise ActorAlreadyExistsError(str(error)) from None
            raise
        return RayHandle(raw, label, describe(cls), manner)

    def create_group(
        self, cls: type, options: ActorOptions, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorGroup:
        """See `Engine`."""
        if options.max_restarts or options.detached:
            raise ValueError("max_restarts= and lifetime= are not for groups: one of a group cannot come back alone")
        group = new_id("group")
        if options.scheduling_strategy == "DEFAULT" and options.node is None:
            options = options.merged(scheduling_strategy="SPREAD")
        names = [f"{options.name or cls.__name__}[{rank}]" for rank in range(size)]
        with sending(code=cls):
            code = ray.put(cls)  # so that it is pickled once for all
        handles = []
        for rank, label in enumerate(names):
            own = options.merged(name=f"{options.name}-{rank}") if options.name else options
            handles.append(self._create(cls, code, own, label, (group, rank, size), args, kwargs))
        _enter(group, handles)
        return ActorGroup(group, handles)

    def run_task(self, function: RemoteFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Engine`."""
        spec, options = function.spec, function.chosen_options
        made = self._tasks.get(function)
        if made is None:
            made = self._tasks[function] = ray.remote(task_of(function.function, spec.name, spec.generates))
        returns = options.num_returns if options.num_returns is not None else "streaming" if spec.generates else 1
        returns = "streaming" if returns == "dynamic" else returns
        chosen, (plain, named) = of_task(options), unwrapped(args, kwargs)
        if again := kinds(options.retry_exceptions):
            chosen["retry_exceptions"], named[AGAIN] = [TransientError], again
        if returns == "streaming":
            chosen["_generator_backpressure_num_objects"] = STREAM_WINDOW
        with sending(plain, named, function.function):
            given = made.options(**chosen, num_returns=returns).remote(*plain, **named)
        return wrapped(given, returns, spec.name)

    def get(self, refs: Any, *, timeout: float | None = None) -> Any:
        """See `Engine`."""
        __tracebackhide__ = True
        check_timeout(timeout)
        if isinstance(refs, RayStream):
            return refs
        if not isinstance(refs, RayRef) and not (
            isinstance(refs, list | tuple) and all(isinstance(ref, RayRef) for ref in refs)
        ):
            raise ArgumentError(
                f"actors.get takes an ObjectRef or a list of them, not {kind_of(refs)}: "
                "it is what handle.method.remote(...) and actors.put(...) return"
            )
        try:
            return get_all(refs, timeout)
        except GetTimeoutError:
            raise GetTimeoutError(f"{refs!r} was not there within {timeout:g} s; the call goes on") from None

    def wait(
        self, refs: Sequence[Any], *, num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        """See `Engine`."""
        with translating():
            found, _ = ray.wait([ref.raw for ref in refs], num_returns=num_returns, timeout=timeout)
        ready = [ref for ref in refs if ref.raw in found]
        return ready, [ref for ref in refs if ref.raw not in found]

    def put(self, value: Any) -> RayRef:
        """See `Engine`."""
        with sending([value]):
            return RayRef(ray.put(value), "put")

    def cancel(self, ref: Any, *, force: bool, recursive: bool) -> None:
        """See `Engine`."""
        if force:
            try:
                ref.cancel(force=True, recursive=recursive)
            except ValueError:
                refuse("cancel(force=True) of an actor's call", "use actors.kill(handle)")
        else:
            ref.cancel(recursive=recursive)

    def kill(self, handle: ActorHandle, *, no_restart: bool) -> None:
        """See `Engine`."""
        raw = _raw(handle)
        before = None if no_restart else life(raw)
        ray.kill(raw, no_restart=no_restart)
        if no_restart or before is not None:
            wait_for_end(raw, before)

    def move(self, handle: ActorHandle, node: str | NodeInfo) -> None:  # noqa: ARG002 - the protocol's
        """See `Engine`."""
        refuse("move()", "Ray does not move actors that run")

    def get_actor(self, name: str, namespace: str | None) -> ActorHandle:
        """See `Engine`."""
        try:
            raw = ray.get_actor(name, namespace=namespace)
        except ValueError:
            space = namespace or ray.get_runtime_context().namespace
            known = [found["name"] for found in list_named_actors(all_namespaces=True) if found["namespace"] == space]
            told = ", ".join(known) or "none"
            raise ValueError(f"no actor is named {name!r} in namespace {space!r}; there are: {told}") from None
        if not hasattr(raw, "_actors_spec"):
            raise ValueError(f"the actor named {name!r} was made by Ray itself: reach it by ray.get_actor")
        with translating():
            spec, manner = answered(raw._actors_spec, SPEC_SECONDS)  # noqa: SLF001 - ours
        return RayHandle(raw, name, spec, manner)

    def list_named_actors(self, *, all_namespaces: bool) -> list[Any]:
        """See `Engine`."""
        return list(list_named_actors(all_namespaces=all_namespaces))

    def nodes(self) -> list[NodeInfo]:
        """See `Engine`."""
        own = ray.get_runtime_context().get_node_id()
        found = [
            NodeInfo(
                id=node["NodeID"], name=node.get("NodeName") or node["NodeManagerHostname"],
                address=f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}", alive=node["Alive"], pid=None,
                found_by="ray", resources=dict(node["Resources"]), labels=dict(node.get("Labels") or {}),
                device={}, versions={"ray": ray.__version__},
            )
            for node in ray.nodes()
        ]  # fmt: skip
        return sorted(found, key=lambda node: node.id != own)

    def available_resources(self) -> dict[str, float]:
        """See `Engine`."""
        return {**dict.fromkeys(ray.cluster_resources(), 0.0), **ray.available_resources()}

    def exit_actor(self) -> NoReturn:
        """See `Engine`."""
        if here() is None:
            raise TypeError("exit_actor() ends the actor it is called in, and this is none: use actors.kill(handle)")
        raise ActorExit

    def context(self) -> RayContext:
        """See `Engine`."""
        return RayContext()

    def group_of(self, handles: Sequence[ActorHandle], backend: str) -> ActorGroup:
        """See `Engine`."""
        if backend != "auto":
            refuse(
                f"backend={backend!r}",
                "gloo carries arrays where all have torch, else Ray's object store: 'auto'",
            )
        members = [_ours(handle) for handle in handles]
        group = new_id("group")
        with translating():
            ray.get(_enter(group, members))
        return ActorGroup(group, members)

    def end_group(self, group: ActorGroup) -> None:
        """See `Engine`."""
        for member in group:
            _raw(member)._actors_leave.remote(group.id)  # noqa: SLF001 - ours

    def is_initialized(self) -> bool:
        """See `Engine`."""
        return bool(ray.is_initialized())

    def shutdown(self) -> None:
        """See `Engine`."""
        ray.shutdown()
        engine.use(None)


def _ours(handle: ActorHandle) -> RayHandle:
    if not isinstance(handle, RayHandle):
        raise CollectiveError(f"{handle!r} is of another engine than 'ray'")
    return handle


def _raw(handle: ActorHandle) -> Any:
    return _ours(handle)._raw  # noqa: SLF001 - one of us


def _enter(group: str, members: Sequence[RayHandle]) -> list[Any]:
    raws = [_raw(member) for member in members]
    labels = [repr(member) for member in members]
    return [raw._actors_enter.remote(group, rank, raws, labels) for rank, raw in enumerate(raws)]  # noqa: SLF001
