"""Shortages: what is said where the system gives no more processes or threads, and what helps."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 0.5
"""After which a thread that could not be begun, and that something waits for, is tried again."""


class NoThreadError(ActorsError, OSError):
    """This process can begin no thread; those there are go on."""


def begin(run: Callable[[], object], name: str) -> threading.Thread:
    """Begins a daemon thread.

    Raises:
        NoThreadError: the system has no more.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise no_thread(error) from error
    return thread


def no_thread(error: RuntimeError) -> NoThreadError:
    """Returns what is to be raised where Python can begin no thread."""
    return NoThreadError(
        f"this process can begin no further thread ({error}). It goes on with what it has; end other processes of this "
        "user, or raise what bounds them: `ulimit -u` and a container's limit of processes, which count threads too, "
        "or `ulimit -v`, of which each takes its stack"
    )


async def aside(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Does what is short on a thread, so that it does not hold up the loop; where there is none, here all the same.

    Without a thread it may be done once more later: it is to be such that this changes nothing.
    """
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except RuntimeError as error:
        if "thread" not in str(error):
            raise
        return work(*args, **kwargs)


def no_process(node: str, error: OSError) -> str:
    """Says why a node cannot start a process, and what helps."""
    helps = {
        errno.EMFILE: "end other actors there, or start it with a higher `ulimit -n`",
        errno.ENFILE: "end other programs there",
        errno.EAGAIN: "end other processes there, or start it with a higher `ulimit -u`",
        errno.ENOMEM: "end other actors there",
    }
    said = f"node {node} cannot start a process: {error.strerror or error}"
    more = helps.get(error.errno or 0)
    return f"{said}. It goes on with what it has; {more}" if more else said
