"""Arrays as bytes: numpy and MLX arrays to and from (bytes, shape, dtype name).

The bytes are little-endian and in C order. Names of dtypes are numpy's, plus ``"bfloat16"``, which numpy lacks.
"""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from actors.messages import Buffer

Kind = Literal["numpy", "mlx"]

BFLOAT16 = "bfloat16"

_NUMPY_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_ITEMSIZE = {name: np.dtype(name).itemsize for name in _NUMPY_NAMES} | {BFLOAT16: 2}
_MISSING: dict[Kind, str] = {"numpy": BFLOAT16, "mlx": "complex128"}
_MOST_BYTES = 2**63 - 1


def kind_of(value: object) -> Kind | None:
    """Says which library's array ``value`` is, or None for anything else.

    Subclasses that carry more than their elements, such as masked arrays, are none. MLX is not imported by this.
    """
    if type(value) in (np.ndarray, np.memmap):
        return "numpy"
    # A program that holds an MLX array has imported MLX.
    core = sys.modules.get("mlx.core")
    return "mlx" if core is not None and isinstance(value, core.array) else None


def is_tensor(array: npt.NDArray[Any]) -> bool:
    """Says whether a numpy array's dtype is one that `to_tensor` takes."""
    return array.dtype.name in _ITEMSIZE


def carrier(dtype: str) -> np.dtype[Any]:
    """Returns numpy's dtype of elements that travel: the dtype itself, and for bfloat16 that of its bits."""
    return np.dtype(np.uint16 if dtype == BFLOAT16 else dtype)


def to_tensor(array: Any) -> tuple[memoryview, tuple[int, ...], str]:
    """Turns an array into bytes; nothing is copied where the array is contiguous and little-endian already.

    Args:
        array: a numpy or MLX array of any shape, strides and byte order, or a numpy scalar.

    Returns:
        The elements (little-endian, C order), the shape, and the dtype's name.

    Raises:
        TypeError: not an array, or of a dtype that cannot travel as a tensor.
    """
    if isinstance(array, np.generic):
        array = np.asarray(array)  # what sum() and the like give in place of an array of no axes
    kind = kind_of(array)
    if kind is None:
        raise TypeError(f"a {type(array).__name__} is not a numpy or MLX array: wrap it in numpy.asarray(...)")
    name = array.dtype.name if kind == "numpy" else str(array.dtype).rpartition(".")[2]
    if name not in _ITEMSIZE:
        raise TypeError(f"dtype {name} cannot travel as a tensor; these can: {', '.join(_ITEMSIZE)}")
    shape = tuple(int(side) for side in array.shape)
    plain = array if kind == "numpy" else _lend_mlx(array, _ITEMSIZE[name])
    wire = np.ascontiguousarray(plain, dtype=plain.dtype.newbyteorder("<"))
    return wire.reshape(-1).view(np.uint8).data, shape, name


def from_tensor(data: Buffer, shape: Sequence[int], dtype: str, kind: Kind = "numpy") -> Any:
    """Makes an array from bytes.

    Args:
        data: the elements, little-endian, in C order.
        shape: lengths of the axes; empty for a single element.
        dtype: name of the dtype.
        kind: which library's array to make.

    Returns:
        A read-only numpy array on the bytes themselves, or an MLX array.

    Raises:
        ValueError: unknown dtype or kind, impossible shape, or a number of bytes that does not fit them.
    """
    shape = tuple(shape)
    check_tensor(len(data), shape, dtype, kind)
    if kind == "mlx":
        return _make_mlx(data, shape, dtype)
    if dtype == "bool":
        # Any byte but 0 is true: a bool that is neither 0 nor 1 in memory misbehaves later.
        array = _lay(data, shape, "uint8") != 0
        array = np.asarray(array)
    else:
        array = _lay(data, shape, dtype)
    array.flags.writeable = False
    return array


def check_tensor(nbytes: int, shape: Sequence[int], dtype: str, kind: str = "numpy") -> None:
    """Checks that ``nbytes`` bytes can be an array of this shape and dtype, and of this kind.

    Raises:
        ValueError: they cannot; the message names both sides.
    """
    if dtype not in _ITEMSIZE:
        raise ValueError(f"unknown dtype {dtype[:100]!r}; known: {', '.join(_ITEMSIZE)}")
    if kind not in _MISSING:
        raise ValueError(f"unknown kind of array {kind[:100]!r}; known: {', '.join(_MISSING)}")
    if dtype == _MISSING[kind]:
        other = "mlx" if kind == "numpy" else "numpy"
        raise ValueError(f"{kind} has no {dtype}: ask for kind {other!r}")
    if len(shape) > 32 or any(side < 0 or side >= 2**31 for side in shape):
        raise ValueError(
            f"impossible shape {list(shape[:33])}: at most 32 axes, each from 0 to {2**31 - 1} elements long"
        )
    itemsize = _ITEMSIZE[dtype]
    if math.prod(side or 1 for side in shape) * itemsize > _MOST_BYTES:
        raise ValueError(f"shape {list(shape)} is too large: more than {_MOST_BYTES} bytes without its empty axes")
    expected = math.prod(shape) * itemsize
    if nbytes != expected:
        raise ValueError(f"shape {list(shape)} of {dtype} takes {expected} bytes, but {nbytes} came")


def to_npy(array: npt.NDArray[Any]) -> bytes:
    """Turns a numpy array without Python objects into the bytes of a ``.npy`` file.

    Raises:
        ValueError: the array holds Python objects.
    """
    sink = io.BytesIO()
    np.lib.format.write_array(sink, array, allow_pickle=False)
    return sink.getvalue()


def from_npy(data: bytes) -> npt.NDArray[Any]:
    """Makes a read-only numpy array from the bytes of a ``.npy`` file; nothing in it is unpickled.

    Raises:
        ValueError: not such bytes, or they hold pickled objects.
    """
    source = io.BytesIO(data)
    try:
        array: npt.NDArray[Any] = np.lib.format.read_array(source, allow_pickle=False)
    except Exception as error:  # a hostile header makes numpy raise anything, MemoryError too
        raise ValueError(f"not an array as numpy.save(..., allow_pickle=False) writes it: {error}") from error
    if source.tell() != len(data):
        raise ValueError(f"the array of numpy.save ends after {source.tell()} bytes, but {len(data)} came")
    array.flags.writeable = False
    return array


def _lay(data: Buffer, shape: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    wire = np.dtype(dtype).newbyteorder("<")
    array: npt.NDArray[Any] = np.ndarray(shape, wire, buffer=data)
    return array.astype(wire.newbyteorder("="), copy=False)


def _lend_mlx(array: Any, itemsize: int) -> npt.NDArray[Any]:
    """Shows an MLX array's memory to numpy as unsigned integers, since numpy knows no bfloat16."""
    import mlx.core as mx

    carrier = getattr(mx, f"uint{8 * itemsize}")
    # On the CPU's stream, since the GPU takes no float64.
    return np.asarray(mx.view(array, carrier, stream=mx.cpu))


def _make_mlx(data: Buffer, shape: tuple[int, ...], dtype: str) -> Any:
    try:
        import mlx.core as mx
    except ImportError as error:
        raise ValueError("MLX is not installed here, so no MLX array can be made: ask for kind 'numpy'") from error
    if dtype == "bool":
        return mx.array(_lay(data, shape, "uint8") != 0)
    carrier = mx.array(_lay(data, shape, f"uint{8 * _ITEMSIZE[dtype]}"))
    array = mx.view(carrier, getattr(mx, dtype), stream=mx.cpu)
    mx.eval(array)  # a lazy array may belong to this thread only
    return array
