"""One stage of a model cut by layers: its slice of the weights, and the caches of the sequences under way.

A stage knows nothing of actors or networks. It is not safe to use from several threads: one thread of a process
should load it and call it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import mlx.core as mx
from mlx_lm.models.cache import can_trim_prompt_cache

from actors.exceptions import ModelError

from .batch import Caches
from .beside import Bystander
from .checkpoint import open_checkpoint
from .cut import Slice, needed_nbytes
from .heap import give_back
from .openblas import widen
from .saved import cache_copy, has_size, restore, save, tail, token_nbytes
from .sharing import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mlx import nn

    from .beside import Beside
    from .checkpoint import Checkpoint, ModelInfo
    from .saved import Saved
    from .sharing import Share
    from .tensor import Joining


_TIMES: Final = 8  # the last so many tokens tell how long one takes


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
        trim: sequences under way, each with how many of its last tokens are taken back, before anything else is done.
        rows: sequences that are taken further; all by the same number of tokens.
        silent: nobody wants to know what comes next.
        batched: rows go through as one matrix, rather than one by one; they round differently.
    """

    rows: tuple[Row, ...] = ()
    forget: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    fork: tuple[tuple[str, str, int], ...] = ()
    drop: tuple[str, ...] = ()
    trim: tuple[tuple[str, int], ...] = ()
    silent: bool = False
    batched: bool = False


@dataclass(frozen=True, slots=True)
class Apart:
    """What a layer gave for each row, where that is more than one array and so cannot be put together."""

    rows: tuple[Any, ...]


