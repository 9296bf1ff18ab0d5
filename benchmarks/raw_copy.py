"""The floor of large arrays: one copy into shared memory that is used again, and nothing else."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import numpy as np
from samples import Count, check, timed
from target import ARRAY_BYTES, Block

if TYPE_CHECKING:
    from pathlib import Path


class Copy:
    """See `side.Side`; it calls nothing, and so has no other workloads."""

    version = np.__version__

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        self._block = Block()
        self._memory = np.frombuffer(mmap.mmap(-1, ARRAY_BYTES), np.uint32)  # shared, of pages of the usual size
        self._memory[:] = 0

    def argument(self, count: Count) -> list[float]:
        """Copies the array."""

        def copy(stamp: int) -> None:
            np.copyto(self._memory, self._block.stamped(stamp))
            check(int(self._memory[0]), stamp)

        return timed(count, copy)

    result = put = argument

    def stop(self) -> None:
        """See `side.Side`."""
