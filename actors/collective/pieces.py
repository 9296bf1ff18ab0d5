"""Flat arrays that count as one, end to end: what a structure's arrays are moved as, without being copied together."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from actors import pages

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    Part: TypeAlias = "npt.NDArray[Any] | Pieces"


SMALL_BYTES = 1 << 14


class Pieces:
    """Some flat arrays of one dtype, or what is between two places of them.

    Args:
        flats: the arrays; at least one.
        stops: where each ends, counted in elements from the first one's begin.
        start: where it begins.
        stop: where it ends; with the last array by default.

    Attributes:
        dtype: of all.
        size: elements of all together.
        nbytes: bytes of all together.
    """

    __slots__ = ("_flats", "_start", "_stop", "_stops", "dtype", "nbytes", "size")

    def __init__(
        self, flats: Sequence[npt.NDArray[Any]], stops: Sequence[int], start: int = 0, stop: int | None = None
    ) -> None:
        self._flats, self._stops = flats, stops
        self._start, self._stop = start, stops[-1] if stop is None else stop
        self.dtype = flats[0].dtype
        self.size = self._stop - start
        self.nbytes = self.size * self.dtype.itemsize

    def cut(self, count: int) -> list[Pieces]:
        """Cuts it as `flow.cut` does an array."""
        base, longer = divmod(self.size, count)
        starts = [self._start + index * base + min(index, longer) for index in range(count + 1)]
        return [Pieces(self._flats, self._stops, *ends) for ends in pairwise(starts)]

    def arrays(self) -> list[npt.NDArray[Any]]:
        """Returns the arrays, the first and the last as far as they belong to it."""
        flats, stops = self._flats, self._stops
        if not self.size:
            return [flats[0][:0]]
        first, last = bisect_right(stops, self._start), bisect_right(stops, self._stop - 1)
        found = list(flats[first : last + 1])
        found[-1] = found[-1][: self._stop - (stops[last] - flats[last].size)]
        found[0] = found[0][self._start - (stops[first] - flats[first].size) :]
        return found

    @property
    def small(self) -> bool:
        """Whether the arrays are so small that it is quicker to copy them together than to work on each."""
        return self._stops[-1] * self.dtype.itemsize < SMALL_BYTES * len(self._flats)

    def copy_into(self, out: npt.NDArray[Any]) -> None:
        """Writes all elements into a flat array of the same size and dtype."""
        np.concatenate(self.arrays(), out=out)

    def joined(self) -> npt.NDArray[Any]:
        """Returns all elements as one array, which may be the only one there is."""
        arrays = self.arrays()
        if len(arrays) == 1:
            return arrays[0]
        out = pages.empty(self.size, self.dtype)
        np.concatenate(arrays, out=out)
        return out


def whole(part: Part) -> npt.NDArray[Any]:
    """Returns the elements as one array; without a copy where they are one."""
    return part.joined() if isinstance(part, Pieces) else part
