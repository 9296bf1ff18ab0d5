"""Memory that the ranks of one host share: a window that arrays are moved through, block by block.

Each rank has a file of its own that all others map. It is as large as a few blocks, whatever the arrays: its pages stay
in use from call to call, since fresh ones cost more than the copy, and mostly in the processors' caches. Behind them
lies the rank's part of the board.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .board import BOARD_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

BLOCK_BYTES = 1 << 21
"""Bytes of one rank's array that are moved in one stage."""

_SLOTS = 2  # one is filled while the other is read
_SLACK = 1 << 16  # parts are cut unevenly by an element, and aligned
_ALIGNMENT = 64
_SIDE_BYTES = _SLOTS * (BLOCK_BYTES + _SLACK)
BOARD_START = 3 * _SIDE_BYTES
"""Where in a rank's file its part of the board begins."""

_FILE_BYTES = BOARD_START + BOARD_BYTES


class Window:
    """The shared memory of a group whose ranks are all on this host.

    Args:
        maps: every rank's file, mapped, in rank order.
    """

    def __init__(self, maps: Sequence[mmap.mmap]) -> None:
        self._memory = [np.frombuffer(mapped, np.uint8) for mapped in maps]

    def given(self, rank: int, stage: int, sizes: Sequence[int], dtype: np.dtype[Any]) -> list[npt.NDArray[Any]]:
        """Returns what ``rank`` shows to the others in a stage, as flat arrays of these sizes."""
        return self._lay(rank, (stage % _SLOTS) * (BLOCK_BYTES + _SLACK), sizes, dtype)

    def reduced(self, rank: int, stage: int, size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Returns where ``rank`` shows what it has reduced in a stage."""
        return self._lay(rank, _SIDE_BYTES + (stage % _SLOTS) * (BLOCK_BYTES + _SLACK), [size], dtype)[0]

    def moved(self, rank: int, stage: int, sizes: Sequence[int], dtype: np.dtype[Any]) -> list[npt.NDArray[Any]]:
        """Returns as `given`, of twice the bytes, for a collective that shows nothing reduced beside them."""
        return self._lay(rank, (stage % _SLOTS) * _SIDE_BYTES, sizes, dtype)

    def shown(self, rank: int, call: int, size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Returns where ``rank`` shows a whole array before the others have agreed to the call, as a flat array."""
        return self._lay(rank, 2 * _SIDE_BYTES + (call % _SLOTS) * (BLOCK_BYTES + _SLACK), [size], dtype)[0]

    def shown_several(
        self, rank: int, call: int, arrays: Sequence[tuple[int, np.dtype[Any]]]
    ) -> list[npt.NDArray[Any]]:
        """Returns as `shown`, of several arrays, given their sizes and dtypes."""
        start, views = 2 * _SIDE_BYTES + (call % _SLOTS) * (BLOCK_BYTES + _SLACK), []
        for size, dtype in arrays:
            views += self._lay(rank, start, [size], dtype)
            start += -(-size * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        return views

    def _lay(self, rank: int, start: int, sizes: Sequence[int], dtype: np.dtype[Any]) -> list[npt.NDArray[Any]]:
        views = []
        for size in sizes:
            stop = start + size * dtype.itemsize
            views.append(self._memory[rank][start:stop].view(dtype))
            start = -(-stop // _ALIGNMENT) * _ALIGNMENT
        return views


def make(path: Path) -> mmap.mmap:
    """Makes the file of this rank and maps it. It takes memory only where it is written.

    Raises:
        OSError: there is no room, or the folder is gone.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.ftruncate(descriptor, _FILE_BYTES)
        return mmap.mmap(descriptor, _FILE_BYTES)
    finally:
        os.close(descriptor)


def attach(path: Path) -> mmap.mmap:
    """Maps another rank's file.

    Raises:
        OSError: it is not there, or not of this size.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size != _FILE_BYTES:
            raise OSError(f"{path} is not as large as expected")
        return mmap.mmap(descriptor, _FILE_BYTES)
    finally:
        os.close(descriptor)
