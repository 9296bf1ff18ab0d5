"""Structures of arrays, as gradients are: taken apart into buckets, one for each dtype, and put together again."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby, islice
from math import prod
from operator import attrgetter
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
_TINY_BYTES = 1 << 12  # arrays up to this size take less time to copy together than to be looked at twice
_shape, _dtype = attrgetter("shape"), attrgetter("dtype")


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
class _Run:
    """Arrays of one shape that follow one another, in the structure as in their bucket.

    Attributes:
        bucket: its number.
        elements: theirs in it.
        shape: of each.
        count: how many they are.
        spec: of one that needs more than a shape, which is alone; else None.
    """

    bucket: int
    elements: slice
    shape: tuple[int, ...]
    count: int
    spec: Spec | None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where each array of a structure lies. There is one of each kind of structure, which is equal to no other.

    Attributes:
        buckets: one for each dtype.
        runs: of all arrays, in the structure's order.
        terms: the same in words.
    """

    buckets: tuple[_Bucket, ...]
    runs: tuple[_Run, ...]
    terms: str


class Structure:
    """A dict, list or tuple of arrays, nested to any depth: its elements are put into buckets, one for each dtype.

    Args:
        value: the structure.
        skeleton: what it is but for its arrays.
        layout: where they lie.
        leaves: they.

    Attributes:
        layout: where its arrays lie.
        terms: what it is, in words.
        specs: what each bucket is, as an array of one axis.
        buckets: all elements of one dtype, one array after the other; where they are, unless they are tiny.
    """

    __slots__ = ("_skeleton", "_value", "buckets", "layout", "specs", "terms")

    def __init__(self, value: Any, skeleton: Hashable, layout: Layout, leaves: Sequence[Any]) -> None:
        self._value, self._skeleton, self.layout = value, skeleton, layout
        self.terms, self.specs = layout.terms, [bucket.spec for bucket in layout.buckets]
        self.buckets = [_filled(bucket, leaves) for bucket in layout.buckets]

    @classmethod
    def of(cls, value: Any) -> Structure:
        """Takes a structure apart.

        Raises:
            TypeError: something in it is neither an array nor a structure; the message says where. Or it has no end.
        """
        leaves: list[Any] = []
        try:
            skeleton, plain = _collect(value, leaves)
            layout = _known(skeleton, leaves) if plain else None
        except RecursionError:
            raise TypeError("this structure contains itself, or is nested too deeply to be reduced") from None
        if layout is None:
            packed = [_packed(leaf, skeleton, number) for number, leaf in enumerate(leaves)]
            layout = _layout(skeleton, tuple([one.spec for one in packed]))
            if plain and all(run.spec is None for run in layout.runs):
                _keep(skeleton, leaves, layout)
            leaves = [one.data for one in packed]
        return cls(value, skeleton, layout, leaves)

    @classmethod
    def known(cls, value: Any) -> Structure | None:
        """Takes a structure apart, if it is of plain numpy arrays only and one like it was there lately."""
        leaves: list[Any] = []
        skeleton, plain = _collect(value, leaves)
        layout = _known(skeleton, leaves) if plain else None
        return None if layout is None else cls(value, skeleton, layout, leaves)

    def filled(self, results: Sequence[npt.NDArray[Any]]) -> Any:
        """Returns a structure like this one whose arrays' elements are those of ``results``, one for each bucket."""
        arrays: list[Any] = []
        for run in self.layout.runs:
            part = results[run.bucket][run.elements]
            if run.count > 1:
                arrays.extend(part.reshape(run.count, *run.shape))  # numpy makes them in a fraction of a loop's time
            else:
                arrays.append(part.reshape(run.shape) if run.spec is None else unpack(run.spec, part))
        return _rebuilt(self._value, self._skeleton, iter(arrays))


def _filled(bucket: _Bucket, leaves: Sequence[Any]) -> Pieces:
    """Returns a bucket's elements. The arrays are C contiguous, or else plain ones of numpy."""
    own = leaves if len(bucket.places) == len(leaves) else [leaves[place] for place in bucket.places]
    if bucket.spec.nbytes <= _TINY_BYTES * len(own):
        # Python joins them in a fraction of the time that numpy takes to.
        with suppress(TypeError, ValueError):  # one is not contiguous, or of a dtype that is numpy's alone
            return Pieces([np.frombuffer(b"".join(own), bucket.spec.wire)], bucket.stops[-1:])
    return Pieces([one.ravel() for one in own], bucket.stops)


def _packed(leaf: Any, skeleton: Hashable, number: int) -> Packed:
    if is_array(leaf):
        return pack(leaf)
    path = next(islice(_paths(skeleton), number, None))
    raise TypeError(
        f"{path} is a {type(leaf).__name__}, and only numpy and MLX arrays can be reduced; make one of it, as in "
        "numpy.asarray(value)"
    )


