"""Spares: files of shared memory that this process wrote and nobody reads any more, to be written again.

The first write into new shared memory costs several times a copy, since the system has to find and clear each page.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from actors.emptying import discard, is_free, unlink

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_MODE = 0o400  # of one that must not: a forked child may read it, and has no name for it
IDLE_SECONDS = 8.0

MOST_FILES = 8

_MOST_BYTES = 256 << 20
_SHARE = 8  # of all memory that there is for sharing, at most one part in so many
_MEMORY = Path("/dev/shm")  # noqa: S108 - only compared


@dataclass(frozen=True, slots=True, eq=False)
class Spare:
    """A file, every page of which has its memory: writing through a mapping cannot fail for want of room.

    Attributes:
        path: the owner's name for it.
        size: in bytes.
        mapping: to write through.
        since: when it fell free, by the monotonic clock.
    """

    path: Path
    size: int
    mapping: mmap.mmap | None
    since: float = 0.0


class Spares:
    """The files that a process may write again; bounded, and given back when they lie idle.

    Nothing here takes a lock: `add` is called by finalizers, on any thread and between any two instructions.

    Args:
        folder: of the arena. Files are kept only where it lies in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._pid = os.getpid()
        self._most = most_bytes(folder)
        self._files: list[Spare] = []
        weakref.finalize(self, _drop, self._files, self._pid)

    def add(self, spare: Spare) -> None:
        """Keeps a file that this process maps no more for reading, or removes it where there are enough."""
        if os.getpid() != self._pid:  # in a forked child it is its parent's
            return
        held = tuple(self._files)
        if len(held) >= MOST_FILES or spare.size + sum(other.size for other in held) > self._most:
            discard(spare.path, spare.mapping)
        else:
            self._files.append(replace(spare, since=time.monotonic()))

    @property
    def in_memory(self) -> bool:
        """Whether files are kept at all."""
        return self._most > 0

    def take(self, size: int, new_path: Callable[[], Path]) -> Spare | None:
        """Returns a file of at least this size, under a new name, that no process reads; None without one.

        Args:
            size: in bytes, of what is to be written.
            new_path: makes names.
        """
        for spare in reversed(tuple(self._files)):
            if size <= spare.size <= 2 * size and is_free(spare.path) and self._claim(spare):
                renamed = _renamed(spare, new_path())
                if renamed is not None:
                    return renamed
        return None

    def trim(self, idle: float = IDLE_SECONDS) -> None:
        """Gives back what nobody has needed for so many seconds."""
        if os.getpid() != self._pid:
            return
        before = time.monotonic() - idle
        for spare in tuple(self._files):
            if spare.since <= before and self._claim(spare):
                discard(spare.path, spare.mapping)

    def _claim(self, spare: Spare) -> bool:
        try:
            self._files.remove(spare)
        except ValueError:  # another thread has it
            return False
        return True


def _renamed(spare: Spare, path: Path) -> Spare | None:
    try:
        spare.path.rename(path)
    except OSError:  # the folder was removed; who has mapped the file reads on
        return None
    # Readers make a name of their own from the one they were told, which is gone now. So if there is none beside this
    # one, there is no reader, and there will be none.
    if not is_free(path):
        unlink(path)
        return None
    try:
        mapping = _mapped(path, spare.size) if spare.mapping is None else spare.mapping
    except OSError:
        unlink(path)
        return None
    return Spare(path, spare.size, mapping)


def _mapped(path: Path, size: int) -> mmap.mmap:
    if sys.platform != "linux":
        raise OSError("only Linux has files in memory")
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # All pages at once: a fault for each would cost as much as the copy.
        return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    finally:
        os.close(descriptor)


def most_bytes(folder: Path) -> int:
    """Returns how many bytes may be kept for another use.

    None outside memory, where writing into a mapping can fail with a signal.
    """
    try:
        if sys.platform != "linux" or folder.stat().st_dev != _MEMORY.stat().st_dev:
            return 0
        room = os.statvfs(folder)
    except OSError:
        return 0
    return min(_MOST_BYTES, room.f_blocks * room.f_frsize // _SHARE)


def _drop(files: list[Spare], pid: int) -> None:
    if os.getpid() == pid:
        while files:
            spare = files.pop()
            discard(spare.path, spare.mapping)
