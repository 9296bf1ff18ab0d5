"""Language models cut by layers over several devices.

Names are loaded when they are touched, so that importing this package costs nothing and needs no MLX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint import ModelInfo as ModelInfo
    from .checkpoint import describe as describe
    from .conversation import Conversation as Conversation
    from .generation import Generation as Generation
    from .generation import Token as Token
    from .partitioning import partition as partition
    from .pipeline import Pipeline as Pipeline
    from .pipeline import Stage as Stage
    from .plan import Device as Device
    from .plan import Plan as Plan
    from .plan import StagePlan as StagePlan
    from .plan import make_plan as make_plan
    from .sharded import ShardedModel as ShardedModel
    from .smol import demo_model as demo_model
    from .stage import StageModel as StageModel
    from .tokenizer import Tokenizer as Tokenizer
    from .tokenizer import load_tokenizer as load_tokenizer

_HOMES = {
    "ModelInfo": "checkpoint",
    "describe": "checkpoint",
    "Conversation": "conversation",
    "Generation": "generation",
    "Token": "generation",
    "partition": "partitioning",
    "Device": "plan",
    "Plan": "plan",
    "StagePlan": "plan",
    "make_plan": "plan",
    "ShardedModel": "sharded",
    "Pipeline": "pipeline",
    "Stage": "pipeline",
    "demo_model": "smol",
    "StageModel": "stage",
    "Tokenizer": "tokenizer",
    "load_tokenizer": "tokenizer",
}

__all__ = [
    "Conversation",
    "Device",
    "Generation",
    "ModelInfo",
    "Pipeline",
    "Plan",
    "ShardedModel",
    "Stage",
    "StageModel",
    "StagePlan",
    "Token",
    "Tokenizer",
    "demo_model",
    "describe",
    "load_tokenizer",
    "make_plan",
    "partition",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return __all__
