"""What it takes to make the stages of a model: which model, over which nodes, and how."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.exceptions import ModelError

from .holders import host
from .means import Means
from .plan import DraftPlan, make_plan, make_tensor_plan
from .sharing import FAMILY, Shape
from .survey import Survey, choose

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .checkpoint import Checkpoint, ModelInfo
    from .plan import Device, Plan, StagePlan


def shape_of(
    strategy: str, checkpoint: Checkpoint, info: ModelInfo, nodes: Sequence[str] | None, *, most: int
) -> Shape | None:
    """How large the pieces are that layers are cut into lengthwise; None where the model is cut by its layers.

    Args:
        strategy: `"auto"` cuts lengthwise where that is sure to be faster: one answer at a time, nodes on one host.
        checkpoint: the model.
        info: the same.
        nodes: names of the nodes to use; None for all.
        most: how many answers may be under way.

    Raises:
        ModelError: `"tensor"`, and the model is of no architecture that can be cut so.
    """
    if strategy == "pipeline" or (strategy == "auto" and most > 1):
        return None
    if strategy == "auto" and (checkpoint.config.get("model_type") not in FAMILY or not _near(nodes)):
        return None
    return Shape.of(checkpoint.config, info.layers, info.vocab_size)


def _near(nodes: Sequence[str] | None) -> bool:
    found = choose(nodes)
    return len(found) > 1 and len(set(map(host, found))) == 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model to be cut over nodes.

    Attributes:
        info: the model.
        shape: of its layers, where they are cut lengthwise; None where the model is cut by its layers.
        nodes: names of the nodes to use; None takes all that are alive.
        draft: the model that guesses for it; None for none.
        how: arguments of `Deployment.start`.
        survey: what the nodes said that they can do.
    """

    info: ModelInfo
    shape: Shape | None
    nodes: Sequence[str] | None
    draft: ModelInfo | None
    how: Mapping[str, Any]
    survey: Survey = field(default_factory=Survey, compare=False)

    def plan(self, gone: Collection[str] = (), *, lost: bool = False, measure: bool = False) -> Plan:
        """Which layers go where.

        Args:
            gone: names of nodes that are not counted on any more.
            lost: not all of the nodes need be there.
            measure: ask each node how fast it is, so that the plan foretells a speed.

        Raises:
            ModelError: the model does not fit, or there is no node.
            PlacementError: a node is not known.
        """
        found = [node for node in choose(self.nodes, lost=lost) if node.name not in gone]
        if not found:
            raise ModelError("none of the model's nodes is there any more")
        most = self.info.pieces if self.shape is None else self.shape.kv_heads
        arithmetic = str(self.how["arithmetic"])
        offered = self.survey.devices(found[:most], measure=measure, wide=Means(arithmetic).wide)
        if self.draft is not None:
            offered[0] = offered[0].without(self.draft.nbytes)
        shape = self.shape
        plan = make_plan(self.info, offered) if shape is None else make_tensor_plan(self.info, shape, offered)
        plan = replace(plan, stages=tuple(map(partial(self._foretold, arithmetic), plan.stages, offered)))
        if self.draft is None:
            return plan
        draft = DraftPlan(self.draft.path, offered[0].name, self.draft.layers, self.draft.nbytes)
        return replace(plan, draft=draft)

    def _foretold(self, arithmetic: str, stage: StagePlan, device: Device) -> StagePlan:
        """With the arithmetic that a stage will use, and what a token takes in it, where its device was asked."""
        known = device.abilities
        if known is None:
            return stage
        means, ends = Means(arithmetic, stage.memory), 0
        if self.shape is None:
            last = stage.last == self.info.layers - 1
            ends = self.info.hidden_size * self.info.vocab_size * (stage.first == 0 and not (last and self.info.tied))
        wide = means.wide and known.wide_speed > 0 and 4 * (stage.work + ends) <= means.room
        how = means.words(cpu=known.cpu, linux=known.linux, blas=known.wide_speed > 0, wide=wide)
        seconds = stage.work / known.pace(wide=wide) if device.absolute else None
        return replace(stage, how=how, seconds=seconds)
