"""A model's plan: which layers run on which node, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from actors.exceptions import ModelError

from .partitioning import partition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .checkpoint import ModelInfo
    from .means import Abilities
    from .sharing import Shape, Share


@dataclass(frozen=True, slots=True)
class Device:
    """What a node offers: `speed` relative to the others, and `memory`, the bytes free for weights (None: enough).

    With `absolute`, the speed is in multiplications a second, and the plan can foretell how fast the model will be.
    `abilities` is what it said of itself, where it was asked.
    """

    name: str
    speed: float = 1.0
    memory: int | None = None
    absolute: bool = False
    abilities: Abilities | None = None

    def without(self, nbytes: int) -> Device:
        """The same where so much of the memory is taken."""
        return self if self.memory is None else replace(self, memory=max(self.memory - nbytes, 0))


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Layers `first` to `last`, both inclusive, on `node`.

    `nbytes` is the memory that the weights will take, `work` the multiplications for a token, and `seconds` the time
    that one takes: foretold, or measured once the model is loaded; None where nothing is known. `memory` is what the
    node offers for weights, None for enough, and `how` in what arithmetic it computes: foretold where the node was
    asked, and known once it is loaded.
    """

    stage: int
    node: str
    first: int
    last: int
    nbytes: int
    why: str
    work: int = 0
    seconds: float | None = None
    memory: int | None = None
    how: str = ""

    @property
    def place(self) -> tuple[str, int, int]:
        """Which layers are where."""
        return self.node, self.first, self.last


@dataclass(frozen=True, slots=True)
class DraftPlan:
    """The model at `path`, which guesses tokens, whole on `node`: beside the first stage, in a process of its own.

    `nbytes` is the memory that its weights take, `seconds` what a guess takes there, known once it is loaded, as is
    `how` it computes. Of the `guessed` tokens `right` ones were what the model said. `lost` says why it guesses no
    more.
    """

    path: str
    node: str
    layers: int
    nbytes: int
    seconds: float | None = None
    how: str = ""
    guessed: int = 0
    right: int = 0
    lost: str = ""

    def __str__(self) -> str:
        text = f"draft  {self.node}  all {self.layers} layers of {self.path}  {self.nbytes / 2**20:,.1f} MiB"
        text += "" if self.seconds is None else f"  {_time(self.seconds)}{self.how}"
        text += f"; {self.right} of {self.guessed} guesses were right" if self.guessed else ""
        return f"{text}; it is lost: {self.lost}" if self.lost else text


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages in the order of their layers. `str()` of it is a table to read.

    Attributes:
        model: what is planned.
        stages: which layers are where.
        measured: times are those of the loaded model, not foretold ones.
        shares: where layers are cut lengthwise, what each node has of all of them; its time is then that of all.
        foretold: tokens a second of one answer, as they were foretold; None where nothing was known.
        apart: why answers go through the stages one at a time; empty where several go through together, and None as
            long as the model is not loaded.
        draft: the model that guesses tokens; None where there is none.
    """

    model: ModelInfo
    stages: tuple[StagePlan, ...]
    measured: bool = False
    shares: tuple[Share, ...] = ()
    foretold: float | None = None
    apart: str | None = None
    draft: DraftPlan | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second of one answer, each of which passes through all stages; None where nothing is known."""
        seconds = [each.seconds for each in self.stages if each.seconds]
        return 1 / (max if self.shares else sum)(seconds) if len(seconds) == len(self.stages) else None

    @property
    def most_tokens_per_s(self) -> float | None:
        """Tokens a second of many answers together, which keep the slowest stage busy."""
        seconds = [each.seconds for each in self.stages if each.seconds]
        return 1 / max(seconds) if len(seconds) == len(self.stages) else None

    def with_found(self, found: Sequence[Mapping[str, Any]], apart: str) -> Plan:
        """The same plan with what each stage said of itself once it was loaded; see `StageActor.loaded`."""
        stages = [
            replace(stage, seconds=each["seconds"], nbytes=each["nbytes"], how=each["how"])
            for stage, each in zip(self.stages, found, strict=True)
        ]
        foretold = self.foretold if self.measured else self.tokens_per_s
        return replace(self, stages=tuple(stages), measured=True, foretold=foretold, apart=apart)

    def __str__(self) -> str:
        width = max(len(each.node) for each in self.stages)
        count = len(self.stages)
        parts = f"{count} shares of each" if self.shares else f"{count} stage{'s' * (count != 1)}"
        lines = [f"{self.model.layers} layers of {self.model.path} in {parts}"]
        lines += [
            f"  stage {each.stage}  {each.node:<{width}}  layers {each.first:>3} to {each.last:>3}  "
            f"{each.nbytes / 2**20:>8,.1f} MiB  {_time(each.seconds)}{each.why}"
            for each in self.stages
        ]
        if self.tokens_per_s is not None and self.most_tokens_per_s is not None:
            how = "measured" if self.measured else "foretold"
            before = "" if self.foretold is None else f" ({self.foretold:.3g} were foretold)"
            lines.append(
                f"  {how}: {self.tokens_per_s:.3g} tokens a second for one answer{before}, "
                f"{self.most_tokens_per_s:.3g} for many{' one by one' * bool(self.measured)}"
            )
        lines += [f"  {how}: stage{'s' * (len(which) > 1)} {', '.join(which)}" for how, which in self._ways().items()]
        if self.apart is not None:
            lines.append(
                f"  answers go through {f'one at a time: {self.apart}' if self.apart else 'several at a time'}"
            )
        if self.draft is not None:
            lines.append(f"  {self.draft}")
        return "\n".join(lines)

    def _ways(self) -> dict[str, list[str]]:
        ways: dict[str, list[str]] = {}
        for stage in self.stages:
            if stage.how:
                ways.setdefault(stage.how, []).append(str(stage.stage))
        return ways


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
            _bundled(model.layer_parameters, model.together),
            [each.speed for each in devices],
            last_cost=head,
            nbytes=_bundled(model.layer_nbytes, model.together),
            first_nbytes=model.embedding_nbytes,
            last_nbytes=last_nbytes,
            capacities=[_room(each) for each in devices] if limited else None,
        )
    except ValueError as error:
        raise ModelError(f"{model.path} cannot be planned: {error}") from error
    if model.together is not None:  # the last piece is all of these
        *others, final = ranges
        ranges = (*others, range(final.start, model.layers))
    total = sum(model.layer_parameters) + head
    fastest = max(each.speed for each in devices)
    stages = []
    for number, (device, layers) in enumerate(zip(devices, ranges, strict=True)):
        is_last = number == len(devices) - 1
        work = sum(model.layer_parameters[layer] for layer in layers) + head * is_last
        nbytes = sum(model.layer_nbytes[layer] for layer in layers)
        nbytes += model.embedding_nbytes * (number == 0) + last_nbytes * is_last
        share = device.speed / fastest
        why = _why(len(layers), work / total, share, first=number == 0, last=is_last)
        seconds = work / device.speed if device.absolute else None
        stages.append(StagePlan(number, device.name, layers[0], layers[-1], nbytes, why, work, seconds, device.memory))
    return Plan(model, tuple(stages))


