"""One stage of a model cut by layers: its slice of the weights, and the caches of the sequences under way.

A stage knows nothing of actors or networks. It is not safe to use from several threads: one thread of a process
should load it and call it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import mlx.core as mx

from actors.exceptions import ModelError

from .checkpoint import open_checkpoint
from .cut import Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .checkpoint import ModelInfo

_PROBES: Final = 3  # the first one brings up what the others need


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
        rows: sequences that are taken further; all by the same number of tokens.
    """

    rows: tuple[Row, ...] = ()
    forget: tuple[str, ...] = ()


class StageModel:
    """Layers `first` to `last`, both inclusive, of a model. Make one with `load`."""

    def __init__(self, info: ModelInfo, piece: Slice) -> None:
        self.info = info
        self._slice = piece
        self._caches: dict[str, list[Any]] = {}

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
    def sequences(self) -> tuple[str, ...]:
        """Keys of the sequences that have a cache here."""
        return tuple(self._caches)

    def run(self, step: Step, hidden: mx.array | None = None, finish: Callable[[mx.array], Any] | None = None) -> Any:
        """Take sequences through this stage's layers. A sequence's cache is made at its first row.

        Args:
            step: the sequences with their next tokens, the same in every stage.
            hidden: (rows, tokens, hidden size) from the stage before; None in the first.
            finish: is given the output, not computed yet: hidden states (rows, tokens, hidden size) or, in the last
                stage, logits (rows, tokens, vocabulary). None: computes it.

        Returns:
            What `finish` gave; None where there are no rows.

        Raises:
            ValueError: a row without tokens or with another number of them, a token the vocabulary does not have, or
                hidden states that do not fit.
        """
        self.forget(*step.forget)
        if not step.rows:
            return None
        self._check_rows(step.rows)
        self._check_hidden(step.rows, hidden)
        outs, states = [], []
        for number, row in enumerate(step.rows):
            cache = self._caches.get(row.key)
            if cache is None:
                cache = self._caches[row.key] = self._slice.make_cache()
            inward = None if hidden is None else hidden[number : number + 1]
            outs.append(self._slice(mx.array([row.ids]), cache, inward))
            states += [each.state for each in cache]
        value = (finish or _computed)(outs[0] if len(outs) == 1 else mx.concatenate(outs))
        mx.eval(states)
        return value

    def probe(self) -> tuple[float, int]:
        """Measure: seconds that one token takes in this stage, and bytes that one takes in its caches."""
        width = self.info.hidden_size
        hidden = None if self._slice.is_first else mx.zeros((1, 1, width), self._slice.dtype)
        row, seconds = Step((Row("probe", (0,)),)), []
        for _ in range(_PROBES):
            start = time.perf_counter()
            self.run(row, hidden)
            seconds.append(time.perf_counter() - start)
        nbytes = sum(_token_nbytes(each) for each in self._caches["probe"])
        self.forget("probe")
        return min(seconds), nbytes

    def forget(self, *keys: str) -> None:
        """Drop the caches of sequences; nothing happens where there is none."""
        for key in keys:
            self._caches.pop(key, None)

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

    def _check_hidden(self, rows: Sequence[Row], hidden: mx.array | None) -> None:
        shape = None if self._slice.is_first else (len(rows), len(rows[0].ids), self.info.hidden_size)
        found = None if hidden is None else hidden.shape
        if found != shape:
            raise ValueError(
                f"the stage of layers {self.first} to {self.last} needs a hidden state of shape {shape} and got {found}"
            )


def _token_nbytes(cache: Any) -> int:
    """Bytes of one more token; a cache of states does not grow."""
    keys = getattr(cache, "keys", None)
    return int(cache.nbytes // keys.shape[-2]) if isinstance(keys, mx.array) else 0


def _computed(out: mx.array) -> mx.array:
    mx.eval(out)
    return out