def _collect(value: Any, leaves: list[Any]) -> tuple[Hashable, bool]:
    """Appends the arrays of a structure, in order, to ``leaves``.

    Returns:
        What it is but for them: its keys, if it has some, and what is below them: how many arrays, where there is
        nothing else. And whether they are all plain numpy arrays.
    """
    if isinstance(value, dict):
        items: Any = value.values()
        # A key may be equal to one of another type, which is another in words.
        said: Any = tuple(value), tuple(map(type, value))
    else:
        items, said = value, None
    if set(map(type, items)) == {np.ndarray}:  # nearly always
        leaves += items
        return (said, len(items)), True
    below, plain = [], True
    for item in items:
        inner = None
        if isinstance(item, _NESTS):
            inner, fits = _collect(item, leaves)
        else:
            leaves.append(item)
            fits = type(item) is np.ndarray
        below.append(inner)
        plain = plain and fits
    return (said, tuple(below)), plain


def _paths(skeleton: Any, path: str = "") -> Iterator[str]:
    """Returns where the arrays of a structure are, as Python has it."""
    said, below = skeleton
    if isinstance(below, int):
        below = (None,) * below
    for key, item in zip(range(len(below)) if said is None else said[0], below, strict=True):
        here = f"{path}[{key!r}]"
        if item is None:
            yield here
        else:
            yield from _paths(item, here)


@lru_cache(maxsize=64)
def _layout(skeleton: Hashable, specs: tuple[Spec, ...]) -> Layout:
    """Lays a structure out."""
    by_dtype: dict[str, list[int]] = {}
    for place, spec in enumerate(specs):
        by_dtype.setdefault(spec.name, []).append(place)
    starts: list[Any] = [None] * len(specs)
    buckets = []
    for index, (name, places) in enumerate(by_dtype.items()):
        stops = tuple(accumulate([prod(specs[place].shape) for place in places]))
        for place, start in zip(places, (0, *stops), strict=False):
            starts[place] = index, start
        wire = specs[places[0]].wire
        buckets.append(_Bucket(Spec("numpy", name, (stops[-1],), wire, wire), tuple(places), stops))
    said = ", ".join(f"{path}: {spec}" for path, spec in zip(_paths(skeleton), specs, strict=True))
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    short = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
    return Layout(tuple(buckets), _runs(starts, specs), f"{len(specs)} arrays {{{short}}} ({digest})")


def _runs(starts: Sequence[tuple[int, int]], specs: Sequence[Spec]) -> tuple[_Run, ...]:
    """Returns the runs of arrays whose bucket and place in it are ``starts``."""
    runs = []
    for (bucket, spec), group in groupby(zip(starts, specs, strict=True), lambda one: (one[0][0], one[1])):
        firsts = [start for (_, start), _ in group]
        first, count = firsts[0], len(firsts)
        plain, nelements = spec.kind == "numpy" and spec.dtype == spec.wire, prod(spec.shape)
        if plain and spec.shape:
            runs.append(_Run(bucket, slice(first, first + count * nelements), spec.shape, count, None))
            continue
        # Those without an axis would come out of their run as numbers.
        places = [slice(start, start + nelements) for start in firsts]
        runs += [_Run(bucket, place, spec.shape, 1, None if plain else spec) for place in places]
    return tuple(runs)


# The same structures come again and again in a training loop, and to tell that a dtype is the same object takes a
# fraction of what a spec does. Of each: the dtypes of its arrays, and its layout.
_Shapes: TypeAlias = "tuple[Hashable, tuple[tuple[int, ...], ...]]"
_known_layouts: dict[_Shapes, tuple[list[np.dtype[Any]], Layout]] = {}


def _known(skeleton: Hashable, leaves: list[Any]) -> Layout | None:
    """Returns the layout of a structure of plain numpy arrays, if such a one was there lately."""
    dtypes, layout = _known_layouts.get((skeleton, tuple(map(_shape, leaves))), (None, None))
    return layout if dtypes == list(map(_dtype, leaves)) else None


def _keep(skeleton: Hashable, leaves: list[Any], layout: Layout) -> None:
    if len(_known_layouts) >= _KEPT:
        _known_layouts.clear()  # in one step, beside other threads
    _known_layouts[skeleton, tuple(map(_shape, leaves))] = list(map(_dtype, leaves)), layout


def _rebuilt(value: Any, skeleton: Any, arrays: Iterator[Any]) -> Any:
    _, below = skeleton
    if isinstance(below, int):
        if isinstance(value, dict):
            return dict(zip(value, arrays, strict=False))  # which takes no array once there is no key
        made = list(islice(arrays, below))
    else:
        items: Any = value.values() if isinstance(value, dict) else value
        made = [
            next(arrays) if inner is None else _rebuilt(item, inner, arrays)
            for item, inner in zip(items, below, strict=True)
        ]
    if isinstance(value, dict):
        return dict(zip(value, made, strict=True))
    if isinstance(value, list):
        return made
    return type(value)(*made) if hasattr(value, "_fields") else tuple(made)
