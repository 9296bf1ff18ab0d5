"""Plans: all of an all-reduce that is not large, or of a barrier, that is the same from call to call, made once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from . import shared
from .agreement import INLINE_BYTES
from .board import POST_BYTES
from .moving import Barrier
from .pieces import whole
from .reducing import AllReduce, said_of
from .structure import Structure, is_structure

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

    from .channel import Channel
    from .pieces import Part
    from .structure import Layout

_POSTED_BYTES = min(POST_BYTES - 1024, INLINE_BYTES)  # a header takes less
_NOTHING: npt.NDArray[Any] = np.empty(0, np.uint8)


class Plan(ABC):
    """A collective of which a rank's offer is always the same but for the elements.

    Attributes:
        header: what the offer says apart from them; a digest of it would be hardly shorter.
        nbytes: of the elements.
    """

    __slots__ = ("header", "nbytes")

    def __init__(self, header: bytes, nbytes: int) -> None:
        self.header, self.nbytes = header, nbytes

    def usable(self, channel: Channel) -> bool:
        """Whether the ranks can go by it, as they are placed. The same on every rank."""
        return channel.fabric.terrain.board is not None

    @abstractmethod
    def said(self, channel: Channel, x: Part | None) -> bytes:
        """Returns this rank's offer as it travels."""

    def agreed(self, said: Sequence[Any]) -> bool:
        """Whether all ranks have said the same; if not, their offers may go together nevertheless."""
        header = self.header
        return all(type(one) is bytes and one.startswith(header) for one in said)

    @abstractmethod
    def result(self, channel: Channel, said: Sequence[bytes]) -> Any:
        """Returns what the collective returns where all have agreed."""


class _OfArray(Plan):
    """The elements are one array, if there are any."""

    __slots__ = ("_dtype", "_reduction", "_shape", "_size")

    def __init__(self, header: bytes, array: npt.NDArray[Any], reduction: Reduction | None) -> None:
        super().__init__(header, array.nbytes)
        self._size, self._dtype, self._shape, self._reduction = array.size, array.dtype, array.shape, reduction


class _Posted(_OfArray):
    """The elements, if there are any, are posted with the header."""

    __slots__ = ()

    def said(self, channel: Channel, x: Part | None) -> bytes:  # noqa: ARG002 - the interface
        """See `Plan`."""
        return self.header if x is None else self.header + whole(x).tobytes()

    def result(self, channel: Channel, said: Sequence[bytes]) -> Any:  # noqa: ARG002 - the interface
        """See `Plan`."""
        if self._reduction is None:
            return None
        start = len(self.header)
        values = [np.ndarray(self._size, self._dtype, one, start) for one in said]
        return self._reduction.fold(values).reshape(self._shape)


class _Shown(_OfArray):
    """The elements are shown before the header is posted."""

    __slots__ = ()

    def usable(self, channel: Channel) -> bool:
        """See `Plan`."""
        return channel.engine is None and shared.shows(channel.fabric.terrain, self.nbytes)

    def said(self, channel: Channel, x: Part | None) -> bytes:
        """See `Plan`."""
        window = channel.fabric.terrain.window
        assert x is not None
        assert window is not None
        shared.show(channel, window, x)
        return self.header

    def result(self, channel: Channel, said: Sequence[bytes]) -> Any:  # noqa: ARG002 - the interface
        """See `Plan`."""
        window, reduction = channel.fabric.terrain.window, self._reduction
        assert window is not None
        assert reduction is not None
        return shared.reduce_shown(channel, window, reduction, self._size, self._dtype).reshape(self._shape)


class _OfStructure(Plan):
    """The elements are those of a structure's arrays, all of one dtype, which go as if they were one array.

    Args:
        plan: of that array.
        structure: this rank's.
    """

    __slots__ = ("_plan", "_structure")

    def __init__(self, plan: Plan, structure: Structure) -> None:
        super().__init__(plan.header, plan.nbytes)
        self._plan, self._structure = plan, structure

    def usable(self, channel: Channel) -> bool:
        """See `Plan`."""
        return self._plan.usable(channel)

    def said(self, channel: Channel, x: Part | None) -> bytes:  # noqa: ARG002 - the interface
        """See `Plan`."""
        return self._plan.said(channel, self._structure.buckets[0])

    def result(self, channel: Channel, said: Sequence[bytes]) -> Any:
        """See `Plan`."""
        return self._structure.filled([self._plan.result(channel, said)])


def plan_all_reduce(x: object, op: object, size: int, deterministic: object) -> Plan | None:
    """Returns the plan for an all-reduce of ``x`` among ``size`` ranks; None where it takes the long way."""
    if type(op) is not str or type(deterministic) is not bool:
        return None
    if type(x) is np.ndarray:
        return _all_reduce(op, x.dtype.str, x.shape, size, deterministic) if _short(x.nbytes) else None
    if not is_structure(x):
        return None
    try:
        structure = Structure.known(x)
    except Exception:  # whatever it is, the long way tells the others
        return None
    if structure is None or len(structure.specs) != 1 or not _short(structure.specs[0].nbytes):
        return None
    plan = _all_reduce_structure(op, structure.layout, size, deterministic)
    return None if plan is None else _OfStructure(plan, structure)


def _short(nbytes: int) -> bool:
    return nbytes <= _POSTED_BYTES or INLINE_BYTES < nbytes <= shared.SHOWN_BYTES


@lru_cache(maxsize=256)
def _all_reduce(op: str, dtype: str, shape: tuple[int, ...], size: int, deterministic: bool) -> Plan | None:
    array = np.empty(shape, dtype)
    return _planned(op, array, size, deterministic) if array.dtype.isnative and not array.dtype.hasobject else None


@lru_cache(maxsize=64)
def _all_reduce_structure(op: str, layout: Layout, size: int, deterministic: bool) -> Plan | None:
    spec = layout.buckets[0].spec
    return _planned(op, np.empty(spec.shape, spec.wire), size, deterministic, layout.terms)


def _planned(op: str, array: npt.NDArray[Any], size: int, deterministic: bool, terms: str | None = None) -> Plan | None:
    """Returns the plan for arrays like this one; ``terms`` are what it is in words, if it stands for a structure."""
    try:
        call = AllReduce(size, array, op, deterministic)
    except (TypeError, ValueError):  # the long way tells the others
        return None
    offer = call.offer if terms is None else replace(call.offer, terms=said_of(terms, deterministic))
    said = offer.packed()
    if type(said) is not bytes:
        return None
    if call.offer.data is None:
        return _Shown(said, array, call.reduction)
    return _Posted(said[: len(said) - array.nbytes], array, call.reduction)


@lru_cache(maxsize=1)
def plan_barrier() -> Plan | None:
    """Returns the plan for a barrier."""
    said = Barrier().offer.packed()
    return _Posted(said, _NOTHING, None) if type(said) is bytes else None
