"""Structures of arrays, as gradients are: taken apart into buckets, one for each dtype, and put together again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from . import pages
from .packing import Spec, is_array, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

_SHOWN = 200


def is_structure(value: object) -> bool:
    """Whether a value is a dict, list or tuple, which may hold arrays."""
    return isinstance(value, dict | list | tuple)


@dataclass(frozen=True, slots=True)
class Bucket:
    """All elements of one dtype, one array after the other.

    Attributes:
        name: the dtype's name.
        flat: the elements.
        places: which of the structure's arrays they are.
    """

    name: str
    flat: npt.NDArray[Any]
    places: tuple[int, ...]


class Structure:
    """A dict, list or tuple of arrays, nested to any depth. Making one takes the arrays' elements as they are now.

    Args:
        value: the structure.

    Raises:
        TypeError: something in it is neither an array nor a structure; the message says where.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        leaves = list(_leaves(value, ""))
        packed = [_packed(leaf, path) for path, leaf in leaves]
        self._specs = [item.spec for item in packed]
        by_dtype: dict[str, list[int]] = {}
        for place, spec in enumerate(self._specs):
            by_dtype.setdefault(spec.name, []).append(place)
        self.buckets = tuple(
            Bucket(name, _joined([packed[place].data for place in places]), tuple(places))
            for name, places in by_dtype.items()
        )
        said = ", ".join(f"{path}: {spec}" for (path, _), spec in zip(leaves, self._specs, strict=True))
        digest = hashlib.sha256(said.encode()).hexdigest()[:8]
        short = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
        self.terms = f"{len(leaves)} arrays {{{short}}} ({digest})"

    def filled(self, results: list[npt.NDArray[Any]]) -> Any:
        """Returns a structure like this one whose arrays' elements are those of ``results``, one for each bucket."""
        flats: list[Any] = [None] * len(self._specs)
        for bucket, result in zip(self.buckets, results, strict=True):
            start = 0
            for place in bucket.places:
                stop = start + prod(self._specs[place].shape)
                flats[place] = result[start:stop]
                start = stop
        arrays = iter([unpack(spec, flat) for spec, flat in zip(self._specs, flats, strict=True)])
        return _rebuilt(self._value, arrays)

    def spec(self, bucket: Bucket) -> Spec:
        """Returns what a bucket is, as an array of one axis."""
        wire = self._specs[bucket.places[0]].wire
        return Spec("numpy", bucket.name, (bucket.flat.size,), wire, wire)


def _packed(leaf: Any, path: str) -> Any:
    if not is_array(leaf):
        raise TypeError(
            f"{path} is a {type(leaf).__name__}, and only numpy and MLX arrays can be reduced; make one of it, as in "
            "numpy.asarray(value)"
        )
    return pack(leaf)


def _joined(flats: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len(flats) == 1:
        return flats[0]
    joined = pages.empty(sum(flat.size for flat in flats), flats[0].dtype)
    return np.concatenate(flats, out=joined)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _rebuilt(value: Any, arrays: Iterator[Any]) -> Any:
    if isinstance(value, dict):
        return {key: _rebuilt(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_rebuilt(item, arrays) for item in value]
        if isinstance(value, list):
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return next(arrays)
