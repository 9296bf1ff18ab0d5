"""Common methods: what every actor can be asked, by Ray's names, beside the methods of its own class."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NoReturn

from actors.public import PUBLIC, call_public
from actors.runtime import ActorExit
from actors.spec import MethodSpec

if TYPE_CHECKING:
    from collections.abc import Callable


def _ready(_: object) -> bool:
    """Says that its constructor is over."""
    return True


def _call(actor: object, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Calls a function with the actor's own object before the arguments."""
    return function(actor, *args, **kwargs)


def _terminate(_: object) -> NoReturn:
    """Ends the actor, for good, when its turn has come."""
    raise ActorExit


_ANYTHING = [
    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
]
_FUNCTION = inspect.Parameter("function", inspect.Parameter.POSITIONAL_ONLY)

COMMON: dict[str, tuple[MethodSpec, Callable[..., Any]]] = {
    "__ray_ready__": (MethodSpec("__ray_ready__", inspect.Signature(), False), _ready),
    "__ray_call__": (MethodSpec("__ray_call__", inspect.Signature([_FUNCTION, *_ANYTHING]), False), _call),
    "__ray_terminate__": (MethodSpec("__ray_terminate__", inspect.Signature(), False), _terminate),
    PUBLIC: (MethodSpec(PUBLIC, inspect.Signature(_ANYTHING), False), call_public),
}
"""By name: what a handle must know of it, and what does it with the actor's object."""
