"""Values ↔ what travels: flat numpy arrays for arrays of either kind, pickles for other objects.

MLX is imported only where an MLX array is met. bfloat16, which numpy lacks, travels as its bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from actors import pages
from actors.arrays import BFLOAT16, carrier, from_tensor, kind_of, to_tensor
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    import numpy.typing as npt

Kind = Literal["numpy", "numpy scalar", "mlx", "object"]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a value is, apart from its elements.

    Attributes:
        kind: whose array it is; ``object`` is any other Python value.
        name: the dtype's name, as both numpy and MLX have it.
        shape: lengths of its axes.
        wire: dtype of the elements as they travel.
        dtype: numpy's dtype of the value itself, byte order included.
    """

    kind: Kind
    name: str
    shape: tuple[int, ...]
    wire: np.dtype[Any]
    dtype: np.dtype[Any]

    def __hash__(self) -> int:
        return hash((self.name, self.shape))  # to hash a dtype takes longer than the rest

    def __str__(self) -> str:
        return "a Python object" if self.kind == "object" else f"{self.name} {self.shape}"

    @property
    def nbytes(self) -> int:
        """Bytes that its elements take on the way."""
        return prod(self.shape) * self.wire.itemsize

    def plain(self) -> tuple[Any, ...]:
        """Returns the same as a tuple of plain values, of which a pickle is made in a fraction of the time."""
        return self.kind, self.name, self.shape, _plain(self.wire), _plain(self.dtype)

    @classmethod
    def of(cls, plain: tuple[Any, ...]) -> Spec:
        """Makes what `plain` was returned by."""
        kind, name, shape, wire, dtype = plain
        return cls(kind, name, shape, np.dtype(wire), np.dtype(dtype))

    def laid(self, data: bytes, start: int = 0) -> npt.NDArray[Any]:
        """Returns the flat array whose elements are these bytes from ``start`` on, read-only."""
        return np.ndarray(prod(self.shape), self.wire, data, start)

    def empty(self) -> npt.NDArray[Any]:
        """Returns a flat array to receive the elements in."""
        return pages.empty(prod(self.shape), self.wire)


@dataclass(frozen=True, slots=True)
class Packed:
    """A value ready to travel: ``data`` is its elements, flat and in C order, or the object itself."""

    spec: Spec
    data: Any


_OBJECT = Spec("object", "object", (), np.dtype(object), np.dtype(object))


def is_array(value: object) -> bool:
    """Whether a value travels as elements with a shape and a dtype, not as a pickle."""
    if type(value) is np.ndarray:  # nearly always
        return not value.dtype.hasobject
    if kind_of(value) == "mlx":
        return True
    return (kind_of(value) == "numpy" or isinstance(value, np.generic)) and not np.asarray(value).dtype.hasobject


def pack(value: object) -> Packed:
    """Makes a value ready to travel, without copying its elements where they lie in C order.

    Raises:
        SerializationError: the value is no array and cannot be pickled.
    """
    if type(value) is np.ndarray and not value.dtype.hasobject:
        return _pack_numpy(value, "numpy")
    if not is_array(value):
        return Packed(_OBJECT, dumps(value))
    kind = kind_of(value)
    return _pack_mlx(value) if kind == "mlx" else _pack_numpy(np.asarray(value), kind or "numpy scalar")


def unpack(spec: Spec, data: Any, like: Spec | None = None) -> Any:
    """Returns the value whose elements ``data`` is.

    Args:
        spec: what was sent.
        data: the elements as `pack` makes them; a numpy result shares their memory.
        like: where given and an array, the kind and byte order the value comes back in.

    Raises:
        ValueError: an array of that dtype and kind cannot be made here.
    """
    if spec.kind == "object":
        return loads(data)
    to = spec if like is None or like.kind == "object" else like
    if to.kind == "mlx" or spec.name == BFLOAT16:
        return from_tensor(data.view(np.uint8).data, spec.shape, spec.name, "mlx" if to.kind == "mlx" else "numpy")
    if to.dtype is spec.wire and to.kind == "numpy":
        return data.reshape(spec.shape)
    shaped = data.reshape(spec.shape).astype(to.dtype, copy=False)
    return shaped[()] if to.kind == "numpy scalar" else shaped


def _plain(dtype: np.dtype[Any]) -> str | np.dtype[Any]:
    # The string of a structured or user-defined dtype does not say all.
    return dtype if dtype.names is not None or dtype.isbuiltin == 2 else dtype.str


@lru_cache(maxsize=1024)
def _native(kind: Kind, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Spec:
    """Returns the spec of an array in the machine's byte order; a structure of arrays asks for hundreds at once."""
    return Spec(kind, str(dtype), shape, dtype, dtype)


def _pack_numpy(array: npt.NDArray[Any], kind: Kind) -> Packed:
    if type(array) is np.ndarray and array.dtype.isnative and array.flags.c_contiguous:
        return Packed(_native(kind, array.dtype, array.shape), array.reshape(-1))
    native = array.dtype.newbyteorder("=")
    # A memory map would travel as itself, file and all.
    plain = np.ascontiguousarray(array, dtype=native).view(np.ndarray)
    return Packed(Spec(kind, str(native), array.shape, native, array.dtype), plain.reshape(-1))


def _pack_mlx(value: object) -> Packed:
    data, shape, name = to_tensor(value)
    wire = carrier(name)
    return Packed(Spec("mlx", name, shape, wire, wire), np.frombuffer(data, wire))
