"""Memory for large results, used again once the caller has let go of it.

Fresh pages cost several times what is then done with them: the system clears each. A loop that reduces its gradients,
or fetches results of another device, drops the last one when it has the next.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_BYTES = 1 << 20
"""Arrays of less are left to numpy."""

MOST_BYTES = 1 << 28
"""What is kept in all."""

BYTE = np.dtype(np.uint8)

_kept: deque[npt.NDArray[np.uint8]] = deque()


class _Loan:
    """Memory that somebody's array lies in. The array refers to this, so its end is the array's."""

    def __init__(self, block: npt.NDArray[np.uint8]) -> None:
        self._block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        _kept.append(self._block)
        # Whole operations only, since this may run in the midst of any other code.
        with suppress(IndexError):
            while sum(block.nbytes for block in tuple(_kept)) > MOST_BYTES:
                _kept.popleft()


def empty(size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns a flat array of ``size`` elements, of any content, as `numpy.empty` does."""
    nbytes = size * dtype.itemsize
    if not LEAST_BYTES <= nbytes <= MOST_BYTES or dtype.hasobject:
        return np.empty(size, dtype)
    return np.asarray(_Loan(_take(nbytes))).view(dtype)


def trim() -> None:
    """Gives up what is kept."""
    _kept.clear()


def _take(nbytes: int) -> npt.NDArray[np.uint8]:
    with suppress(IndexError):
        for _ in range(len(_kept)):
            block = _kept.pop()
            if block.nbytes == nbytes:
                return block
            _kept.appendleft(block)
    return np.empty(nbytes, np.uint8)
