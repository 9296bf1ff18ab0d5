"""Arguments that name a rank."""

from __future__ import annotations

from operator import index


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
