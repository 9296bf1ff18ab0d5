"""Layers taken from a device that has become slower than it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .plan import Device, make_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .plan import Plan

_WORTH: Final = 0.75  # of the slowest stage's time; for less than that nobody wants to wait for layers to be loaded
_FLOOR: Final = 5e-3  # seconds of a token in a stage; below, it is not the arithmetic that takes time


def level(plan: Plan, seconds: Sequence[float]) -> Plan | None:
    """A better plan for the same devices, by what a token takes in each stage now; None where it is good as it is.

    Args:
        plan: where the layers are.
        seconds: that a token takes in each stage; finite and above 0.
    """
    if max(seconds) < _FLOOR:
        return None
    devices = [
        Device(stage.node, stage.work / took, stage.memory, absolute=True)
        for stage, took in zip(plan.stages, seconds, strict=True)
    ]
    better = make_plan(plan.model, devices)
    slowest = max(stage.work / device.speed for stage, device in zip(better.stages, devices, strict=True))
    return better if slowest < _WORTH * max(seconds) else None
