"""Memory for large results, used again once the caller has let go of it.

Fresh pages cost several times what is then done with them: the system clears each. A loop that reduces its gradients,
or fetches results of another device, drops the last one when it has the next.
"""

from __future__ import annotations

import time
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

_kept: deque[tuple[float, npt.NDArray[np.uint8]]] = deque()  # with when it fell free, by the monotonic clock


class _Loan:
    """Memory that somebody's array lies in. The array refers to this, so its end is the array's."""

    def __init__(self, block: npt.NDArray[np.uint8]) -> None:
        self._block = block
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        _kept.append((time.monotonic(), self._block))
        # Whole operations only, since this may run in the midst of any other code.
        with suppress(IndexError):
            while sum(block.nbytes for _, block in tuple(_kept)) > MOST_BYTES:
                _kept.popleft()


def empty(size: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Returns a flat array of ``size`` elements, of any content, as `numpy.empty` does."""
    nbytes = size * dtype.itemsize
    if not LEAST_BYTES <= nbytes <= MOST_BYTES or dtype.hasobject:
        return np.empty(size, dtype)
    return np.asarray(_Loan(_take(nbytes))).view(dtype)


def trim(idle: float) -> None:
    """Gives up what nobody has needed for so many seconds."""
    before = time.monotonic() - idle
    with suppress(IndexError):
        for _ in range(len(_kept)):
            since, block = _kept.pop()
            if since > before:
                _kept.appendleft((since, block))


def _take(nbytes: int) -> npt.NDArray[np.uint8]:
    with suppress(IndexError):
        for _ in range(len(_kept)):
            since, block = _kept.pop()
            if block.nbytes == nbytes:
                return block
            _kept.appendleft((since, block))
    return np.empty(nbytes, np.uint8)
