"""Structures of arrays, as gradients are: taken apart into buckets, one for each dtype, and put together again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
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


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each array of a structure lies.

    Attributes:
        specs: of the arrays.
        buckets: each dtype's name and the arrays that have it.
        cuts: for each array its bucket's number and its elements there.
        terms: the same in words.
    """

    specs: tuple[Spec, ...]
    buckets: tuple[tuple[str, tuple[int, ...]], ...]
    cuts: tuple[tuple[int, slice], ...]
    terms: str


class Structure:
    """A dict, list or tuple of arrays, nested to any depth. Making one takes the arrays' elements as they are now.

    Args:
        value: the structure.

    Raises:
        TypeError: something in it is neither an array nor a structure; the message says where.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        paths: list[str] = []
        leaves: list[Any] = []
        _collect(value, "", paths, leaves)
        packed = [_packed(leaf, path) for path, leaf in zip(paths, leaves, strict=True)]
        self._layout = layout = _layout(tuple(paths), tuple([item.spec for item in packed]))
        self.terms = layout.terms
        self.buckets = tuple(
            [Bucket(name, _joined([packed[place].data for place in places]), places) for name, places in layout.buckets]
        )

    def filled(self, results: list[npt.NDArray[Any]]) -> Any:
        """Returns a structure like this one whose arrays' elements are those of ``results``, one for each bucket."""
        specs, cuts = self._layout.specs, self._layout.cuts
        arrays = [unpack(spec, results[index][cut]) for spec, (index, cut) in zip(specs, cuts, strict=True)]
        return _rebuilt(self._value, iter(arrays))

    def spec(self, bucket: Bucket) -> Spec:
        """Returns what a bucket is, as an array of one axis."""
        wire = self._layout.specs[bucket.places[0]].wire
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


def _collect(value: Any, path: str, paths: list[str], leaves: list[Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _collect(item, f"{path}[{key!r}]", paths, leaves)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _collect(item, f"{path}[{index}]", paths, leaves)
    else:
        paths.append(path)
        leaves.append(value)


@lru_cache(maxsize=64)
def _layout(paths: tuple[str, ...], specs: tuple[Spec, ...]) -> _Layout:
    """Lays a structure out; a training loop asks for the same again and again."""
    by_dtype: dict[str, list[int]] = {}
    for place, spec in enumerate(specs):
        by_dtype.setdefault(spec.name, []).append(place)
    cuts: list[tuple[int, slice]] = [(0, slice(0))] * len(specs)
    for index, places in enumerate(by_dtype.values()):
        start = 0
        for place in places:
            stop = start + prod(specs[place].shape)
            cuts[place] = index, slice(start, stop)
            start = stop
    said = ", ".join(f"{path}: {spec}" for path, spec in zip(paths, specs, strict=True))
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    short = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
    buckets = tuple((name, tuple(places)) for name, places in by_dtype.items())
    return _Layout(specs, buckets, tuple(cuts), f"{len(specs)} arrays {{{short}}} ({digest})")


def _rebuilt(value: Any, arrays: Iterator[Any]) -> Any:
    if isinstance(value, dict):
        return {key: _rebuilt(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_rebuilt(item, arrays) for item in value]
        if isinstance(value, list):
            return items
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return next(arrays)
