"""What programs of actors often need beside actors: pools, queues, progress, metrics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.api import list_named_actors as list_named_actors
    from actors.jsonlog import JsonFormatter as JsonFormatter
    from actors.util import actor_pool as actor_pool
    from actors.util import completion as completion
    from actors.util import executor as executor
    from actors.util import joblib as joblib
    from actors.util import metrics as metrics
    from actors.util import progress as progress
    from actors.util import queue as queue
    from actors.util import scheduling_strategies as scheduling_strategies
    from actors.util import serializability as serializability
    from actors.util.actor_pool import ActorPool as ActorPool
    from actors.util.completion import as_completed as as_completed
    from actors.util.completion import map as map  # noqa: A004 - as dask calls it
    from actors.util.executor import Executor as Executor
    from actors.util.queue import Queue as Queue
    from actors.util.serializability import inspect_serializability as inspect_serializability

# Loaded when touched, as the names of `actors` are.
_HOMES = {
    "ActorPool": "actors.util.actor_pool",
    "JsonFormatter": "actors.jsonlog",
    "Executor": "actors.util.executor",
    "Queue": "actors.util.queue",
    "as_completed": "actors.util.completion",
    "inspect_serializability": "actors.util.serializability",
    "list_named_actors": "actors.api",
    "map": "actors.util.completion",
}
_MODULES = (
    "actor_pool",
    "completion",
    "executor",
    "joblib",
    "metrics",
    "progress",
    "queue",
    "scheduling_strategies",
    "serializability",
)

__all__ = [
    "ActorPool",
    "Executor",
    "JsonFormatter",
    "Queue",
    "actor_pool",
    "as_completed",
    "completion",
    "executor",
    "inspect_serializability",
    "joblib",
    "list_named_actors",
    "map",
    "metrics",
    "progress",
    "queue",
    "scheduling_strategies",
    "serializability",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in _MODULES:
        value = import_module(f"actors.util.{name}")
    else:
        raise AttributeError(f"module 'actors.util' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
