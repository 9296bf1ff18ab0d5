"""One stage of a model cut by layers: its slice of the weights, and the caches of the sequences under way.

A stage knows nothing of actors or networks. It is not safe to use from several threads: one thread of a process
should load it and call it.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Self

import mlx.core as mx

from actors.exceptions import ModelError

from .checkpoint import open_checkpoint
from .cut import Slice
from .generate import Sampling, generate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator, Sequence
    from pathlib import Path

    from .checkpoint import ModelInfo


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
    def nbytes(self) -> int:
        """Bytes of the weights held, without caches."""
        return self._slice.nbytes

    @property
    def sequences(self) -> tuple[str, ...]:
        """Keys of the sequences that have a cache here."""
        return tuple(self._caches)

    def forward(self, key: str, token_ids: Sequence[int], hidden: mx.array | None = None) -> mx.array:
        """Take the next tokens of sequence `key` through this stage's layers.

        Args:
            key: names the sequence; its cache is made at the first call and kept until `forget`.
            token_ids: the tokens, the same in every stage.
            hidden: (1, tokens, hidden size) from the stage before; None in the first.

        Returns:
            Evaluated: the hidden state (1, tokens, hidden size), or in the last stage logits (1, tokens, vocabulary).

        Raises:
            ValueError: no tokens, a token the vocabulary does not have, or a hidden state that does not fit.
        """
        out: mx.array = self._advance(key, token_ids, hidden, lambda out: out)
        return out

    def forget(self, key: str) -> None:
        """Drop the cache of a sequence; nothing happens if there is none."""
        self._caches.pop(key, None)

    def generate(
        self,
        key: str,
        prompt_ids: Sequence[int],
        upstream: Callable[[list[int]], mx.array] | None,
        **sampling: Any,
    ) -> Iterator[int]:
        """Yield the tokens that follow a prompt; see `steps` for the arguments and errors."""
        return _tokens(self.steps(key, prompt_ids, upstream, **sampling))

    def steps(
        self,
        key: str,
        prompt_ids: Sequence[int],
        upstream: Callable[[list[int]], mx.array] | None,
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_ids: Collection[int] = (),
    ) -> Generator[int | None, None, None]:
        """Yield the tokens that follow a prompt, and None after each piece of a long prompt; only in the last stage.

        Between two steps, other sequences may be taken further.

        Args:
            key: names the sequence, which must be new here; its cache here is dropped when the iterator ends or is
                closed. The stages before keep theirs until they are told to `forget`.
            prompt_ids: tokens of the prompt, at least one.
            upstream: takes tokens through all earlier stages and gives the last of their hidden states; None if this
                stage is the whole model.
            max_tokens: how many tokens at most.
            temperature: 0 for the likeliest token each time: exactly those of the model run whole by mlx-lm.
            top_p: see `generate.Sampling`.
            seed: see `generate.Sampling`.
            stop_ids: tokens that end the answer; the one that did is yielded too.

        Raises:
            ValueError: an argument out of its range.
            ModelError: this is not the last stage.
        """
        if not self._slice.is_last:
            raise ModelError(
                f"tokens come from the last stage; this one ends at layer {self.last} of {self.info.layers}"
            )
        if (upstream is None) != self._slice.is_first:
            raise ValueError(f"upstream is {upstream!r} in a stage that begins at layer {self.first}")
        if key in self._caches:
            raise ValueError(f"the sequence {key!r} is under way already; give each its own key")
        sampling = Sampling(temperature, top_p, seed)
        self._check_tokens(prompt_ids)
        steps = generate(
            _Pipeline(self, key, upstream),
            list(prompt_ids),
            max_tokens=max_tokens,
            sampling=sampling,
            stop_ids=frozenset(stop_ids),
        )
        return self._forgetting(key, steps)

    def _forgetting(self, key: str, steps: Iterator[int | None]) -> Generator[int | None, None, None]:
        try:
            yield from steps
        finally:
            self.forget(key)

    def _advance(
        self,
        key: str,
        ids: Sequence[int],
        hidden: mx.array | None,
        want: Callable[[mx.array], mx.array | None],
    ) -> Any:
        """One forward pass; `want` picks what of its output is computed."""
        self._check_tokens(ids)
        self._check_hidden(len(ids), hidden)
        cache = self._caches.get(key)
        if cache is None:
            cache = self._caches[key] = self._slice.make_cache()
        out = want(self._slice(mx.array([ids]), cache, hidden))
        mx.eval(out, [each.state for each in cache])
        return out

    def _check_tokens(self, ids: Sequence[int]) -> None:
        if not len(ids):
            raise ValueError("no tokens were given; at least one is needed")
        size = self.info.vocab_size
        bad = next((each for each in ids if not 0 <= each < size), None)
        if bad is not None:  # MLX would read whatever lies beyond the table
            raise ValueError(f"token {bad} is not in the vocabulary, which has the ids 0 to {size - 1}")

    def _check_hidden(self, count: int, hidden: mx.array | None) -> None:
        shape = None if self._slice.is_first else (1, count, self.info.hidden_size)
        found = None if hidden is None else hidden.shape
        if found != shape:
            raise ValueError(
                f"the stage of layers {self.first} to {self.last} needs a hidden state of shape {shape} for {count} "
                f"tokens and got {found}"
            )


def _tokens(steps: Generator[int | None, None, None]) -> Iterator[int]:
    with closing(steps):
        yield from (token for token in steps if token is not None)


class _Pipeline:
    """What `generate` asks, answered by the stages before and the last one; see `generate.Steps`."""

    def __init__(self, stage: StageModel, key: str, upstream: Callable[[list[int]], mx.array] | None) -> None:
        self._stage, self._key, self._upstream = stage, key, upstream

    def prefill(self, ids: Sequence[int]) -> None:
        self._run(ids, lambda _: None)

    def logits(self, ids: Sequence[int]) -> mx.array:
        out: mx.array = self._run(ids, lambda out: out[:, -1, :])
        return out

    def _run(self, ids: Sequence[int], want: Callable[[mx.array], mx.array | None]) -> Any:
        hidden = None if self._upstream is None else self._upstream(list(ids))
        return self._stage._advance(self._key, ids, hidden, want)  # noqa: SLF001 - a part of it
