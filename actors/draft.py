"""Drafts: files of shared memory that are written bit by bit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from actors.courtesy import courteous
from actors.emptying import unlink

if TYPE_CHECKING:
    from actors.messages import Buffer
    from actors.spares import Spare, Spares

PIECE_BYTES = 1 << 30  # read at once: macOS refuses 2 GiB
WRITTEN_BYTES = 1 << 20  # at once


def write(descriptor: int, at: int, data: Buffer) -> None:
    """Writes all of these bytes to their place in a file.

    Raises:
        OSError: they do not fit.
    """
    view, done = memoryview(data), 0
    if len(view) <= WRITTEN_BYTES:
        while done < len(view):
            done += os.pwrite(descriptor, view[done:], at + done)
        return
    with courteous() as courtesy:
        while done < len(view):
            done += os.pwrite(descriptor, view[done : done + WRITTEN_BYTES], at + done)
            courtesy.give_way()


class Draft:
    """A file that is written bit by bit, while others have it already.

    Attributes:
        name: of the file.
    """

    def __init__(self, file: Spare, descriptor: int, spares: Spares) -> None:
        self.name = file.path.name
        self._file = file
        self._descriptor = descriptor
        self._spares = spares

    def write(self, at: int, data: Buffer) -> None:
        """Writes bytes to their place.

        Raises:
            OSError: the memory is full.
        """
        if self._file.mapping is None:
            write(self._descriptor, at, data)
        else:  # every page has its memory
            self._file.mapping[at : at + len(data)] = data

    def close(self, *, again: bool = True) -> None:
        """Gives the file up.

        Args:
            again: whether it may be written again, which needs that whoever was told its name has one of its own.
        """
        os.close(self._descriptor)
        if again:
            self._spares.add(self._file)
        else:
            unlink(self._file.path)
