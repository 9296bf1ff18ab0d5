"""Which group the running code belongs to."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

from actors import launched
from actors.exceptions import CollectiveError
from actors.group import ActorGroup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.launched import Launched

    from .group import Group

# An actor in a process of its own is all that runs there, also in threads that its methods start, which would
# not see a context variable. Actors that share a process are told apart by the context of the running call.
_of_process: dict[str, Group] = {}  # the first is the one that is meant where none is named
_meeting = threading.Lock()
_of_call: ContextVar[Group | None] = ContextVar("actors.collective.group", default=None)


def add_group(group: Group) -> None:
    """Makes all of this process belong to ``group`` too."""
    _of_process[group.name] = group


def groups() -> list[str]:
    """Returns the names of the groups that this process is in."""
    return list(_of_process)


def remove_group(name: str) -> None:
    """Takes this process out of a group, whose calls fail from then on; of no effect where it is in no such group."""
    group = _of_process.pop(name, None)
    if group is not None:
        group.close()


@contextmanager
def entered(group: Group) -> Iterator[None]:
    """Makes ``group`` the current one inside the block, in this thread or task alone."""
    token = _of_call.set(group)
    try:
        yield
    finally:
        _of_call.reset(token)


def current_group(group: Group | ActorGroup | None = None) -> Group:
    """Returns this process's end of ``group`` if given, else of the group that the running code belongs to.

    Raises:
        CollectiveError: there is none.
        TypeError: ``group`` is no group.
    """
    if group is None:
        found = _of_call.get() or next(iter(_of_process.values()), None) or _of_launch()
        if found is None:
            raise CollectiveError(
                "this code is in no group: call collectives in a method of an actor made with .group(n), as in "
                "Trainer.options().group(3), in a script under `actors launch -n 3 script.py`, or pass group="
            )
        return found
    if not isinstance(group, ActorGroup):
        if not hasattr(group, "allreduce"):
            kind = type(group).__name__
            raise TypeError(f"group must be what create_group, split or get_group returned, not a {kind}")
        return group
    member = _of_process.get(group.id)
    if member is None:
        raise CollectiveError(
            f"this process is no member of {group!r}, or the group was destroyed: make one with "
            "actors.collective.create_group(handles)"
        )
    return member


def _of_launch() -> Group | None:
    """Returns the group of all ranks of the job that this process is a rank of, which it joins now; None without.

    Raises:
        CollectiveError: not all ranks came, or the group was destroyed.
    """
    rank = launched.here()
    if rank is None:
        return None
    with _meeting:
        _meet_once(rank)
    found = next(iter(_of_process.values()), None)
    if found is None:
        raise CollectiveError(
            "the group of all ranks of this job was destroyed, and they meet only once: destroy it last, or not at "
            "all, since it ends with the job"
        )
    return found


@cache
def _meet_once(rank: Launched) -> None:
    from .meeting import meet

    meet(rank)
