"""Caches that go from stages to stages: to those that take their places, or to another model of the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from actors.api import get
from actors.exceptions import ActorDiedError, ActorsError, TaskError
from actors.ids import new_id

from .prefixes import Kept
from .remains import agreed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.handle import ActorHandle

_MOVING: Final = 20  # seconds; when caches take longer to move, answers are computed again


def take_over(
    sources: Sequence[ActorHandle], stages: Sequence[ActorHandle], key: str, tokens: tuple[int, ...]
) -> str | None:
    """Copy the caches of a sequence that is kept, and hold them.

    Returns:
        Its key in `stages`; None where there are no caches any more.
    """
    new = new_id("sequence")
    try:
        found = get([stage.adopt.remote(new, sources, key, tokens) for stage in stages])
    except TaskError as error:
        if isinstance(error.cause, ActorDiedError):  # of the source: it is computed again here
            return None
        raise
    held: str | None = get(stages[-1].keep.remote(new, tokens)) if all(found) else None
    return held


def move(sources: Sequence[ActorHandle], stages: Sequence[ActorHandle]) -> None:
    """Have the caches of all sequences, after all answers have been told to go on there."""
    kept: list[Kept] = get(sources[-1].suspend.remote(), timeout=_MOVING)
    whole = []
    for each in kept:
        found = [stage.adopt.remote(each.key, sources, each.key, each.tokens) for stage in stages]
        whole += [each] * all(get(found, timeout=_MOVING))
    get(stages[-1].inherit.remote(whole), timeout=_MOVING)


def recover(stages: Sequence[ActorHandle]) -> bool:
    """Have what is left of the caches of stages of which some have died, as far as it is whole.

    Returns:
        Whether there is any.
    """
    try:
        found = get([stage.legacy.remote() for stage in stages], timeout=_MOVING)
        places = {place for _, own in found for place in own}
        whole = []
        for key, tokens in agreed((each for remains, _ in found for each in remains), places).items():
            new = Kept(new_id("sequence"), tokens, 0)
            taken = [stage.adopt.remote(new.key, stages, key, tokens, late=True) for stage in stages]
            whole += [new] * all(get(taken, timeout=_MOVING))
        get(stages[-1].inherit.remote(whole), timeout=_MOVING)
        get([stage.let_go.remote() for stage in stages], timeout=_MOVING)
    except (ActorsError, TimeoutError):  # another one has died: whoever reads an answer finds that out
        return False
    return bool(whole)
