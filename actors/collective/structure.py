"""Structures of arrays, as gradients are: taken apart into buckets, one for each dtype, and put together again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .packing import Packed, Spec, is_array, pack, unpack
from .pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    import numpy.typing as npt

_SHOWN = 200
_NESTS = (dict, list, tuple)
_KEPT = 64


def is_structure(value: object) -> bool:
    """Whether a value is a dict, list or tuple, which may hold arrays."""
    return isinstance(value, _NESTS)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The arrays of one dtype.

    Attributes:
        spec: what all their elements are as one array.
        places: which of the structure's arrays they are.
        stops: where each ends among those elements.
    """

    spec: Spec
    places: tuple[int, ...]
    stops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where each array of a structure lies.

    Attributes:
        buckets: one for each dtype.
        cuts: for each array its bucket's number, its elements there, its shape unless that is one axis, and its spec
            unless they need no more than a shape.
        terms: the same in words.
    """

    buckets: tuple[_Bucket, ...]
    cuts: tuple[tuple[int, slice, tuple[int, ...] | None, Spec | None], ...]
    terms: str


class Structure:
    """A dict, list or tuple of arrays, nested to any depth: its elements are put into buckets, one for each dtype.

    Args:
        value: the structure.

    Raises:
        TypeError: something in it is neither an array nor a structure; the message says where.

    Attributes:
        terms: what it is, in words.
        specs: what each bucket is, as an array of one axis.
        buckets: all elements of one dtype, one array after the other, where they are.
    """

    def __init__(self, value: Any) -> None:
        self._value = value
        leaves: list[Any] = []
        skeleton = _collect(value, leaves)
        layout = _known(skeleton, leaves)
        if layout is not None:
            flats = [leaf.ravel() for leaf in leaves]
        else:
            packed = [_packed(leaf, skeleton, number) for number, leaf in enumerate(leaves)]
            layout = _layout(skeleton, tuple([one.spec for one in packed]))
            _keep(skeleton, leaves, layout)
            flats = [one.data for one in packed]
        self._layout = layout
        self.terms, self.specs = layout.terms, [bucket.spec for bucket in layout.buckets]
        self.buckets = [Pieces([flats[place] for place in bucket.places], bucket.stops) for bucket in layout.buckets]

    def filled(self, results: Sequence[npt.NDArray[Any]]) -> Any:
        """Returns a structure like this one whose arrays' elements are those of ``results``, one for each bucket."""
        arrays = [
            (results[index][part] if shape is None else results[index][part].reshape(shape))
            if spec is None
            else unpack(spec, results[index][part])
            for index, part, shape, spec in self._layout.cuts
        ]
        return _rebuilt(self._value, iter(arrays))


def _packed(leaf: Any, skeleton: Hashable, number: int) -> Packed:
    if is_array(leaf):
        return pack(leaf)
    path = next(islice(_paths(skeleton), number, None))
    raise TypeError(
        f"{path} is a {type(leaf).__name__}, and only numpy and MLX arrays can be reduced; make one of it, as in "
        "numpy.asarray(value)"
    )


def _collect(value: Any, leaves: list[Any]) -> Hashable:
    """Appends the arrays of a structure, in order, to ``leaves``; returns what it is but for them."""
    if isinstance(value, dict):
        items: Any = value.values()
        # A key may be equal to one of another type, which is another in words.
        said: Any = tuple(value), tuple([type(key) for key in value])
    else:
        items, said = value, None
    below = []
    for item in items:
        if isinstance(item, _NESTS):
            below.append(_collect(item, leaves))
        else:
            leaves.append(item)
            below.append(None)
    return said, tuple(below)


def _paths(skeleton: Any, path: str = "") -> Iterator[str]:
    """Returns where the arrays of a structure are, as Python has it."""
    said, below = skeleton
    for key, item in zip(range(len(below)) if said is None else said[0], below, strict=True):
        here = f"{path}[{key!r}]"
        if item is None:
            yield here
        else:
            yield from _paths(item, here)


@lru_cache(maxsize=64)
def _layout(skeleton: Hashable, specs: tuple[Spec, ...]) -> _Layout:
    """Lays a structure out."""
    by_dtype: dict[str, list[int]] = {}
    for place, spec in enumerate(specs):
        by_dtype.setdefault(spec.name, []).append(place)
    cuts: list[Any] = [None] * len(specs)
    buckets = []
    for index, (name, places) in enumerate(by_dtype.items()):
        stops = tuple(accumulate([prod(specs[place].shape) for place in places]))
        for place, start, stop in zip(places, (0, *stops), stops, strict=False):
            spec = specs[place]
            plain = spec.kind == "numpy" and spec.dtype == spec.wire
            shape = None if len(spec.shape) == 1 else spec.shape
            cuts[place] = index, slice(start, stop), shape, None if plain else spec
        wire = specs[places[0]].wire
        buckets.append(_Bucket(Spec("numpy", name, (stops[-1],), wire, wire), tuple(places), stops))
    said = ", ".join(f"{path}: {spec}" for path, spec in zip(_paths(skeleton), specs, strict=True))
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    short = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
    return _Layout(tuple(buckets), tuple(cuts), f"{len(specs)} arrays {{{short}}} ({digest})")


# The same structures come again and again in a training loop, and to tell that a dtype is the same object takes a
# fraction of what a spec does. Of each: the dtypes of its arrays, and its layout.
_Shapes: TypeAlias = "tuple[Hashable, tuple[tuple[int, ...], ...]]"
_known_layouts: dict[_Shapes, tuple[list[np.dtype[Any]], _Layout]] = {}


def _known(skeleton: Hashable, leaves: list[Any]) -> _Layout | None:
    """Returns the layout of a structure of plain numpy arrays only, if such a one was there lately."""
    if set(map(type, leaves)) != {np.ndarray}:
        return None
    dtypes, layout = _known_layouts.get((skeleton, tuple([leaf.shape for leaf in leaves])), (None, None))
    return layout if dtypes == [leaf.dtype for leaf in leaves] else None


def _keep(skeleton: Hashable, leaves: list[Any], layout: _Layout) -> None:
    if set(map(type, leaves)) == {np.ndarray} and all(spec is None for *_, spec in layout.cuts):
        if len(_known_layouts) >= _KEPT:
            _known_layouts.clear()  # in one step, beside other threads
        _known_layouts[skeleton, tuple([leaf.shape for leaf in leaves])] = [leaf.dtype for leaf in leaves], layout


def _rebuilt(value: Any, arrays: Iterator[Any]) -> Any:
    items: Any = value.values() if isinstance(value, dict) else value
    made = [_rebuilt(item, arrays) if isinstance(item, _NESTS) else next(arrays) for item in items]
    if isinstance(value, dict):
        return dict(zip(value, made, strict=True))
    if isinstance(value, list):
        return made
    return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
