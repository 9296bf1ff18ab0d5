"""Arguments that name a rank."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_rank(rank: object, size: int, name: str) -> int:
    """Returns ``rank`` if a group of ``size`` has it; ``name`` is the argument's.

    Raises:
        TypeError: not an integer.
        ValueError: no rank of the group.
    """
    try:
        number = index(rank)  # type: ignore[arg-type]  # the check is what is wanted
    except TypeError:
        raise TypeError(f"{name} must be a rank, an integer, not {type(rank).__name__}") from None
    if not 0 <= number < size:
        raise ValueError(f"{name}={number} is no rank of this group: its {size} ranks go from 0 to {size - 1}")
    return number


def split_ranks(said: Sequence[tuple[object, Any]], rank: int) -> tuple[list[int], int]:
    """Returns the ranks that go with ``rank``, in their new order, and the number of their group among the new ones.

    Args:
        said: each rank's color and key.
        rank: the one that asks; where its color is None, nobody goes with it.
    """
    color = said[rank][0]
    colors: list[object] = []
    for other, _ in said:
        if other is not None and other not in colors:
            colors.append(other)
    if color is None:
        return [], 0
    ranks = [place for place, (other, _) in enumerate(said) if other == color]
    return sorted(ranks, key=lambda place: (said[place][1], place)), colors.index(color)
