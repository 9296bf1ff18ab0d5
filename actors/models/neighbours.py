"""Stages that are on one host, and what they share of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from actors.api import nodes

from .holders import host
from .means import Means

if TYPE_CHECKING:
    from .plan import Plan


def means_of(plan: Plan, arithmetic: str) -> list[Means]:
    """What each stage may make use of: its share of the cores of its host; where ranks wait for each other, which."""
    known = {node.name: node for node in nodes()}
    found = [known.get(stage.node) for stage in plan.stages]
    crowds = Counter(host(node) for node in found if node is not None)
    seen: Counter[str] = Counter()
    means = []
    for stage, node in zip(plan.stages, found, strict=True):
        if node is None:
            means.append(Means(arithmetic, stage.memory))
            continue
        home = host(node)
        threads = max(1, int(str(node.device["cpus"])) // crowds[home])
        place = (seen[home], crowds[home]) if plan.shares else None
        means.append(Means(arithmetic, stage.memory, threads, place))
        seen[home] += 1
    return means


def crowded(plan: Plan) -> bool:
    """Whether two stages are on one host."""
    known = {node.name: host(node) for node in nodes()}
    return len({known.get(stage.node) for stage in plan.stages}) < len(plan.stages)
