"""Scheduling strategies: where an actor or a task may go, beside what it needs."""

from __future__ import annotations

from dataclasses import dataclass

from actors.frozen import travelling

NAMED = ("DEFAULT", "SPREAD", "PACK")


@travelling
@dataclass(frozen=True, slots=True)
class NodeAffinitySchedulingStrategy:
    """Wants one node.

    Attributes:
        node_id: the node's id, or its name.
        soft: take another node where this one is gone or can never give what is needed.
    """

    node_id: str
    soft: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.node_id, str) or not self.node_id:
            raise TypeError(f"node_id must be a node's id or name, not {self.node_id!r}")
        if not isinstance(self.soft, bool):
            raise TypeError(f"soft must be True or False, not {self.soft!r}")


Strategy = str | NodeAffinitySchedulingStrategy


def check_strategy(strategy: object) -> None:
    """Raises ValueError for what is no strategy."""
    if not isinstance(strategy, NodeAffinitySchedulingStrategy) and strategy not in NAMED:
        raise ValueError(
            f"scheduling_strategy must be one of {', '.join(NAMED)}, or a NodeAffinitySchedulingStrategy, "
            f"not {strategy!r}"
        )
