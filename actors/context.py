"""The runtime context: where the code that asks is running, and on whose behalf."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.serialize import loads

if TYPE_CHECKING:
    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo
    from actors.process import Process


class RuntimeContext:
    """Where the code that asked is running. The names are Ray's, but for those that say otherwise."""

    def __init__(self, process: Process) -> None:
        actor = runtime.myself()
        self._process = process
        self._call = runtime.running()
        self._in_task = actor is not None and actor.spec.task
        self._actor = None if self._in_task else actor
        self._holder = actor

    def get_job_id(self) -> str:
        """Returns the id of the program that all this is done for."""
        driver = runtime.driver()
        return (driver or self._process.address).process

    def get_node_id(self) -> str:
        """Returns the id of this process's node."""
        return self._process.address.node

    def get_worker_id(self) -> str:
        """Returns the id of this process."""
        return self._process.id

    def get_actor_id(self) -> str | None:
        """Returns the id of the actor this runs in; None in a driver or a task."""
        return self._actor.spec.id if self._actor is not None else None

    def get_actor_name(self) -> str | None:
        """Returns the name of the actor this runs in, empty where it has none; None in a driver or a task."""
        return runtime.name_of(self._actor.spec) if self._actor is not None else None

    def get_task_id(self) -> str | None:
        """Returns what tells the current call, of a method or a function, from all others; None outside of one."""
        return "/".join(map(str, self._call.key)) if self._call is not None else None

    def get_task_name(self) -> str | None:
        """Returns the current call as it is named in messages, such as ``"Counter.add"``; None outside of one."""
        if self._call is None:
            return None
        return self._call.method if self._actor is None else f"{self._actor.spec.class_name}.{self._call.method}"

    def get_assigned_resources(self) -> dict[str, float]:
        """Returns what the actor or task holds of its node's resources."""
        return dict(self._holder.spec.demand.holds) if self._holder is not None else {}

    def get_node_labels(self) -> dict[str, str]:
        """Returns the labels of this process's node."""
        nodes: list[NodeInfo] = self._process.portal.run(self._process.ask_home("nodes"))
        return next((dict(node.labels) for node in nodes if node.id == self.get_node_id()), {})

    def is_canceled(self) -> bool:
        """Whether the current call was cancelled; a plain method goes on then, and may look."""
        return runtime.cancelled()

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor has been made anew after a death."""
        return self._actor is not None and self._actor.spec.life > 0

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor this runs in.

        Raises:
            RuntimeError: this is no actor.
        """
        if self._actor is None or self._actor.spec.handle is None:
            raise RuntimeError("this code runs in no actor: current_actor is there in an actor's methods only")
        handle: ActorHandle = loads(self._actor.spec.handle)
        return handle

    @property
    def namespace(self) -> str:
        """The namespace names are looked up in."""
        return self._process.namespace

    @property
    def node_name(self) -> str:
        """Ours: the name of this process's node."""
        return self._process.address.node_name

    @property
    def rank(self) -> int:
        """Ours: this actor's rank in its group; 0 outside a group."""
        group = self._actor.group if self._actor is not None else None
        return group.rank if group is not None else 0

    @property
    def world_size(self) -> int:
        """Ours: how many actors this one's group has; 1 outside a group."""
        group = self._actor.group if self._actor is not None else None
        return len(group.members) if group is not None else 1

    def remaining(self) -> float | None:
        """Ours: returns the seconds until nobody waits for the current call's answer; None where it has no deadline."""
        return runtime.remaining()

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the runtime context has no {name!r}; there are: {', '.join(_names())}")


def _names() -> list[str]:
    return [name for name in vars(RuntimeContext) if not name.startswith("_")]
