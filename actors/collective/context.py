"""Which group the running code belongs to."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from actors.exceptions import CollectiveError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .group import Group

# An actor in a process of its own is all that runs there, also in threads that its methods start, which would
# not see a context variable. Actors that share a process are told apart by the context of the running call.
_of_process: Group | None = None
_of_call: ContextVar[Group | None] = ContextVar("actors.collective.group", default=None)


def set_group(group: Group | None) -> None:
    """Makes ``group`` the one that all of this process belongs to; None for none."""
    global _of_process  # noqa: PLW0603 - there is one process
    _of_process = group


@contextmanager
def entered(group: Group) -> Iterator[None]:
    """Makes ``group`` the current one inside the block, in this thread or task alone."""
    token = _of_call.set(group)
    try:
        yield
    finally:
        _of_call.reset(token)


def current_group(group: Group | None = None) -> Group:
    """Returns ``group`` if given, else the group that the running code belongs to.

    Raises:
        CollectiveError: there is none.
    """
    found = group or _of_call.get() or _of_process
    if found is None:
        raise CollectiveError(
            "this code is in no group: call collectives in a method of an actor made with .group(n), as in "
            "Trainer.options().group(3), or pass group="
        )
    return found