class StageModel:
    """Layers `first` to `last`, both inclusive, of a model. Make one with `load`.

    Attributes:
        info: what the whole model is.
        wide: its weights are in float32, whatever they are on disk.
    """

    def __init__(self, info: ModelInfo, piece: Slice, joining: Joining | None = None, *, wide: bool = False) -> None:
        self.info = info
        self.wide = wide
        self._joining = joining
        self._took: deque[float] = deque(maxlen=_TIMES)
        self._slice = piece
        self._caches = Caches()
        self._kept: dict[str, list[Any]] = {}
        self._beside: dict[str, Bystander] = {}

    @classmethod
    def load(cls, path: str | Path, first: int, last: int, *, wide: float = 0, like: StageModel | None = None) -> Self:
        """Bring the weights of these layers, and of the ends they touch, into memory.

        Args:
            path: file or directory.
            first: number of the first layer.
            last: number of the last one, inclusive.
            wide: have the weights in float32 if they then take so many bytes at most.
            like: has layers of the same model, which are shared rather than loaded again.

        Raises:
            ModelError: see `checkpoint.open_checkpoint`; or the model has no such layers.
        """
        checkpoint = open_checkpoint(path)
        info = checkpoint.info()
        if not 0 <= first <= last < info.layers:
            raise ModelError(f"layers {first} to {last} of {path}: the model has the layers 0 to {info.layers - 1}")
        found = None if like is None else _extended(checkpoint, like, first, last, wide)
        model, widened = found or _loaded(checkpoint, first, last, wide)
        piece = Slice(model, first, last)
        piece.load()
        give_back()
        return cls(info, piece, wide=widened)

    def emptied(self) -> Self:
        """The same layers, for other sequences."""
        return type(self)(self.info, self._slice, self._joining, wide=self.wide)

    def lend(self, model: nn.Module, first: int, last: int) -> None:
        """See `cut.Slice.lend`."""
        self._slice.lend(model, first, last)

    @classmethod
    def load_share(cls, path: str | Path, shares: Sequence[Share], rank: int, *, wide: float = 0) -> Self:
        """Bring the part of all layers that one rank has into memory.

        Raises:
            ModelError: as for `load`, or the model is not of the Llama family.
        """
        from .tensor import Joining, narrow

        checkpoint = open_checkpoint(path)
        info = checkpoint.info()
        model, widened = _loaded(checkpoint, 0, info.layers - 1, wide * len(shares))
        joining = Joining([len(share.words) for share in shares])
        narrow(model, shares[rank], Shape.of(checkpoint.config, info.layers, info.vocab_size), joining)
        piece = Slice(model, 0, info.layers - 1)
        piece.load()
        give_back()
        return cls(info, piece, joining, wide=widened)

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

    @property
    def seconds(self) -> float:
        """What one token of one sequence took here of late, at best; infinite where there was none."""
        return min(self._took, default=math.inf)

    @property
    def unbatched(self) -> str:
        """The kind of cache that several sequences cannot have together; empty where all can."""
        kinds = (type(each) for each in self._slice.make_cache() if each is not None)
        return next((kind.__name__ for kind in kinds if not hasattr(kind, "merge")), "")

    def token_nbytes(self, key: str) -> int:
        """Bytes that one more token of a sequence takes in its caches."""
        return sum(token_nbytes(each) for each in self._caches.get(key, ()))

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
        for row in step.rows:
            if row.key not in self._caches:
                self._caches[row.key] = self._slice.make_cache()
        out, caches = (self._together if step.batched and len(step.rows) > 1 else self._apart)(step.rows, hidden)
        value = (finish or computed)(out)
        mx.eval([each.state for each in caches if each is not None])
        if len(step.rows) == len(step.rows[0].ids) == 1:
            self._took.append(time.perf_counter() - start)
        return value

    def _together(self, rows: Sequence[Row], hidden: Any) -> tuple[Any, list[Any]]:
        keys = [row.key for row in rows]
        self._stand_by(keys, alone=False)
        caches = self._caches.together(keys)
        return self._slice(mx.array([row.ids for row in rows]), caches, hidden), caches

    def _apart(self, rows: Sequence[Row], hidden: Any) -> tuple[Any, list[Any]]:
        outs, caches = [], []
        for number, row in enumerate(rows):
            own = self._caches[row.key]
            inward = _row(hidden, number) if len(rows) > 1 else hidden
            self._stand_by((row.key,), alone=len(rows) == 1)
            outs.append(self._slice(mx.array([row.ids]), own, inward))
            caches += own
        return _joined(outs), caches

    def can_fork(self, key: str, tokens: int, length: int) -> bool:
        """Whether the cache of a sequence that is kept, or will be by the next step, can be cut to a length."""
        cache = self._kept.get(key) or self._caches.peek(key)
        return cache is not None and (length == tokens or can_trim_prompt_cache(cache))

    def save(self, key: str, wanted: Sequence[int]) -> Saved | None:
        """The caches of a sequence as values, None if there is none; see `saved.save`.

        Args:
            key: of the sequence, under way or kept.
            wanted: places of the caches whose arrays are wanted; of those that are here they are given.
        """
        found = self._caches.get(key) or self._kept.get(key)
        return None if found is None else save(found, set(wanted) & set(self.own))

    def tail(self, key: str, start: int, stop: int) -> dict[int, tuple[mx.array, mx.array]]:
        """Keys and values of some tokens of a sequence, the last ones, by the places of the caches that are here.

        Args:
            key: of a sequence, under way or kept, with full attention.
            start: how many tokens come before.
            stop: how many it has; where it has not, as a step has failed, nothing is given.
        """
        caches = self._caches.peek(key) or self._kept.get(key)
        if caches is None or not all(has_size(caches[place], stop) for place in self.own):
            return {}
        found = {place: tail(caches[place], self._caches.row(key), stop - start) for place in self.own}
        mx.eval(list(found.values()))
        return found

    def restore(self, key: str, saved: Mapping[int, Any], *, kept: bool = False) -> None:
        """Make what was saved the caches of a sequence, of one that is `kept` for others or of one under way."""
        where = self._kept if kept else self._caches
        where[key] = restore(self._slice.make_cache(), saved, self.own)

    @property
    def own(self) -> Sequence[int]:
        """Places of the caches of the layers that are here, known once a sequence has passed."""
        return self._slice.own

    def attach(self, key: str, beside: Beside) -> None:
        """Have a user's code stand beside layers for a sequence that is to come."""
        mine = beside.within(self.first, self.last)
        self._beside[key] = Bystander(mine)
        for number in mine.layers:
            self._slice.tap(number)

    def seen(self, key: str) -> Bystander | None:
        """What stands beside a sequence."""
        return self._beside.get(key)

    def detach(self, key: str) -> None:
        """A sequence is over for whoever stood beside it."""
        self._beside.pop(key, None)

    def _stand_by(self, keys: Sequence[str], *, alone: bool) -> None:
        """Say whose rows pass next, in this order."""
        rows = [(number, self._beside[key]) for number, key in enumerate(keys) if key in self._beside]

        def passes(layer: int, hidden: mx.array) -> mx.array:
            for number, bystander in rows:
                if layer in bystander.layers:
                    changed = bystander.passes(layer, hidden[number], alone=alone)
                    if changed is not hidden:
                        hidden = mx.concatenate([hidden[:number], changed[None], hidden[number + 1 :]])
            return hidden

        self._slice.beside = passes if rows else None

    def _arrange(self, step: Step) -> None:
        for key, count in step.trim:
            for cache in self._caches.get(key, ()):
                if cache is not None:
                    cache.trim(count)
        for key in step.forget:
            self._caches.pop(key, None)
        if step.forget and not self._caches:
            give_back()
        for key in step.keep:
            if (cache := self._caches.pop(key, None)) is not None:
                self._kept[key] = cache
        for source, key, length in step.fork:
            self._caches[key] = [cache_copy(each, length) for each in self._kept[source]]
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
        found = None if hidden is None else _shape(hidden)
        if found != shape and (found is None or shape is None or found[:2] != shape[:2] or len(found) == 3):
            raise ValueError(
                f"the stage of layers {self.first} to {self.last} needs a hidden state of shape {shape} and got {found}"
            )


