"""OpenAI's HTTP API over one model.

Names are loaded when they are touched: a stage that follows a grammar needs no server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .server import Server as Server
    from .server import listen as listen

__all__ = ["Server", "listen"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".server", __name__), name)