def make_tensor_plan(model: ModelInfo, shape: Shape, devices: Sequence[Device]) -> Plan:
    """Give each device a share of every layer, by its speed; see `sharing.Shape.shares`.

    Raises:
        ModelError: more devices than heads of keys and values, or not enough memory.
    """
    shares = shape.shares([each.speed for each in devices])
    head = model.hidden_size * model.vocab_size
    total = sum(model.layer_parameters) + head
    stages = []
    for share, device in zip(shares, devices, strict=True):
        part = shape.part(share)
        words = len(share.words) / shape.vocabulary
        work = int(sum(model.layer_parameters) * part + head * words)
        own = model.embedding_nbytes if model.tied else model.head_nbytes
        nbytes = int(sum(model.layer_nbytes) * part + model.embedding_nbytes + own * words)
        if device.memory is not None and nbytes > device.memory:
            raise ModelError(
                f"node {device.name} has {device.memory / 2**20:,.0f} MiB free and its share of {model.path} needs "
                f"{nbytes / 2**20:,.0f} MiB: {(nbytes - device.memory) / 2**20:,.0f} MiB are missing. Add a device, "
                "free memory or use a smaller model"
            )
        why = (
            f"{len(share.heads)} of {shape.kv_heads} heads of keys and values, {len(share.inner)} of {shape.inner} in "
            f"the MLP, {len(share.words)} words: {work / total:.0%} of the work"
        )
        seconds = work / device.speed if device.absolute else None
        stages.append(
            StagePlan(share.rank, device.name, 0, model.layers - 1, nbytes, why, work, seconds, device.memory)
        )
    return Plan(model, tuple(stages), shares=shares)


def _bundled(values: Sequence[int], together: int | None) -> Sequence[int]:
    """The layers that must stay together counted as one."""
    return values if together is None else [*values[:together], sum(values[together:])]


def _room(device: Device) -> float:
    return float("inf") if device.memory is None else device.memory


def _why(layers: int, share: float, speed: float, *, first: bool, last: bool) -> str:
    parts = [f"{layers} layer{'s' * (layers != 1)}", *["the embedding"] * first, *["the head"] * last]
    return f"{' + '.join(parts)}: {share:.0%} of the work at speed {speed:.2g}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:>7.3g} ms  "
