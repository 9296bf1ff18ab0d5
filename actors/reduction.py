"""How the values of several ranks become one.

Elements are numpy's: integers wrap around, nan stays nan, complex numbers compare by real part, then by
imaginary part. On booleans, sum and max are "or", product and min are "and", as numpy has it. Values of 16-bit
floats are added up in float32 and rounded once, at the end; the result has the dtype that came in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.arrays import BFLOAT16, carrier, from_tensor, to_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from actors.messages import Buffer

_UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add,
    "product": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "mean": np.add,
}
_INEXACT = frozenset({BFLOAT16} | {np.dtype(code).name for code in np.typecodes["AllFloat"]})
_NUMERIC = _INEXACT | {np.dtype(code).name for code in "?" + np.typecodes["AllInteger"]}

# Of bfloat16's bits; typed, since numpy then writes into its own intermediate results, in half the time.
_HALF, _ONE, _QUIET, _UPPER = np.uint32(0x7FFF), np.uint32(1), np.uint32(0x40), np.uint32(16)

OPS = tuple(_UFUNCS)
_HALVES = frozenset({BFLOAT16, "float16"})  # reduced in float32

_BLOCK_BYTES = 1 << 18


def check_reduction(op: str, dtype: str) -> None:
    """Checks that arrays of ``dtype`` can be reduced by ``op``.

    Raises:
        ValueError: unknown op, or the mean of integers.
        TypeError: no dtype of numbers.
    """
    if op not in OPS:  # a tuple, since what is no string may have no hash
        raise ValueError(f"unknown op {op!r:.100}; known: {', '.join(OPS)}")
    if dtype not in _NUMERIC:
        raise TypeError(f"arrays of dtype {dtype} cannot be reduced; bool, integers, floats and complex can")
    if op == "mean" and dtype not in _INEXACT:
        raise ValueError(f"the mean of {dtype} is not a {dtype}: convert to a floating dtype first, or use op 'sum'")


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction of flat arrays over ranks, either all at once or step by step. Making one checks it.

    The arrays are in the machine's byte order; those of bfloat16, which numpy lacks, are its bits, as uint16.

    Attributes:
        op: one of `OPS`.
        dtype: name of the arrays' dtype.
        ranks: how many values go into one.
    """

    op: str
    dtype: str
    ranks: int

    def __post_init__(self) -> None:
        check_reduction(self.op, self.dtype)

    def start(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns one rank's elements in the precision that is calculated in."""
        if self.dtype == BFLOAT16:
            return _from_bfloat16(value)
        return value.astype(np.float32) if self.dtype == "float16" else value

    def combine(self, partial: npt.NDArray[Any], value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns ``partial`` with one more rank's elements in it, as a new array."""
        # Overflow and nan are results here, as they are for numpy's user, who also may have asked for no warning.
        with np.errstate(all="ignore"):
            combined: npt.NDArray[Any] = _UFUNCS[self.op](partial, self.start(value))
        return combined

    def conclude(self, partial: npt.NDArray[Any], value: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Writes what `finish` makes of ``partial`` with the last rank's elements in it into ``out``."""
        if self.dtype in _HALVES:
            np.copyto(out, self.finish(self.combine(partial, value)))
            return
        with np.errstate(all="ignore"):
            _UFUNCS[self.op](partial, value, out=out)
            if self.op == "mean":
                np.divide(out, out.dtype.type(self.ranks), out=out)

    def merge(self, first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns two partial results as one, as a new array."""
        with np.errstate(all="ignore"):
            merged: npt.NDArray[Any] = _UFUNCS[self.op](first, second)
        return merged

    def finish(self, partial: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the result, once all ranks' elements are in it, as elements that travel."""
        with np.errstate(all="ignore"):
            if self.op == "mean":
                partial = partial / partial.dtype.type(self.ranks)
            return self.narrowed(partial)

    def narrowed(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns what has the precision that is calculated in as elements that travel."""
        if self.dtype == BFLOAT16:
            return _to_bfloat16(value)
        return value.astype(np.float16) if self.dtype == "float16" else value

    def fold(self, values: Iterable[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Reduces all ranks' elements in the order given, of which there must be some, into a new array."""
        rest = iter(values)
        first = self.start(next(rest))
        combine = _UFUNCS[self.op]
        with np.errstate(all="ignore"):
            second = next(rest, None)
            total: npt.NDArray[Any] = first.copy() if second is None else combine(first, self.start(second))
            for value in rest:
                combine(total, self.start(value), out=total)
        return self.finish(total) if self.op == "mean" or self.dtype in _HALVES else total

    def fold_into(self, values: Sequence[npt.NDArray[Any]], out: npt.NDArray[Any]) -> None:
        """Does as `fold`, into ``out``, a block that stays in the processor's cache at a time."""
        with np.errstate(all="ignore"):
            self._fold_into(values, out)

    def fold_pieces_into(
        self,
        values: Sequence[npt.NDArray[Any]],
        place: int,
        pieces: Sequence[npt.NDArray[Any]],
        out: npt.NDArray[Any],
    ) -> None:
        """Does as `fold_into`, where one rank's elements are in pieces.

        Args:
            values: all ranks' elements; those at ``place`` are not looked at.
            place: whose elements are in pieces.
            pieces: the elements, one array after the other.
            out: takes the result.
        """
        start = 0
        with np.errstate(all="ignore"):
            for piece in pieces:
                part = slice(start, start + piece.size)
                of_ranks = [value[part] for value in values]
                of_ranks[place] = piece
                self._fold_into(of_ranks, out[part])
                start += piece.size

    def _fold_into(self, values: Sequence[npt.NDArray[Any]], out: npt.NDArray[Any]) -> None:
        step = max(1, _BLOCK_BYTES // out.itemsize)
        if out.size <= step:
            self._fold_block(values, out)
            return
        for start in range(0, out.size, step):
            block = slice(start, start + step)
            self._fold_block([value[block] for value in values], out[block])

    def _fold_block(self, values: Sequence[npt.NDArray[Any]], out: npt.NDArray[Any]) -> None:
        if self.dtype in _HALVES or len(values) == 1:
            np.copyto(out, self.fold(values))
            return
        combine = _UFUNCS[self.op]
        combine(values[0], values[1], out=out)
        for value in values[2:]:
            combine(out, value, out=out)
        if self.op == "mean":
            np.divide(out, out.dtype.type(self.ranks), out=out)


def widened(reduction: Reduction, value: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Reduction]:
    """Returns elements in the precision that is calculated in, and what makes partial results of such.

    Once all ranks are in it, ``reduction.finish`` makes the result of one.
    """
    op = "sum" if reduction.op == "mean" else reduction.op
    dtype = "float32" if reduction.dtype in _HALVES else reduction.dtype
    return reduction.start(value), Reduction(op, dtype, reduction.ranks)


def reduce_tensors(op: str, parts: Sequence[Buffer], dtype: str) -> memoryview:
    """Reduces the bytes of equally long tensors, element by element, in the order given.

    Args:
        op: one of `OPS`.
        parts: the bytes of one tensor per rank (little-endian), in rank order; at least one.
        dtype: name of their dtype, one that travels as a tensor.

    Returns:
        The bytes of the result, in the same dtype.

    Raises:
        ValueError: unknown op, the mean of integers, or tensors of other lengths.
    """
    reduction = Reduction(op, dtype, len(parts))
    elements = carrier(dtype)
    shape = (len(parts[0]) // elements.itemsize,)
    result = reduction.fold(from_tensor(part, shape, elements.name) for part in parts)
    return to_tensor(result)[0]


def _from_bfloat16(bits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (bits.astype(np.uint32) << _UPPER).view(np.float32)


def _to_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    bits = values.view(np.uint32)
    # To the nearest, ties to even; a nan must not be rounded into an infinity.
    rounded = (bits + _HALF + ((bits >> _UPPER) & _ONE)) >> _UPPER
    quiet = (bits >> _UPPER) | _QUIET
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
