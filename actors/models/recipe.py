"""What it takes to make the stages of a model: which model, over which nodes, and how."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from actors.exceptions import ModelError

from .plan import DraftPlan, make_plan, make_tensor_plan
from .survey import choose, devices

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .checkpoint import ModelInfo
    from .plan import Plan
    from .sharing import Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model to be cut over nodes.

    Attributes:
        info: the model.
        shape: of its layers, where they are cut lengthwise; None where the model is cut by its layers.
        nodes: names of the nodes to use; None takes all that are alive.
        draft: the model that guesses for it; None for none.
        how: arguments of `Deployment.start`.
    """

    info: ModelInfo
    shape: Shape | None
    nodes: Sequence[str] | None
    draft: ModelInfo | None
    how: Mapping[str, Any]

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
        offered = devices(found[:most], measure=measure)
        if self.draft is not None:
            offered[0] = offered[0].without(self.draft.nbytes)
        shape = self.shape
        plan = make_plan(self.info, offered) if shape is None else make_tensor_plan(self.info, shape, offered)
        if self.draft is None:
            return plan
        draft = DraftPlan(self.draft.path, offered[0].name, self.draft.layers, self.draft.nbytes)
        return replace(plan, draft=draft)
