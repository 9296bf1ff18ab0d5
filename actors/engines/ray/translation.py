"""Options as Ray has them; what Ray cannot do is refused by name."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import ray
from ray.util import client
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as RayAffinity

from actors.exceptions import PlacementError
from actors.messages import STREAM_WINDOW
from actors.strategy import NodeAffinitySchedulingStrategy

from .environments import sent

if TYPE_CHECKING:
    from actors.options import ActorOptions, MethodOptions, Retry, TaskOptions
    from actors.options import _Placed as Placed

HIDDEN = "_actors"
"""Concurrency group of the methods that every actor here has beside its own, so that they never wait for those."""

_SAME = ("num_cpus", "num_gpus", "memory", "resources", "label_selector")
_MISSING = {
    "record": "calls are not recorded there; leave record= out",
    "checkpoint": "an actor is made anew without its state; leave checkpoint= out, or save it yourself",
    "placement_timeout": "Ray waits for room without end; leave placement_timeout= out, or use get(…, timeout=)",
}


def of_actor(options: ActorOptions) -> dict[str, Any]:
    """Returns the options of an actor.

    Raises:
        NotImplementedError: one that Ray does not have.
    """
    for name, why in _MISSING.items():
        if getattr(options, name):
            refuse(f"{name}=", why)
    if options.isolation != "process":
        refuse("isolation='thread'", "each actor has a process of its own; leave isolation= out")
    if options.replicas != 1:
        refuse("replicas=", "no copy of an actor's state is kept; leave replicas= out")
    found = _placed(options)
    groups = {**(options.concurrency_groups or {}), HIDDEN: 4}
    found.update(
        name=options.name, namespace=options.namespace, lifetime=options.lifetime, max_restarts=options.max_restarts,
        max_task_retries=options.max_task_retries, max_concurrency=options.max_concurrency,
        max_pending_calls=options.max_pending_calls, concurrency_groups=groups,
        allow_out_of_order_execution=options.allow_out_of_order_execution,
        get_if_exists=options.get_if_exists or None,
    )  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def of_task(options: TaskOptions) -> dict[str, Any]:
    """Returns the options of a task."""
    if options.timeout is not None:
        refuse("timeout= of a task", "use get(…, timeout=), and actors.cancel")
    if options.placement_timeout:
        refuse("placement_timeout=", _MISSING["placement_timeout"])
    found = _placed(options)
    found.update(max_retries=options.max_retries, name=options.name)
    return {name: value for name, value in found.items() if value is not None}


def of_method(options: MethodOptions, generates: bool) -> dict[str, Any]:
    """Returns the options of one call."""
    if options.timeout is not None:
        refuse("timeout= of a call", "use get(…, timeout=), and actors.cancel")
    returns = options.num_returns if options.num_returns is not None else ("streaming" if generates else None)
    if returns in {"streaming", "dynamic"} and client.ray.is_connected():
        refuse("generator methods over ray://", "run the program in the cluster, or call them from an actor")
    found = {
        "num_returns": "streaming" if returns == "dynamic" else returns,
        "_generator_backpressure_num_objects": STREAM_WINDOW if returns in {"streaming", "dynamic"} else None,
        "concurrency_group": options.concurrency_group,
        "max_task_retries": options.max_task_retries, "retry_exceptions": options.retry_exceptions,
        "name": options.name,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def kinds(retry: Retry) -> tuple[type[BaseException], ...]:
    """Returns the classes that ``retry_exceptions=`` means."""
    return retry if isinstance(retry, tuple) else (Exception,) if retry else ()


def _placed(options: Placed) -> dict[str, Any]:
    found = {name: getattr(options, name) for name in _SAME}
    found["runtime_env"] = sent(options.runtime_env)
    strategy = options.scheduling_strategy
    if options.node is not None:
        strategy = NodeAffinitySchedulingStrategy(options.node)
    if strategy == "PACK":
        refuse("scheduling_strategy='PACK'", "Ray's DEFAULT packs already")
    if isinstance(strategy, NodeAffinitySchedulingStrategy):
        found["scheduling_strategy"] = RayAffinity(node_id(strategy.node_id), soft=strategy.soft)
    else:
        found["scheduling_strategy"] = strategy
    return found


def node_id(name: str) -> str:
    """Returns Ray's id of a node that is told by its id or its name.

    Raises:
        PlacementError: none is there.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    for node in alive:
        if name in {node["NodeID"], node.get("NodeName"), node.get("NodeManagerHostname")}:
            found: str = node["NodeID"]
            return found
    raise PlacementError(f"no node is named {name!r}, nor has that id; there are: {', '.join(map(_name, alive))}")


@cache
def node_name() -> str:
    """Returns the name of the node that this process is on."""
    own = ray.get_runtime_context().get_node_id()
    return next((_name(node) for node in ray.nodes() if node["NodeID"] == own), own)


def _name(node: dict[str, Any]) -> str:
    return str(node.get("NodeName") or node["NodeManagerHostname"])


def refuse(what: str, instead: str) -> NoReturn:
    """Raises for an option that Ray does not have."""
    raise NotImplementedError(f"the engine 'ray' has no {what}: {instead}")
