"""Emptying: a file of shared memory that nobody needs gives its memory back, little by little where that is much.

To give 1 GiB back at once takes the system some 100 ms. Whoever wakes meanwhile on that core waits until the next tick,
up to 4 ms; and the one who lets go of the file may be any thread, such as the I/O loop's.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import stat
from typing import TYPE_CHECKING

from actors.courtesy import courteous

if TYPE_CHECKING:
    from pathlib import Path

MODE = 0o600  # of a file that may be written again, and emptied
LEAST_BYTES = 64 << 20  # of what a thread of its own empties
PIECE_BYTES = 1 << 20  # at once
PATIENCE_SECONDS = 5.0

_under_way: list[_thread.LockType] = []  # each is held for as long as a file is being emptied


def discard(path: Path, *kept: object) -> None:
    """Takes this process's name of a file away, and its memory if nobody else has a name for it.

    On any thread, between any two instructions: it takes no lock.

    Args:
        path: the name.
        kept: what is let go of once the file is empty, such as a mapping, which takes as long to end as it is full.
    """
    last = path.with_name(f"{path.name}x")
    try:
        path.rename(last)
    except OSError:  # the folder was removed
        return
    # Under a name that nobody was told, so none comes to read it now. Emptied as well, since readers may keep mappings
    # of it, and with them its memory.
    size = _free_bytes(last)
    if size and not (size >= LEAST_BYTES and _emptied_aside(last, size, kept)):
        with contextlib.suppress(OSError):
            os.truncate(last, 0)
    unlink(last)


def is_free(path: Path) -> bool:
    """Whether this is the only name of the file, and no forked child may read it."""
    return _free_bytes(path) is not None


def _free_bytes(path: Path) -> int | None:
    """How long the file is; None where somebody else has a name for it, or a forked child may read it."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size if found.st_nlink == 1 and stat.S_IMODE(found.st_mode) == MODE else None


def unlink(path: Path | str) -> None:
    """Takes a name of a file away, if it is there."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def wait() -> None:
    """Returns once the memory is there of what is being emptied now."""
    for done in tuple(_under_way):
        if done.acquire(timeout=PATIENCE_SECONDS):
            done.release()


def _emptied_aside(path: Path, size: int, kept: tuple[object, ...]) -> bool:
    """Has a large file emptied by a thread of its own; returns whether it will be."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # there is no descriptor left
        return False
    done = _thread.allocate_lock()
    done.acquire()
    _under_way.append(done)
    try:
        _thread.start_new_thread(_empty, (descriptor, size, done, kept))
    except RuntimeError:  # none can be started, or not any more
        _under_way.remove(done)
        os.close(descriptor)
        return False
    return True


def _empty(descriptor: int, size: int, done: _thread.LockType, _: tuple[object, ...]) -> None:
    try:
        with courteous() as courtesy:
            for end in range(size - PIECE_BYTES, 0, -PIECE_BYTES):
                os.ftruncate(descriptor, end)
                courtesy.give_way()
        os.ftruncate(descriptor, 0)
    except OSError:
        pass
    finally:
        os.close(descriptor)
        _under_way.remove(done)
        done.release()
