"""Plans: all of a small all-reduce or a barrier that is the same from call to call, made once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .agreement import INLINE_BYTES
from .board import POST_BYTES
from .moving import Barrier
from .reducing import AllReduce

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

_LARGEST = min(POST_BYTES - 1024, INLINE_BYTES)  # a header takes less
_NOTHING: npt.NDArray[Any] = np.empty(0, np.uint8)


class Plan:
    """A collective of which a rank's offer is always the same but for the elements.

    Attributes:
        header: what the offer says apart from them; a digest of it would be hardly shorter.
        nbytes: of the elements.
    """

    __slots__ = ("_dtype", "_reduction", "_shape", "_size", "header", "nbytes")

    def __init__(self, header: bytes, array: npt.NDArray[Any], reduction: Reduction | None) -> None:
        self.header, self.nbytes = header, array.nbytes
        self._size, self._dtype, self._shape, self._reduction = array.size, array.dtype, array.shape, reduction

    def said(self, x: npt.NDArray[Any] | None) -> bytes:
        """Returns this rank's offer as it travels."""
        return self.header if x is None else self.header + x.tobytes()

    def agreed(self, said: Sequence[Any]) -> bool:
        """Whether all ranks have said the same; if not, their offers may go together nevertheless."""
        header = self.header
        return all(type(one) is bytes and one.startswith(header) for one in said)

    def result(self, said: Sequence[bytes]) -> Any:
        """Returns what the collective returns where all have agreed."""
        if self._reduction is None:
            return None
        start = len(self.header)
        values = [np.ndarray(self._size, self._dtype, one, start) for one in said]
        return self._reduction.fold(values).reshape(self._shape)


def plan_all_reduce(x: object, op: object, size: int, deterministic: object) -> Plan | None:
    """Returns the plan for an all-reduce of ``x`` among ``size`` ranks; None where it takes the long way."""
    if type(x) is not np.ndarray or x.nbytes > _LARGEST or type(op) is not str or type(deterministic) is not bool:
        return None
    return _all_reduce(op, x.dtype.str, x.shape, size, deterministic)


@lru_cache(maxsize=256)
def _all_reduce(op: str, dtype: str, shape: tuple[int, ...], size: int, deterministic: bool) -> Plan | None:
    array = np.empty(shape, dtype)
    if not array.dtype.isnative or array.dtype.hasobject:
        return None
    try:
        call = AllReduce(size, array, op, deterministic)
    except (TypeError, ValueError):  # the long way tells the others
        return None
    return _plan(call, array, call.reduction)


@lru_cache(maxsize=1)
def plan_barrier() -> Plan | None:
    """Returns the plan for a barrier."""
    return _plan(Barrier(), _NOTHING, None)


def _plan(call: AllReduce | Barrier, array: npt.NDArray[Any], reduction: Reduction | None) -> Plan | None:
    said = call.offer.packed()
    return Plan(said[: len(said) - array.nbytes], array, reduction) if type(said) is bytes else None
