"""A model's plan: which layers run on which node, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.exceptions import ModelError

from .partitioning import partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .checkpoint import ModelInfo


@dataclass(frozen=True, slots=True)
class Device:
    """What a node offers: `speed` relative to the others, and `memory`, the bytes free for weights (None: enough)."""

    name: str
    speed: float = 1.0
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Layers `first` to `last`, both inclusive, on `node`; `nbytes` is the memory that the weights will take."""

    stage: int
    node: str
    first: int
    last: int
    nbytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages in the order of their layers. `str()` of it is a table to read."""

    model: ModelInfo
    stages: tuple[StagePlan, ...]

    def __str__(self) -> str:
        width = max(len(each.node) for each in self.stages)
        lines = [f"{self.model.layers} layers of {self.model.path} in {len(self.stages)} stages"]
        lines += [
            f"  stage {each.stage}  {each.node:<{width}}  layers {each.first:>3} to {each.last:>3}  "
            f"{each.nbytes / 2**20:>8,.1f} MiB  {each.why}"
            for each in self.stages
        ]
        return "\n".join(lines)


def make_plan(model: ModelInfo, devices: Sequence[Device]) -> Plan:
    """Give each device, in this order, the layers that make the slowest stage as fast as can be.

    A token costs a layer or the head as much work as it has parameters; looking up an embedding costs nothing.

    Raises:
        ModelError: more devices than layers, none at all, or not enough memory.
    """
    head = model.hidden_size * model.vocab_size
    last_nbytes = model.head_nbytes + (model.embedding_nbytes if model.tied and len(devices) > 1 else 0)
    limited = any(each.memory is not None for each in devices)
    try:
        ranges = partition(
            model.layer_parameters,
            [each.speed for each in devices],
            last_cost=head,
            nbytes=model.layer_nbytes,
            first_nbytes=model.embedding_nbytes,
            last_nbytes=last_nbytes,
            capacities=[_room(each) for each in devices] if limited else None,
        )
    except ValueError as error:
        raise ModelError(f"{model.path} cannot be planned: {error}") from error
    total = sum(model.layer_parameters) + head
    stages = []
    for number, (device, layers) in enumerate(zip(devices, ranges, strict=True)):
        is_last = number == len(devices) - 1
        work = sum(model.layer_parameters[layer] for layer in layers) + head * is_last
        nbytes = sum(model.layer_nbytes[layer] for layer in layers)
        nbytes += model.embedding_nbytes * (number == 0) + last_nbytes * is_last
        why = _why(len(layers), work / total, device.speed, first=number == 0, last=is_last)
        stages.append(StagePlan(number, device.name, layers[0], layers[-1], nbytes, why))
    return Plan(model, tuple(stages))


def _room(device: Device) -> float:
    return float("inf") if device.memory is None else device.memory


def _why(layers: int, share: float, speed: float, *, first: bool, last: bool) -> str:
    parts = [f"{layers} layer{'s' * (layers != 1)}", *["the embedding"] * first, *["the head"] * last]
    return f"{' + '.join(parts)}: {share:.0%} of the work at speed {speed:g}"
