"""The engine: what runs actors. The one seam between the public functions and all that stands below them.

A program has one engine at a time: this package's own runtime on a LAN, unless `actors.init` was told of another.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, cast

from actors.exceptions import NoClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.context import RuntimeContext
    from actors.group import ActorGroup
    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo
    from actors.options import ActorOptions
    from actors.task import RemoteFunction

OWN = "lan"
HOMES = {OWN: "actors.engines.lan", "ray": "actors.engines.ray"}
"""Where each engine is; loaded when it is first needed."""


class Engine(Protocol):
    """What the public functions of the same names are made of; they have checked their arguments, engines have not."""

    name: str

    def create_actor(
        self, cls: type, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorHandle:
        """See `actors.actorclass.ActorClass.remote`."""

    def create_group(
        self, cls: type, options: ActorOptions, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ActorGroup:
        """See `actors.actorclass.ActorClass.group`."""

    def run_task(self, function: RemoteFunction[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `actors.task.RemoteFunction.remote`."""

    def get(self, refs: Any, *, timeout: float | None = None) -> Any:
        """See `actors.get`."""

    def wait(
        self, refs: Sequence[Any], *, num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Any], list[Any]]:
        """See `actors.wait`."""

    def put(self, value: Any) -> Any:
        """See `actors.put`."""

    def cancel(self, ref: Any, *, force: bool, recursive: bool) -> None:
        """See `actors.cancel`."""

    def kill(self, handle: ActorHandle, *, no_restart: bool) -> None:
        """See `actors.kill`."""

    def move(self, handle: ActorHandle, node: str | NodeInfo) -> None:
        """See `actors.move`."""

    def get_actor(self, name: str, namespace: str | None) -> ActorHandle:
        """See `actors.get_actor`."""

    def list_named_actors(self, *, all_namespaces: bool) -> list[Any]:
        """See `actors.list_named_actors`."""

    def nodes(self) -> list[NodeInfo]:
        """See `actors.nodes`."""

    def available_resources(self) -> dict[str, float]:
        """See `actors.available_resources`."""

    def exit_actor(self) -> NoReturn:
        """See `actors.exit_actor`."""

    def context(self) -> RuntimeContext:
        """See `actors.get_runtime_context`."""

    def group_of(self, handles: Sequence[ActorHandle], backend: str) -> ActorGroup:
        """See `actors.collective.create_group`."""

    def end_group(self, group: ActorGroup) -> None:
        """See `actors.collective.destroy_group`."""

    def is_initialized(self) -> bool:
        """See `actors.is_initialized`."""

    def shutdown(self) -> None:
        """See `actors.shutdown`."""


_other: Engine | None = None


def chosen() -> Engine:
    """Returns the engine of this process."""
    return _other if _other is not None else _own()


def other() -> Engine | None:
    """Returns the engine of this process; None where it is this package's own."""
    return _other


def use(engine: Engine | None) -> None:
    """Makes ``engine`` that of this process, or with None this package's own."""
    global _other  # noqa: PLW0603 - the one place that knows
    _other = engine


def refuse(what: str, instead: str) -> NoReturn:
    """Raises for what the engine of this process does not have."""
    name = chosen().name
    raise NotImplementedError(f"the engine {name!r} does not provide {what}: {instead}")


def connect(name: str, request: Mapping[str, Any]) -> Any:
    """Has an engine join what it runs on, for `actors.init`; returns what that returns."""
    try:
        home = import_module(HOMES[name])
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise NoClusterError(
            f"engine={name!r} needs the package {name}, which is not installed: pip install {name}"
        ) from None
    return home.connect(request)


@cache
def _own() -> Engine:
    return cast("Engine", import_module(HOMES[OWN]).Lan())
