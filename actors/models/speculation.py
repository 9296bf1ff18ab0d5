"""Guesses of a draft model, taken through the pipeline with the token that is due, as far as they turn out right.

Where several tokens go through a stage in one product, the guesses go in one step, and rows of a product add up as
those of a prompt's chunk do. Where products gain nothing from more rows, each goes in a step of its own behind the one
before it: so the stages are busy with guesses while they would wait, and the arithmetic is that of one token a step.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorsError

from .pace import Pace
from .stage import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import mlx.core as mx

    from actors.handle import ActorHandle

    from .entry import Entry
    from .sampler import Choice

    Chosen = tuple[list[Choice | Exception], bool]


class Speculation:
    """The draft model as the schedule sees it. All of it runs on the schedule's event loop.

    Args:
        draft: a `draftactor.DraftActor`.
        split: guesses go one a step, as the stages gain nothing from several tokens in one.
    """

    def __init__(self, draft: ActorHandle, *, split: bool) -> None:
        self._draft, self.split = draft, split
        self._paces: dict[str, Pace] = {}
        self._begun: dict[str, Any] = {}  # what the draft answered, once it has taken in the prompt
        self._told: dict[str, int] = {}  # tokens of each answer that the draft knows
        self._guessed = self._right = 0
        self._lost = ""

    def counts(self) -> dict[str, Any]:
        """How many tokens were `guessed`, how many of these were `right`, and why there are no more (`lost`)."""
        return {"guessed": self._guessed, "right": self._right, "lost": self._lost}

    def enter(self, entry: Entry) -> None:
        """Have the draft take in its prompt, while the stages do so."""
        if not self._lost and entry.request.key is None and entry.key not in self._begun:
            self._told[entry.key] = len(entry.taken)
            self._begun[entry.key] = self._draft.begin.remote(entry.key, entry.request)

    def leave(self, entry: Entry) -> None:
        """It is over."""
        self._paces.pop(entry.key, None)
        self._told.pop(entry.key, None)
        if self._begun.pop(entry.key, None) is not None and not self._lost:
            self._draft.forget.remote(entry.key)

    @contextmanager
    def timed(self, entry: Entry) -> Iterator[Round]:
        """A round of an answer; how long it takes says whether guessing pays."""
        pace = self._paces.setdefault(entry.key, Pace())
        round_, start = Round(self, entry, pace.next()), time.perf_counter()
        yield round_
        if round_.made:
            pace.took(len(round_.guesses), round_.made, time.perf_counter() - start)
            self._guessed += len(round_.guesses)
            self._right += min(round_.made - 1, len(round_.guesses))

    async def guess(self, entry: Entry, count: int) -> tuple[int, ...]:
        """So many tokens, or none: while the draft takes in the prompt, or when it is gone."""
        self.enter(entry)
        begun = self._begun.get(entry.key)
        if self._lost or begun is None or not begun.pending.done():
            return ()
        known = len(entry.taken)
        new = tuple(entry.taken[self._told[entry.key] :])
        try:
            guesses: tuple[int, ...] = await self._draft.propose.remote(entry.key, new, count)
        except ActorsError as error:  # answers go on without it
            self._lost = str(error)
            return ()
        if not entry.over:
            self._told[entry.key] = known
        return guesses


class Round:
    """One answer's next tokens: the one that is due and what follows it if the guesses are right.

    Attributes:
        guesses: what the draft says.
        made: tokens that came of it.
    """

    def __init__(self, speculation: Speculation, entry: Entry, count: int) -> None:
        self._speculation, self._entry = speculation, entry
        self._count = min(count, entry.left - 1)
        self._goes_on = True  # as far as the thread of MLX knows: all guesses were right until now
        self.guesses: Sequence[int] = ()
        self.made = 0

    async def guess(self) -> None:
        """Ask the draft, if that is worth while."""
        if self._count > 0:
            self.guesses = await self._speculation.guess(self._entry, self._count)

    def pieces(self) -> Iterator[tuple[tuple[Row, ...], Callable[[mx.array], Chosen]]]:
        """Rows to take through the stages, in this order, each with what chooses the tokens that follow."""
        ids = (*self._entry.row.ids, *self.guesses)
        parts = [(token,) for token in ids] if self._speculation.split else [ids]
        for number, part in enumerate(parts):
            yield (Row(self._entry.key, part),), partial(self._choose, number)

    # -- on the thread of MLX -----------------------------------------------------------------------------------

    def _choose(self, place: int, logits: mx.array) -> Chosen:
        """Tokens that follow those from `place` on, up to the first that was not guessed; and whether all were."""
        import mlx.core as mx

        found: list[Choice | Exception] = []
        for number in range(logits.shape[1]):
            if not self._goes_on:
                break
            try:
                lazy = self._entry.lazily(logits[:, number, :])
                mx.eval(lazy)
                choice = self._entry.chosen(*lazy)
            except Exception as error:  # of a user's own processor
                self._goes_on = False
                return [*found, error], False
            found.append(choice)
            right = place + number < len(self.guesses) and choice.id == self.guesses[place + number]
            self._goes_on = right and choice.id not in self._entry.request.stop_ids
        return found, self._goes_on
