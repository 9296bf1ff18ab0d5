"""Caches of a sequence as values: taken out of one stage, sent, and put into another, however each is cut.

A stage has a cache for every layer, those of other stages being nearly empty (see `cut`). So what is sent is named by
its place in that list: the arrays of layers that the sender has, and of all others the shapes alone, from which the
receiver makes what its own ghosts would have.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models.cache import CacheList, ConcatenateKVCache, KVCache, QuantizedKVCache

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


_TRIMMED: Final = (KVCache, QuantizedKVCache, ConcatenateKVCache)  # others forget what they would have to go back to


@dataclass(frozen=True, slots=True)
class Ghost:
    """What a ghost's cache has in place of an array of this shape."""

    shape: tuple[int, ...]

    def make(self) -> mx.array:
        """Zeros that take hardly any room: as long, but one number wide."""
        rows = self.shape[0]
        return mx.zeros((rows, 1, self.shape[2], 1) if len(self.shape) == 4 else (rows, 1))


Saved = dict[int, Any]
"""States of caches by their places in the list of all; of a layer that is elsewhere, `Ghost`s instead of arrays."""


def save(caches: Sequence[Any], wanted: Collection[int]) -> Saved:
    """The states of a sequence's caches, computed: of the places that are `wanted` with arrays, else their shapes."""
    saved = {}
    for place, cache in enumerate(caches):
        if cache is not None:
            state = _trimmed(cache)
            saved[place] = state if place in wanted else tree_map(_shape, state)
    mx.eval([array for array in _leaves(list(saved.values())) if isinstance(array, mx.array)])
    return saved


def restore(fresh: list[Any], saved: Mapping[int, Any], own: Collection[int]) -> list[Any]:
    """Fill caches just made with what was saved.

    Args:
        fresh: a cache for every layer.
        saved: all places; with arrays those in `own`.
        own: places of the layers that are here.
    """
    for place, cache in enumerate(fresh):
        if cache is not None:
            cache.state = tree_map(_array if place in own else _ghost, saved[place])
    return fresh


def joined(parts: Sequence[Saved]) -> Saved:
    """What several stages saved of one sequence; arrays win over shapes."""
    whole: Saved = {}
    for part in parts:
        for place, state in part.items():
            if place not in whole or any(isinstance(each, mx.array) for each in _leaves(state)):
                whole[place] = state
    return whole


def tail(cache: Any, row: int, count: int) -> tuple[mx.array, mx.array]:
    """Keys and values of the last tokens of a sequence, lazy, which ends where all others in this cache end."""
    end = cache.offset if type(cache) is KVCache else cache._idx  # noqa: SLF001
    keys, values = (each[row : row + 1, :, end - count : end] for each in (cache.keys, cache.values))
    return keys, values


def plain_state(keys: mx.array | Ghost, values: mx.array | Ghost) -> Any:
    """The state of a cache of full attention that has just these, whatever else this version of mlx-lm has in it."""
    cache: Any = KVCache()
    cache.keys, cache.values, cache.offset = keys, values, keys.shape[2]
    return cache.state


def has_size(cache: Any, tokens: int) -> bool:
    """Whether a sequence that is said to have so many tokens has them; of those side by side that is not known."""
    return type(cache) is not KVCache or cache.offset == tokens


def cache_copy(cache: Any, length: int) -> Any:
    """A cache that begins as another one does; what they have in common is copied when one of them changes it."""
    if cache is None:
        return None
    new = copy(cache)
    new.state = tree_map(lambda value: mx.array(value) if isinstance(value, mx.array) else value, cache.state)
    size = cache_size(new)
    if size is not None and size > length:
        new.trim(size - length)
    return new


def cache_size(cache: Any) -> int | None:
    """How many tokens it holds, or has seen; None where it does not count them."""
    if isinstance(cache, CacheList):
        return next((size for size in map(cache_size, cache.caches) if size is not None), None)
    return getattr(cache, "offset", None)


def untrimmable(caches: Sequence[Any]) -> str:
    """The kind of cache whose last tokens cannot be taken back, however many it has; empty where all can."""
    for cache in caches:
        inner = untrimmable(cache.caches) if isinstance(cache, CacheList) else ""
        if inner or not (cache is None or type(cache) in (*_TRIMMED, CacheList)):
            return inner or type(cache).__name__
    return ""


def token_nbytes(cache: Any) -> int:
    """Bytes of one more token; a cache of states does not grow."""
    if isinstance(cache, CacheList):
        return sum(map(token_nbytes, cache.caches))
    keys = getattr(cache, "keys", None)
    return int(cache.nbytes // keys.shape[-2]) if isinstance(keys, mx.array) else 0


def _trimmed(cache: Any) -> Any:
    """Its state, without the room that mlx-lm keeps for tokens to come."""
    if type(cache) is not KVCache or cache.keys is None or cache.values is None:
        return cache.state
    kept: Any = copy(cache)
    kept.keys, kept.values = cache.keys[..., : cache.offset, :], cache.values[..., : cache.offset, :]
    return kept.state


def _shape(value: Any) -> Any:
    return Ghost(value.shape) if isinstance(value, mx.array) else value


def _array(value: Any) -> Any:
    assert not isinstance(value, Ghost), "a layer of this stage that nobody sent"
    return value


def _ghost(value: Any) -> Any:
    return (
        Ghost(value.shape).make()
        if isinstance(value, mx.array)
        else value.make()
        if isinstance(value, Ghost)
        else value
    )


def _leaves(tree: Any) -> list[Any]:
    pairs: Any = tree_flatten(tree)
    return [leaf for _, leaf in pairs]