def _loaded(checkpoint: Checkpoint, first: int, last: int, wide: float) -> tuple[nn.Module, bool]:
    """The model, lazy, and whether it is in float32, which it is if what is needed of it takes `wide` bytes at most."""
    if wide:
        model = widen(checkpoint.load(first, last))
        if needed_nbytes(model, first, last) <= wide:
            return model, True
    return checkpoint.load(first, last), False


def _extended(
    checkpoint: Checkpoint, like: StageModel, first: int, last: int, wide: float
) -> tuple[nn.Module, bool] | None:
    """The same with what another slice has; None where nothing is gained by it."""
    missing = [number for number in range(first, last + 1) if not like.first <= number <= like.last]
    apart = bool(missing) and missing[-1] - missing[0] >= len(missing)
    if apart or len(missing) > last - first or (like.wide and not wide):
        return None
    # Where none are missing, a range without layers is asked for, as its ends are here or are nobody's.
    wanted = (missing[0], missing[-1]) if missing else (1, 0)
    model = checkpoint.load(*wanted)
    if like.wide:
        model = widen(model)
    like.lend(model, first, last)
    if like.wide and needed_nbytes(model, first, last) > wide:
        return None
    return model, like.wide


def _shape(hidden: Any) -> tuple[int, ...]:
    """Of the hidden states of all rows, in what a layer gave."""
    if isinstance(hidden, Apart):
        return len(hidden.rows), *_shape(hidden.rows[0])[1:]
    return tuple((hidden[0] if isinstance(hidden, tuple | list) else hidden).shape)


def _row(hidden: Any, number: int) -> Any:
    if hidden is None:
        return None
    return hidden.rows[number] if isinstance(hidden, Apart) else hidden[number : number + 1]


def _joined(outs: Sequence[Any]) -> Any:
    """The rows of one step as one value, as they were one by one."""
    if len(outs) == 1:
        return outs[0]
    if not all(map(_is_array, outs)):
        return Apart(tuple(outs))
    return mx.concatenate(list(outs))


def _is_array(value: Any) -> bool:
    return isinstance(value, mx.array)


def computed(out: Any) -> Any:
    """What a stage gave, once it is no longer lazy."""
    mx.eval(out.rows if isinstance(out, Apart) else out)
    return out
