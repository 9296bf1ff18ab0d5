"""Ends on Ray, which take a while: until then an actor keeps its name, and answers."""

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


def life(actor: Any) -> str | None:
    """Returns what is another for each process that an actor is made anew in; None where it does not say it soon."""
    try:
        found: str = ray.get(actor._actors_alive.remote(), timeout=LOOK_SECONDS)  # noqa: SLF001 - ours
    except rays.RayError:
        return None
    return found


def wait_for_end(actor: Any, before: str | None) -> None:
    """Waits, for a while, until an actor that has been killed answers no more, or not as it did ``before``."""
    deadline = time.monotonic() + PATIENCE
    while (now := life(actor)) is not None and time.monotonic() < deadline:
        if before is not None and now != before:
            return
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
