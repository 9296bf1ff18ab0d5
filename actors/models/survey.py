"""What the nodes have to offer a model: memory and speed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import psutil

from actors.actorclass import remote
from actors.api import get
from actors.api import nodes as cluster_nodes
from actors.exceptions import ActorDiedError, PlacementError

from .extra import on_cpu
from .holders import host
from .means import Abilities
from .openblas import bring
from .plan import Device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import mlx.core as mx

    from actors.nodeinfo import NodeInfo

_SHARE: Final = 0.8  # of a machine's memory, that models may take
_SECONDS: Final = 60
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


class Survey:
    """Asks nodes what they can do, each once, so that a model is planned again by the same figures."""

    def __init__(self) -> None:
        self._known: dict[str, Abilities] = {}  # by ids of nodes
        self._free: int | None = None  # bytes on this host

    def devices(self, nodes: Sequence[NodeInfo], *, measure: bool = False, wide: bool = True) -> list[Device]:
        """What each node offers.

        Nodes on one host share the memory that is free there. Devices of one kind count as equally fast. Where there
        are several kinds or hosts, or with `measure`, each node is asked to multiply, and the speed is in
        multiplications a second.

        Args:
            nodes: in the order of the layers.
            measure: ask in any case.
            wide: weights may be in float32; the speed is then that of OpenBLAS where it is installed.
        """
        hosts = Counter(map(host, nodes))
        if measure or len(hosts) > 1 or len(set(map(_kind, nodes))) > 1:
            self._ask([node for node in nodes if node.id not in self._known])
        found = [self._known.get(node.id) for node in nodes]
        absolute = all(found)
        best: dict[tuple[object, ...], float] = {}
        for node, each in zip(nodes, found, strict=True):
            speed = 1.0 if each is None or not absolute else each.pace(wide=wide)
            best[_kind(node)] = max(best.get(_kind(node), 0.0), speed)
        return [
            Device(node.name, best[_kind(node)], self._memory(node, each) // hosts[host(node)], absolute, each)
            for node, each in zip(nodes, found, strict=True)
        ]

    def _ask(self, nodes: Sequence[NodeInfo]) -> None:
        task = remote(_abilities)
        asked = [(node, task.options(node=node.name).remote()) for node in nodes]
        for node, ref in asked:
            with suppress(ActorDiedError, TimeoutError):  # it is found out as the stages are loaded
                self._known[node.id] = get(ref, timeout=_SECONDS)

    def _memory(self, node: NodeInfo, found: Abilities | None) -> int:
        """What the node was told that it has, or what is free there, if that is less; a part of it."""
        if found is None and self._free is None:  # then all are on one host, mostly this one
            self._free = psutil.virtual_memory().available
        free = found.free if found is not None else self._free
        assert free is not None
        return int(min(node.resources["memory"], free) * _SHARE)


def _abilities() -> Abilities:
    blas = bring()  # this process may become a stage's, and then it is too late
    cpu = on_cpu()  # or it says why MLX cannot be imported
    import mlx.core as mx

    weights, vector = mx.random.normal((_ROWS, _COLUMNS)), mx.ones((1, _COLUMNS))
    narrow = mx.quantize(weights, group_size=32, bits=4)
    speed = _pace(lambda: mx.quantized_matmul(vector, *narrow, group_size=32, bits=4))
    wide = _pace(lambda: vector @ weights.T) if blas else 0.0
    return Abilities(speed, wide, psutil.virtual_memory().available, cpu, sys.platform == "linux")


def _pace(multiply: Callable[[], mx.array]) -> float:
    """Multiplications of a matrix and one vector, as decoding does them, in a second."""
    import mlx.core as mx

    took = []
    for _ in range(_TIMES):
        start = time.perf_counter()
        mx.eval(multiply())
        took.append(time.perf_counter() - start)
    return _ROWS * _COLUMNS / min(took)


def _kind(node: NodeInfo) -> tuple[object, ...]:
    return tuple(node.device.get(key) for key in ("chip", "platform", "cpus"))
