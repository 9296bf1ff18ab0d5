"""What the nodes have to offer a model: memory and speed."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from actors.actorclass import remote
from actors.api import get
from actors.api import nodes as cluster_nodes
from actors.exceptions import PlacementError

from .extra import on_cpu
from .holders import host
from .openblas import bring
from .plan import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.nodeinfo import NodeInfo

_SHARE: Final = 0.8  # of a machine's memory, that models may take
_ROWS, _COLUMNS, _TIMES = 4096, 1024, 8


def choose(names: Sequence[str] | None, *, lost: bool = False) -> list[NodeInfo]:
    """Nodes that are alive, of `names` where there are any; with `lost`, not all of them need be there.

    Raises:
        PlacementError: a node is not known.
        ValueError: `names` is empty or has one twice.
    """
    alive = [node for node in cluster_nodes() if node.alive]
    if names is None:
        return alive
    if isinstance(names, str) or not names:
        raise ValueError(f"nodes must be a list of at least one name, not {names!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"a node has one stage of a model, but nodes= names one twice: {', '.join(names)}")
    known = {node.name: node for node in alive}
    for name in names:
        if name not in known and not lost:
            raise PlacementError(f"no node is called {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names if name in known]


def devices(nodes: Sequence[NodeInfo], *, measure: bool = False) -> list[Device]:
    """What each node offers.

    Nodes on one host share its memory. Devices of one kind count as equally fast; where there are several kinds, or
    with `measure`, each node is asked to multiply, and the speed is in multiplications a second.
    """
    hosts = Counter(map(host, nodes))
    kinds = {_kind(node) for node in nodes}
    measure = measure or len(kinds) > 1
    speeds = _measured(nodes) if measure else [1.0] * len(nodes)
    return [
        Device(node.name, speed, int(_memory(node) * _SHARE) // hosts[host(node)], absolute=measure)
        for node, speed in zip(nodes, speeds, strict=True)
    ]


def _measured(nodes: Sequence[NodeInfo]) -> list[float]:
    task = remote(_multiply)
    found = get([task.options(node=node.name).remote() for node in nodes])
    best: dict[tuple[object, ...], float] = {}
    for node, speed in zip(nodes, found, strict=True):
        best[_kind(node)] = max(best.get(_kind(node), 0.0), speed)
    return [best[_kind(node)] for node in nodes]


def _multiply() -> float:
    """Multiplications of a quantised matrix and one vector, as decoding does them, in a second."""
    bring()  # this process may become a stage's, and then it is too late
    on_cpu()  # or it says why MLX cannot be imported
    import mlx.core as mx

    weights = mx.quantize(mx.random.normal((_ROWS, _COLUMNS)), group_size=32, bits=4)
    vector = mx.ones((1, _COLUMNS))
    took = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        mx.eval(mx.quantized_matmul(vector, *weights, group_size=32, bits=4))
        took.append(time.perf_counter() - start)
    return _ROWS * _COLUMNS / min(took)


def _kind(node: NodeInfo) -> tuple[object, ...]:
    return tuple(node.device.get(key) for key in ("chip", "platform", "cpus"))


def _memory(node: NodeInfo) -> float:
    """What the node was told that it has, or what the machine has."""
    return node.resources["memory"]
