"""The runtime context on Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from actors.context import RuntimeContext

from .handles import RayHandle
from .hosting import here, running
from .translation import node_name

if TYPE_CHECKING:
    from actors.handle import ActorHandle


class RayContext(RuntimeContext):
    """See `RuntimeContext`."""

    def __init__(self) -> None:
        self._ray: Any = ray.get_runtime_context()
        self._host = here()

    def get_job_id(self) -> str:
        """See `RuntimeContext`."""
        return str(self._ray.get_job_id())

    def get_node_id(self) -> str:
        """See `RuntimeContext`."""
        return str(self._ray.get_node_id())

    def get_worker_id(self) -> str:
        """See `RuntimeContext`."""
        return str(self._ray.get_worker_id())

    def get_actor_id(self) -> str | None:
        """See `RuntimeContext`."""
        return str(self._ray.get_actor_id()) if self._host is not None else None

    def get_actor_name(self) -> str | None:
        """See `RuntimeContext`."""
        return (self._ray.get_actor_name() or "") if self._host is not None else None

    def get_task_id(self) -> str | None:
        """See `RuntimeContext`."""
        found = self._ray.get_task_id()
        return str(found) if found is not None and running.get() is not None else None

    def get_task_name(self) -> str | None:
        """See `RuntimeContext`."""
        return running.get()

    def get_assigned_resources(self) -> dict[str, float]:
        """See `RuntimeContext`."""
        return dict(self._ray.get_assigned_resources())

    def get_node_labels(self) -> dict[str, str]:
        """See `RuntimeContext`."""
        return dict(self._ray.get_node_labels())

    def is_canceled(self) -> bool:
        """See `RuntimeContext`."""
        return bool(self._ray.is_canceled())

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """See `RuntimeContext`."""
        return self._host is not None and bool(self._ray.was_current_actor_reconstructed)

    @property
    def current_actor(self) -> ActorHandle:
        """See `RuntimeContext`."""
        if self._host is None:
            raise RuntimeError("this code runs in no actor: current_actor is there in an actor's methods only")
        from actors.spec import describe

        return RayHandle(self._ray.current_actor, self._host.label, describe(self._host.cls), self._host.manner)

    @property
    def namespace(self) -> str:
        """See `RuntimeContext`."""
        return str(self._ray.namespace)

    @property
    def node_name(self) -> str:
        """See `RuntimeContext`."""
        return node_name()

    @property
    def rank(self) -> int:
        """See `RuntimeContext`."""
        return self._host.first[1] if self._host is not None and self._host.first is not None else 0

    @property
    def world_size(self) -> int:
        """See `RuntimeContext`."""
        return self._host.first[2] if self._host is not None and self._host.first is not None else 1

    def remaining(self) -> float | None:
        """None: calls on Ray have no deadlines."""
        return None
