"""Scheduling strategies, under the name that Ray's users import them by."""

from __future__ import annotations

from typing import Any

from actors.strategy import NodeAffinitySchedulingStrategy

__all__ = ["NodeAffinitySchedulingStrategy", "NodeLabelSchedulingStrategy", "PlacementGroupSchedulingStrategy"]


class PlacementGroupSchedulingStrategy:
    """Refused: there are no placement groups here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(
            "there are no placement groups: make actors that belong together by Class.group(size), or place them by "
            "scheduling_strategy='SPREAD' or 'PACK'"
        )


class NodeLabelSchedulingStrategy:
    """Refused: labels are an option of their own here."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError(
            "labels are asked for by the option label_selector={'name': 'value'} of an actor or a task, whose values "
            "may be '!value', 'in(a,b)' and '!in(a,b)' too"
        )
