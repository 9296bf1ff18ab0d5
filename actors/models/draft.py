"""A small model that guesses what a large one will say: its own caches, and its own random numbers, which are the same.

A guess is drawn as the large model will draw its token: with the same seed, from the probabilities of the small one.
So the two agree as often as two draws can, and what the large one says is what it would have said alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .sampler import Sampler
from .stage import Row, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    import mlx.core as mx

    from .sampling import Request
    from .stage import StageModel


@dataclass(slots=True)
class _Sequence:
    """An answer under way: what is known of it, and what of that (or of guesses) is in the draft's cache."""

    known: list[int]
    chunk: int
    sampler: Sampler
    mark: tuple[int, mx.array | None]
    inside: list[int] = field(default_factory=list)
    foreign: bool = False  # it has a token that the draft does not


class DraftModel:
    """Guesses the next tokens of several answers. All of it runs on one thread.

    Args:
        model: the draft, whole.
        vocabulary: token ids that the large model has; no others are guessed.
    """

    def __init__(self, model: StageModel, vocabulary: int) -> None:
        self._model, self._vocabulary = model, min(vocabulary, model.info.vocab_size)
        self._sequences: dict[str, _Sequence] = {}

    def begin(self, key: str, request: Request) -> None:
        """Take in an answer's prompt, but for its last token."""
        plain = replace(request, processor=None, sampling=replace(request.sampling, logprobs=None))
        sampler = Sampler(plain)
        known = [*request.prompt, *request.kept]
        self._sequences[key] = _Sequence(known, request.chunk, sampler, sampler.mark, foreign=self._is_foreign(known))
        if not self._sequences[key].foreign:
            self._take(key, known[:-1])

    def propose(self, key: str, new: Sequence[int], count: int) -> tuple[int, ...]:
        """The next tokens as the draft would have them; none where a token is not in its vocabulary.

        Args:
            key: of an answer that was begun.
            new: its tokens since the last time.
            count: how many to guess, at least 1.
        """
        sequence = self._sequences[key]
        sequence.foreign |= self._is_foreign(new)
        if sequence.foreign:
            return ()
        self._learn(key, sequence, new)
        self._take(key, sequence.known[len(sequence.inside) : -1])
        guesses: list[int] = []
        last = sequence.known[-1]
        for _ in range(count):
            last = self._guess(key, sequence, last)
            guesses.append(last)
        return tuple(guesses)

    def forget(self, key: str) -> None:
        """An answer is over."""
        if self._sequences.pop(key, None) is not None:
            self._model.run(Step(forget=(key,)))

    def _is_foreign(self, tokens: Sequence[int]) -> bool:
        return any(token >= self._model.info.vocab_size for token in tokens)

    def _learn(self, key: str, sequence: _Sequence, new: Sequence[int]) -> None:
        """Take what was really said into account, and back what was only guessed."""
        sequence.sampler.back(sequence.mark)
        same = min(len(sequence.inside), len(sequence.known))
        for token in new:
            sequence.sampler.skip(token)
        sequence.mark = sequence.sampler.mark
        sequence.known += new
        inside, known = sequence.inside, sequence.known[:-1]  # the last one is to be taken in, so that something comes
        while same < min(len(inside), len(known)) and inside[same] == known[same]:
            same += 1
        same = min(same, len(known))
        if (excess := len(inside) - same) > 0:
            self._model.run(Step(trim=((key, excess),)))
            del inside[same:]

    def _take(self, key: str, ids: Sequence[int]) -> None:
        sequence = self._sequences[key]
        for start in range(0, len(ids), sequence.chunk):
            piece = tuple(ids[start : start + sequence.chunk])
            self._model.run(Step((Row(key, piece),), silent=True), finish=lambda _: None)
            sequence.inside += piece

    def _guess(self, key: str, sequence: _Sequence, last: int) -> int:
        import mlx.core as mx

        def choose(logits: mx.array) -> int:
            token, logprobs = sequence.sampler.lazily(logits[:, -1, : self._vocabulary])
            mx.eval(token)
            return sequence.sampler.tell(token, logprobs).id

        guess: int = self._model.run(Step((Row(key, (last,)),)), finish=choose)
        sequence.inside.append(last)
        return guess
