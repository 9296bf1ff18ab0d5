"""Actors' classes and handles, under the names that Ray's users import them by."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.actorclass import ActorClass
    from actors.api import exit_actor
    from actors.handle import ActorHandle
    from actors.handle import RemoteMethod as ActorMethod

_HOMES = {
    "ActorClass": ("actors.actorclass", "ActorClass"),
    "ActorHandle": ("actors.handle", "ActorHandle"),
    "ActorMethod": ("actors.handle", "RemoteMethod"),
    "exit_actor": ("actors.api", "exit_actor"),
}

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'actors.actor' has no attribute {name!r}")
    module, own_name = _HOMES[name]
    value = globals()[name] = getattr(import_module(module), own_name)
    return value
