"""The GGUF file format: what a file holds, and one tensor at a time out of it.

A file comes from anywhere, so every length in it is checked against the bytes that are really there before
anything is read: a truncated or damaged file is a `ModelError`, never a crash. Tensors are read singly through a
memory map, so that a stage touches only the pages of its own layers.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from actors.exceptions import ModelError

from .blocks import READABLE, TENSOR_TYPES, decode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .blocks import Affine, TensorType

MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_MAX_DIMS: Final = 4
_SMALLEST_ENTRY: Final = 13  # bytes of the shortest key with its value: no file holds more entries than fit


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies. `shape` is row-major, `start` is counted from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    kind: TensorType
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) // self.kind.block * self.kind.nbytes


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """An array in the metadata, left in the file until it is asked for: vocabularies are long."""

    start: int
    kind: int
    count: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The header of a file, checked; `read` and `array` fetch what it points to."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorEntry]

    def array(self, key: str) -> list[Any]:
        """The values of a metadata array; empty if the file has none of this name."""
        entry = self.metadata.get(key)
        if entry is None:
            return []
        if not isinstance(entry, ArrayEntry):
            raise ModelError(f"{self.path}: metadata {key!r} should be an array and is not; the file is damaged")
        with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            cursor = _Cursor(self.path, data, entry.start)
            if entry.kind == _STRING:
                return [cursor.text() for _ in range(entry.count)]
            return [cursor.scalar(entry.kind) for _ in range(entry.count)]

    def read(self, name: str) -> NDArray[Any] | Affine:
        """One tensor: a plain array (bfloat16 as its raw uint16 bits), or a quantised matrix.

        Raises:
            ModelError: its type cannot be read here.
        """
        entry = self.tensors[name]
        self.check_readable(entry)
        raw = np.memmap(self.path, np.uint8, "r", entry.start, (entry.nbytes,))
        return decode(entry.kind, raw, entry.shape)

    def check_readable(self, entry: TensorEntry) -> None:
        """Refuse a tensor that `read` could not read, before anything is loaded."""
        if entry.kind.name not in READABLE:
            raise ModelError(
                f"{self.path}: tensor {entry.name!r} is stored as {entry.kind.name}; what can be read is "
                f"{', '.join(READABLE)}. Use a file in one of these quantisations, such as Q4_K_M or Q8_0"
            )


def read_header(path: Path) -> GgufFile:
    """Parse and check the header of a GGUF file.

    Raises:
        ModelError: the file cannot be opened, is not GGUF, is truncated or is damaged.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ModelError(f"{path} is not a GGUF model: it does not begin with the letters GGUF")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data)
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror or error}") from error


class _Cursor:
    """A position in the file that never passes its end."""

    __slots__ = ("data", "path", "position")

    def __init__(self, path: Path, data: mmap.mmap, position: int) -> None:
        self.path, self.data, self.position = path, data, position

    def _take(self, size: int) -> int:
        start = self.position
        if size > len(self.data) - start:
            raise ModelError(
                f"{self.path} is truncated or damaged: its header asks for {size} bytes at {start}, the file has "
                f"{len(self.data)}. Fetch it again"
            )
        self.position = start + size
        return start

    def scalar(self, kind: int) -> Any:
        form = _SCALARS.get(kind)
        if form is None:
            raise ModelError(f"{self.path} is damaged: metadata of unknown type {kind}. Fetch it again")
        return struct.unpack_from(form, self.data, self._take(struct.calcsize(form)))[0]

    def count(self, smallest: int) -> int:
        """A number of items, each of at least `smallest` bytes; more than the file could hold is an error."""
        count: int = self.scalar(10)
        if count * smallest > len(self.data) - self.position:
            raise ModelError(
                f"{self.path} is truncated or damaged: its header announces {count} items where there is no room "
                f"for them. Fetch it again"
            )
        return count

    def text(self) -> str:
        size = self.count(1)
        start = self._take(size)
        return self.data[start : start + size].decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self.scalar(4)
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        return self.scalar(kind)

    def _array(self) -> ArrayEntry:
        kind = self.scalar(4)
        if kind == _STRING:
            count = self.count(8)
            start = self.position
            for _ in range(count):
                self._take(self.count(1))
            return ArrayEntry(start, kind, count)
        if kind not in _SCALARS:
            raise ModelError(f"{self.path} is damaged: a metadata array of unknown type {kind}. Fetch it again")
        size = struct.calcsize(_SCALARS[kind])
        count = self.count(size)
        return ArrayEntry(self._take(count * size), kind, count)


def _parse(path: Path, data: mmap.mmap) -> GgufFile:
    cursor = _Cursor(path, data, len(MAGIC))
    version = cursor.scalar(4)
    if version not in _VERSIONS:
        raise ModelError(f"{path} is GGUF of version {version}; versions 2 and 3 (little-endian) can be read")
    tensor_count, entry_count = cursor.count(1), cursor.count(_SMALLEST_ENTRY)
    metadata = {}
    for _ in range(entry_count):
        key = cursor.text()
        metadata[key] = cursor.value()
    found = [_tensor(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise ModelError(f"{path} is damaged: its alignment is {alignment!r}. Fetch it again")
    base = -(-cursor.position // alignment) * alignment
    tensors = {each.name: TensorEntry(each.name, each.shape, each.kind, base + each.start) for each in found}
    for each in tensors.values():
        if each.start + each.nbytes > len(data):
            raise ModelError(
                f"{path} is truncated: tensor {each.name!r} ends at byte {each.start + each.nbytes}, the file has "
                f"{len(data)}. Fetch it again"
            )
    return GgufFile(path, metadata, tensors)


def _tensor(cursor: _Cursor) -> TensorEntry:
    name = cursor.text()
    dims = cursor.scalar(4)
    if not 1 <= dims <= _MAX_DIMS:
        raise ModelError(f"{cursor.path} is damaged: tensor {name!r} has {dims} dimensions. Fetch it again")
    shape = tuple(cursor.scalar(10) for _ in range(dims))[::-1]
    number = cursor.scalar(4)
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise ModelError(
            f"{cursor.path}: tensor {name!r} has type number {number}, which is not known here; what can be read is "
            f"{', '.join(READABLE)}"
        )
    if 0 in shape or shape[-1] % kind.block:
        raise ModelError(f"{cursor.path} is damaged: tensor {name!r} of type {kind.name} has the shape {shape}")
    return TensorEntry(name, shape, kind, cursor.scalar(10))
