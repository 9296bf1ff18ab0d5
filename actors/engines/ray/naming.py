"""Names on Ray, which an actor keeps for a while after its last handle is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions as rays

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.options import ActorOptions

PATIENCE = 10.0  # seconds in which an actor that ends has given its name back
LOOK_SECONDS = 1.0  # an actor that answers nothing for so long is busy, not dead
PAUSE_SECONDS = 0.02


def named_once(make: Callable[[], Any], options: ActorOptions) -> Any:
    """Returns what ``make`` does, once no actor that has ended has the name any more.

    Raises:
        ValueError: Ray's, where one that lives has it.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        ended = _has_ended(options.name, options.namespace)
        try:
            if not ended:
                return make()
        except ValueError:
            if not _has_ended(options.name, options.namespace) or time.monotonic() > deadline:
                raise
        else:
            if time.monotonic() > deadline:
                return make()
        time.sleep(PAUSE_SECONDS)


def answered(method: Any, seconds: float) -> Any:
    """Returns what a method of an actor does that may just be made anew.

    Raises:
        RayError: it does not answer within so many seconds, or has ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ray.get(method.remote(), timeout=max(0.0, deadline - time.monotonic()))
        except rays.ActorUnavailableError:
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE_SECONDS)


def _has_ended(name: str | None, namespace: str | None) -> bool:
    """Whether an actor that has ended, or is about to, has the name still."""
    try:
        found = ray.get_actor(name, namespace=namespace)
        ray.get(found._actors_alive.remote(), timeout=LOOK_SECONDS)  # noqa: SLF001 - ours
    except rays.ActorDiedError:
        return True
    except (ValueError, AttributeError, rays.RayError):  # none there, one that Ray's users made, or one that is busy
        return False
    return False
