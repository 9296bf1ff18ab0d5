"""Mappings: files of shared memory that a process has mapped to read, kept for a while after their last use.

Their writer writes them again. A process that maps such a file anew has to be given each of its pages again, which
takes longer than to read them; where it still has the mapping, nothing has to be done.

A mapping that nobody uses says nothing of what is in the file, and keeps no writer from it: that is what names are for,
see `actors.arena`.
"""

from __future__ import annotations

import mmap
import sys
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from actors.spares import IDLE_SECONDS, MOST_FILES, most_bytes

if TYPE_CHECKING:
    import os
    from pathlib import Path

KEEPS_DESCRIPTOR = sys.version_info < (3, 13)
"""Whether each mapping keeps a file open."""

_UNTRACKED: dict[str, Any] = {} if KEEPS_DESCRIPTOR else {"trackfd": False}


class Mapping(mmap.mmap):
    """A file, mapped to be read.

    Attributes:
        number: of the file. No other file can have it as long as this one is mapped.
    """

    number: int


class Mappings:
    """What a process has mapped; what it does not use is bounded, and given back when it lies idle.

    Nothing here takes a lock: `keep` is called by finalizers, on any thread and between any two instructions.

    Args:
        folder: of the arena. Mappings are kept only where it lies in memory.
    """

    def __init__(self, folder: Path) -> None:
        self._most = most_bytes(folder)
        self._known: WeakValueDictionary[int, Mapping] = WeakValueDictionary()
        self._kept: dict[int, tuple[float, Mapping]] = {}  # by number; with when it was last used

    def map(self, descriptor: int, file: os.stat_result) -> Mapping:
        """Returns the mapping of an open file, made now if there is none.

        Raises:
            OSError: it cannot be mapped.
        """
        known = self._known.get(file.st_ino)
        if known is not None and len(known) == file.st_size:
            return known
        made = Mapping(descriptor, file.st_size, access=mmap.ACCESS_READ, **_UNTRACKED)
        made.number = file.st_ino
        self._known[file.st_ino] = made
        return made

    def __len__(self) -> int:
        """How many there are."""
        return len(self._known)

    def keep(self, mapping: Mapping) -> None:
        """Keeps a mapping that was used until now; where it is too much, what was used longest ago goes."""
        self._kept.pop(mapping.number, None)
        if len(mapping) > self._most:
            return
        self._kept[mapping.number] = (time.monotonic(), mapping)
        held = list(self._kept.values())
        while len(held) > MOST_FILES or sum(len(other) for _, other in held) > self._most:
            self._kept.pop(held.pop(0)[1].number, None)

    def trim(self, idle: float = IDLE_SECONDS) -> None:
        """Gives up what was not used for so many seconds."""
        before = time.monotonic() - idle
        for since, mapping in list(self._kept.values()):
            if since <= before:
                self._kept.pop(mapping.number, None)
