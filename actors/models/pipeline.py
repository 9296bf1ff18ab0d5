"""A module of your own over several nodes: its layers in stages, which work on different inputs at once."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from actors.actorclass import remote
from actors.api import get, get_runtime_context, kill
from actors.exceptions import ModelError

from .partitioning import partition
from .survey import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from actors.handle import ActorHandle
    from actors.refs import ObjectRef


class Stage:
    """Some layers of a module, one after the other; the actor class of a `Pipeline`'s stages.

    It can be used by itself as well: `actors.remote(Stage).remote(layers, before)`.

    Args:
        layers: MLX modules or functions, each of which takes what the one before it gives.
        before: the stage that gives the first one its input; None where the input is what is asked with.
    """

    def __init__(self, layers: Sequence[Callable[[Any], Any]], before: ActorHandle | None = None) -> None:
        # MLX's lazy arrays belong to the thread that made them.
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="mlx")
        self._layers, self._before = list(layers), before

    async def where(self) -> dict[str, Any]:
        """Returns the `node` it is on, and how many `layers` it has."""
        return {"node": get_runtime_context().node_name, "layers": len(self._layers)}

    async def forward(self, x: Any) -> Any:
        """Takes an input through all stages up to this one; returns what comes out."""
        if self._before is not None:
            x = await self._before.forward.remote(x)
        return await asyncio.get_running_loop().run_in_executor(self._turns, self._run, x)

    def _run(self, x: Any) -> Any:
        import mlx.core as mx

        for layer in self._layers:
            x = layer(x)
        mx.eval(x)
        return x


class Pipeline:
    """A module cut into stages, one on each node. It is a context manager.

    The program that makes it holds the module. Weights travel once, and what one stage gives goes from node to node.
    `stages` are the actors and `ranges` the layers of each.

    Args:
        layers: a list of modules or functions, each of which takes what the one before it gives and can be pickled; or
            a module that does nothing but call its `layers` one after the other, such as `nn.Sequential`.
        nodes: names of nodes, in the order of the layers; None takes all that are alive.
        costs: work of each layer, in any unit; None counts its parameters.

    Raises:
        ModelError: there are no layers.
        PlacementError: a node is not known.
        ValueError: `nodes` is empty or names a node twice, or `costs` do not fit the layers.
    """

    def __init__(
        self, layers: Any, *, nodes: Sequence[str] | None = None, costs: Sequence[float] | None = None
    ) -> None:
        found = [_portable(layer) for layer in getattr(layers, "layers", layers)]
        if not found or not all(map(callable, found)):
            raise ModelError("a pipeline needs layers: modules or functions, one after the other")
        if costs is not None and len(costs) != len(found):
            raise ValueError(f"there are {len(costs)} costs for {len(found)} layers")
        chosen = choose(nodes)[: len(found)]
        work = [_work(layer) for layer in found] if costs is None else list(costs)
        self.ranges = partition(work, [1.0] * len(chosen))
        self.stages: list[ActorHandle] = []
        self._closed = False
        try:
            for node, numbers in zip(chosen, self.ranges, strict=True):
                before = self.stages[-1] if self.stages else None
                own = [found[number] for number in numbers]
                self.stages.append(remote(Stage).options(node=node.name).remote(own, before))
            get([stage.where.remote() for stage in self.stages])
        except BaseException:
            self.close()
            raise

    def __call__(self, x: Any) -> Any:
        """Takes one input through all layers; returns what comes out."""
        return get(self.submit(x))

    def submit(self, x: Any) -> ObjectRef[Any]:
        """Begins to take an input through all layers, and returns a reference to what comes out."""
        if self._closed:
            raise ModelError("this pipeline was closed")
        ref: ObjectRef[Any] = self.stages[-1].forward.remote(x)
        return ref

    def map(self, inputs: Iterable[Any]) -> Iterator[Any]:
        """Yields what comes out for each input, in order; the stages work on several at once."""
        under_way: deque[ObjectRef[Any]] = deque()
        for x in inputs:
            under_way.append(self.submit(x))
            if len(under_way) > len(self.stages):
                yield get(under_way.popleft())
        while under_way:
            yield get(under_way.popleft())

    def close(self) -> None:
        """Ends the stages."""
        self._closed = True
        while self.stages:
            kill(self.stages.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = ", ".join(f"{numbers.start} to {numbers.stop - 1}" for numbers in self.ranges)
        return f"Pipeline(layers {parts})"


@dataclass(frozen=True, slots=True)
class _Function:
    """A function of `mlx.nn` by its name: MLX's compiled functions, such as `nn.relu`, cannot be pickled."""

    name: str

    def __call__(self, x: Any) -> Any:
        from mlx import nn

        return getattr(nn, self.name)(x)


def _portable(layer: Any) -> Any:
    from mlx import nn

    if isinstance(layer, nn.Module):
        return layer
    name = next((name for name, value in vars(nn).items() if value is layer), None)
    return layer if name is None else _Function(name)


def _work(layer: Any) -> float:
    """As many multiplications as it has weights; one for what has none."""
    from mlx import nn
    from mlx.utils import tree_flatten

    if not isinstance(layer, nn.Module):
        return 1.0
    weights: Any = tree_flatten(layer.parameters())
    return 1.0 + float(sum(weight.size for _, weight in weights))
