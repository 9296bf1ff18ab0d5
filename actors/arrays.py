"""Arrays as bytes: numpy and MLX arrays to and from (bytes, shape, dtype name), and reductions on those bytes.

The bytes are little-endian and in C order. Names of dtypes are numpy's, plus ``"bfloat16"``, which numpy lacks.
"""

from __future__ import annotations

import io
import math
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from actors.messages import Buffer

Kind = Literal["numpy", "mlx"]

_NUMPY_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
_ITEMSIZE = {name: np.dtype(name).itemsize for name in _NUMPY_NAMES} | {"bfloat16": 2}
_MISSING: dict[Kind, str] = {"numpy": "bfloat16", "mlx": "complex128"}
_MOST_BYTES = 2**63 - 1

_STEPS: dict[str, Callable[..., Any]] = {
    "sum": np.add,
    "product": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "mean": np.add,
}


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


def check_reduction(op: str, dtype: str) -> None:
    """Checks that arrays of ``dtype`` can be reduced by ``op``.

    Raises:
        ValueError: unknown op, or the mean of integers.
    """
    if op not in _STEPS:
        raise ValueError(f"unknown op {op[:100]!r}; known: {', '.join(_STEPS)}")
    if op == "mean" and not dtype.startswith(("float", "bfloat", "complex")):
        raise ValueError(f"the mean of {dtype} is not a {dtype}: convert to a floating dtype first, or use op 'sum'")


def reduce_tensors(op: str, parts: Sequence[Buffer], dtype: str) -> memoryview:
    """Reduces the bytes of equally long tensors, element by element, in the order given.

    Integers wrap and bools behave as numpy's do; min and max hand on NaN. float16 and bfloat16 are added up in
    float32 and rounded once, to nearest even; all others are reduced in their own dtype.

    Args:
        op: ``"sum"``, ``"product"``, ``"min"``, ``"max"`` or ``"mean"``.
        parts: the bytes of one tensor per rank, in rank order; at least one.
        dtype: name of their dtype.

    Returns:
        The bytes of the result, in the same dtype.

    Raises:
        ValueError: unknown op, or the mean of integers.
    """
    check_reduction(op, dtype)
    step = _STEPS[op]
    # Overflow and NaN are results here, as they are for numpy's user, who also may have asked for no warning.
    with np.errstate(all="ignore"):
        total = _widen(parts[0], dtype).copy()
        for part in parts[1:]:
            step(total, _widen(part, dtype), out=total)
        if op == "mean":
            total /= total.dtype.type(len(parts))
        result = _narrow(total, dtype)
    return result.view(np.uint8).data


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


def _widen(data: Buffer, dtype: str) -> npt.NDArray[Any]:
    """Lays out the elements flat, in the dtype in which they are reduced."""
    flat = _lay(data, (len(data) // _ITEMSIZE[dtype],), "uint16" if dtype == "bfloat16" else dtype)
    if dtype == "bfloat16":
        return (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "bool":
        return np.asarray(flat.view(np.uint8) != 0)
    return flat.astype(np.float32) if dtype == "float16" else flat


def _narrow(total: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Rounds a reduced array back to the dtype it travels in."""
    if dtype != "bfloat16":
        return total.astype(np.dtype(dtype).newbyteorder("<"), copy=False)
    bits = total.view(np.uint32)
    even = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    # Rounding up could carry a NaN over into an infinity.
    rounded = np.where(np.isnan(total), (bits >> np.uint32(16)) | np.uint32(0x40), even)
    return rounded.astype("<u2")
