"""Who is left of a group: the survivors find each other and agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.exceptions import CollectiveError

if TYPE_CHECKING:
    from .fabric import Fabric


def survivors(fabric: Fabric, group: str, seconds: float) -> list[int]:
    """Returns the ranks that take part, the same on each of them.

    Every rank says that it is here, and hears from all others until half of the time has passed, or until their death
    is known. Then those who heard of each other compare what they have heard.

    Args:
        fabric: carries nothing else.
        group: name of what they are left of.
        seconds: how long to wait for the others in all.

    Raises:
        CollectiveError: the survivors have heard of different ranks, since one came too late or died meanwhile.
    """
    start = fabric.now()
    others = [rank for rank in range(fabric.size) if rank != fabric.rank]
    for other in others:
        _say(fabric, other, "here", None)
    heard = [other for other in others if _hear(fabric, other, "here", start + seconds / 2) is not _NOTHING]
    present = sorted([fabric.rank, *heard])
    for other in heard:
        _say(fabric, other, "present", tuple(present))
    for other in heard:
        said = _hear(fabric, other, "present", start + seconds)
        if said is _NOTHING or list(said) != present:  # type: ignore[call-overload]  # what `survivors` itself sent
            raise CollectiveError(
                f"group {group!r} could not be rebuilt: {fabric.describe(other)} came too late, or has heard of "
                "others than this rank; call rebuild() again on all that are left"
            )
    return present


_NOTHING = object()


def _say(fabric: Fabric, dst: int, tag: str, value: object) -> None:
    try:
        fabric.send(dst, tag, value)
    except CollectiveError:  # it is dead, as will be seen
        return


def _hear(fabric: Fabric, src: int, tag: str, deadline: float) -> object:
    try:
        return fabric.recv(src, tag, deadline)
    except (CollectiveError, TimeoutError):
        return _NOTHING
