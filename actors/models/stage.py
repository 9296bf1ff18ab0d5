"""One stage of a model cut by layers: its slice of the weights, and the caches of the sequences under way.

A stage knows nothing of actors or networks. It is not safe to use from several threads: one thread of a process
should load it and call it.
"""

from __future__ import annotations

import math
import time
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.models.cache import CacheList, can_trim_prompt_cache

from actors.exceptions import ModelError

from .checkpoint import open_checkpoint
from .cut import Slice
from .sharing import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .checkpoint import ModelInfo
    from .sharing import Share
    from .tensor import Joining


@dataclass(frozen=True, slots=True)
class Row:
    """The next tokens of one sequence."""

    key: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What all stages do next, in the same order.

    Attributes:
        forget: sequences whose caches are dropped first.
        keep: sequences that are over, whose caches are kept for others that begin alike.
        fork: a sequence that is kept, one that begins with its tokens, and how many of them.
        drop: sequences that are kept no longer.
        rows: sequences that are taken further; all by the same number of tokens.
        silent: nobody wants to know what comes next.
    """

    rows: tuple[Row, ...] = ()
    forget: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    fork: tuple[tuple[str, str, int], ...] = ()
    drop: tuple[str, ...] = ()
    silent: bool = False


class StageModel:
    """Layers `first` to `last`, both inclusive, of a model. Make one with `load`.

    Attributes:
        info: what the whole model is.
        seconds: that one token of one sequence took here, at best.
    """

    def __init__(self, info: ModelInfo, piece: Slice, joining: Joining | None = None) -> None:
        self.info = info
        self._joining = joining
        self.seconds = math.inf
        self._slice = piece
        self._caches: dict[str, list[Any]] = {}
        self._kept: dict[str, list[Any]] = {}

    @classmethod
    def load(cls, path: str | Path, first: int, last: int) -> Self:
        """Bring the weights of these layers, and of the ends they touch, into memory.

        Raises:
            ModelError: see `checkpoint.open_checkpoint`; or the model has no such layers.
        """
        checkpoint = open_checkpoint(path)
        info = checkpoint.info()
        if not 0 <= first <= last < info.layers:
            raise ModelError(f"layers {first} to {last} of {path}: the model has the layers 0 to {info.layers - 1}")
        piece = Slice(checkpoint.load(first, last), first, last)
        piece.load()
        return cls(info, piece)

    @classmethod
    def load_share(cls, path: str | Path, shares: Sequence[Share], rank: int) -> Self:
        """Bring the part of all layers that one rank has into memory.

        Raises:
            ModelError: as for `load`, or the model is not of the Llama family.
        """
        from .tensor import Joining, narrow

        checkpoint = open_checkpoint(path)
        info = checkpoint.info()
        model = checkpoint.load(0, info.layers - 1)
        joining = Joining([len(share.words) for share in shares])
        narrow(model, shares[rank], Shape.of(checkpoint.config, info.layers, info.vocab_size), joining)
        piece = Slice(model, 0, info.layers - 1)
        piece.load()
        mx.clear_cache()
        return cls(info, piece, joining)

    @property
    def first(self) -> int:
        """Number of the first layer here."""
        return self._slice.first

    @property
    def last(self) -> int:
        """Number of the last layer here."""
        return self._slice.last

    @property
    def is_last(self) -> bool:
        """Whether logits come out, rather than hidden states."""
        return self._slice.is_last

    @property
    def nbytes(self) -> int:
        """Bytes of the weights held, without caches."""
        return self._slice.nbytes

    def token_nbytes(self, key: str) -> int:
        """Bytes that one more token of a sequence takes in its caches."""
        return sum(_token_nbytes(each) for each in self._caches.get(key, ()))

    @property
    def sequences(self) -> tuple[str, ...]:
        """Keys of the sequences that have a cache here."""
        return tuple(self._caches)

    def run(self, step: Step, hidden: Any = None, finish: Callable[[Any], Any] | None = None) -> Any:
        """Take sequences through this stage's layers. A sequence's cache is made at its first row.

        Args:
            step: the sequences with their next tokens, the same in every stage.
            hidden: (rows, tokens, hidden size), or whatever else the stage before gave; None in the first.
            finish: is given the output, not computed yet: what the next stage needs or, in the last one, logits
                (rows, tokens, vocabulary). None: computes it.

        Returns:
            What `finish` gave; None where there are no rows.

        Raises:
            ValueError: a row without tokens or with another number of them, a token the vocabulary does not have, or
                hidden states that do not fit.
        """
        self._arrange(step)
        if not step.rows:
            return None
        self._check_rows(step.rows)
        self._check_hidden(step.rows, hidden)
        if self._joining is not None:
            self._joining.silent = step.silent
        start = time.perf_counter()
        outs, states = [], []
        for number, row in enumerate(step.rows):
            cache = self._caches.get(row.key)
            if cache is None:
                cache = self._caches[row.key] = self._slice.make_cache()
            inward = _row(hidden, number) if len(step.rows) > 1 else hidden
            outs.append(self._slice(mx.array([row.ids]), cache, inward))
            states += [each.state for each in cache if each is not None]
        value = (finish or _computed)(_joined(outs))
        mx.eval(states)
        if len(step.rows) == len(step.rows[0].ids) == 1:
            self.seconds = min(self.seconds, time.perf_counter() - start)
        return value

    def can_fork(self, key: str, tokens: int, length: int) -> bool:
        """Whether the cache of a sequence that is kept, or will be by the next step, can be cut to a length."""
        cache = self._kept.get(key) or self._caches.get(key)
        return cache is not None and (length == tokens or can_trim_prompt_cache(cache))

    def _arrange(self, step: Step) -> None:
        for key in step.forget:
            self._caches.pop(key, None)
        for key in step.keep:
            if (cache := self._caches.pop(key, None)) is not None:
                self._kept[key] = cache
        for source, key, length in step.fork:
            self._caches[key] = [_copy(each, length) for each in self._kept[source]]
        for key in step.drop:
            self._kept.pop(key, None)

    def _check_rows(self, rows: Sequence[Row]) -> None:
        size = self.info.vocab_size
        lengths = {len(row.ids) for row in rows}
        if len(lengths) > 1:
            raise ValueError(f"rows of {sorted(lengths)} tokens cannot go together")
        for row in rows:
            if not row.ids:
                raise ValueError("no tokens were given; at least one is needed")
            bad = next((each for each in row.ids if not 0 <= each < size), None)
            if bad is not None:  # MLX would read whatever lies beyond the table
                raise ValueError(f"token {bad} is not in the vocabulary, which has the ids 0 to {size - 1}")

    def _check_hidden(self, rows: Sequence[Row], hidden: Any) -> None:
        shape = None if self._slice.is_first else (len(rows), len(rows[0].ids), self.info.hidden_size)
        found = None if hidden is None else _first(hidden).shape
        if found != shape and (found is None or shape is None or found[:2] != shape[:2] or len(found) == 3):
            raise ValueError(
                f"the stage of layers {self.first} to {self.last} needs a hidden state of shape {shape} and got {found}"
            )


def _first(hidden: Any) -> mx.array:
    """The hidden state itself, of what a layer gave."""
    first: mx.array = hidden[0] if isinstance(hidden, tuple | list) else hidden
    return first


def _row(hidden: Any, number: int) -> Any:
    return tree_map(lambda array: array[number : number + 1] if isinstance(array, mx.array) else array, hidden)


def _joined(outs: Sequence[Any]) -> Any:
    """The rows of one step as one value, as they were one by one."""
    if len(outs) == 1:
        return outs[0]
    first, *others = outs
    return tree_map(lambda array, *more: mx.concatenate([array, *more]) if _is_array(array) else array, first, *others)


def _is_array(value: Any) -> bool:
    return isinstance(value, mx.array)


def _computed(out: Any) -> Any:
    mx.eval(out)
    return out


def _copy(cache: Any, length: int) -> Any:
    """A cache that begins as another one does; what they have in common is copied when one of them changes it."""
    if cache is None:
        return None
    new = copy(cache)
    new.state = tree_map(lambda value: mx.array(value) if _is_array(value) else value, cache.state)
    size = _size(new)
    if size is not None and size > length:
        new.trim(size - length)
    return new


def _size(cache: Any) -> int | None:
    """How many tokens it holds, or has seen; None where it does not count them."""
    if isinstance(cache, CacheList):
        return next((size for size in map(_size, cache.caches) if size is not None), None)
    return getattr(cache, "offset", None)


def _token_nbytes(cache: Any) -> int:
    """Bytes of one more token; a cache of states does not grow."""
    if isinstance(cache, CacheList):
        return sum(map(_token_nbytes, cache.caches))
    keys = getattr(cache, "keys", None)
    return int(cache.nbytes // keys.shape[-2]) if isinstance(keys, mx.array) else 0
