"""How the values of several ranks become one.

Elements are numpy's: integers wrap around, nan stays nan, complex numbers compare by real part, then by
imaginary part. On booleans, sum and max are "or", product and min are "and", as numpy has it. Values of 16-bit
floats are added up in float32 and rounded once, at the end; the result has the dtype that came in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .packing import BFLOAT16

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .packing import Spec

_UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add,
    "product": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "mean": np.add,
}

OPS = tuple(_UFUNCS)


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction over the ranks of a group. Made by `reduction`.

    Attributes:
        op: one of `OPS`.
        name: name of the dtype.
        wire: numpy's dtype of the elements as they travel.
        ranks: how many values go into one.
    """

    op: str
    name: str
    wire: np.dtype[Any]
    ranks: int

    def start(self, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns one rank's elements in the precision that is calculated in."""
        if self.name == BFLOAT16:
            return _from_bfloat16(value)
        return value.astype(np.float32) if self.name == "float16" else value

    def combine(self, partial: npt.NDArray[Any], value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns ``partial`` with one more rank's elements in it, as a new array."""
        with np.errstate(all="ignore"):
            combined: npt.NDArray[Any] = _UFUNCS[self.op](partial, self.start(value))
        return combined

    def finish(self, partial: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the result, once all ranks' elements are in it, as elements that travel."""
        with np.errstate(all="ignore"):
            if self.op == "mean":
                partial = partial / partial.dtype.type(self.ranks)
            return _to_bfloat16(partial) if self.name == BFLOAT16 else partial.astype(self.wire, copy=False)

    def fold(self, values: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Reduces all ranks' elements in the order given, into a new array."""
        partial = self.start(values[0])
        for value in values[1:]:
            partial = self.combine(partial, value)
        result = self.finish(partial)
        return result.copy() if result is values[0] else result


def reduction(op: str, spec: Spec, ranks: int) -> Reduction:
    """Returns the reduction ``op`` for values of this kind.

    Raises:
        ValueError: there is no such op, or it is the mean and the values are no floats.
        TypeError: the values cannot be reduced.
    """
    if op not in OPS:  # a tuple, since what is no string may have no hash
        raise ValueError(f"op {op!r} is not known; there are {', '.join(OPS)}")
    if spec.kind == "object":
        raise TypeError("only numpy and MLX arrays can be reduced; make one of the value, as in numpy.asarray(value)")
    inexact = spec.name == BFLOAT16 or spec.wire.kind in "fc"
    if not inexact and spec.wire.kind not in "biu":
        raise TypeError(f"arrays of dtype {spec.name} cannot be reduced; bool, integers, floats and complex can")
    if op == "mean" and not inexact:
        raise ValueError(f"the mean of {spec.name} is not a {spec.name}: convert to a float dtype, or use op='sum'")
    return Reduction(op, spec.name, spec.wire, ranks)


def _from_bfloat16(bits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _to_bfloat16(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    bits = values.view(np.uint32)
    # To the nearest, ties to even; a nan must not be rounded into an infinity.
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
