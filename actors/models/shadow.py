"""Caches kept twice: what a stage adds to its own goes to a neighbour as well, who has it when the stage dies.

Nothing waits for it. One message is under way at a time and takes along all that was added while the one before was,
so that a slow network makes the copy older and no answer slower. Arrays are those of full attention: a sequence's keys
and values (1, heads, tokens, size) only grow, or lose tokens at the end.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorsError

from .remains import Remains
from .saved import Ghost, Saved, plain_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    import mlx.core as mx

    from actors.handle import ActorHandle

    from .stage import StageModel, Step


@dataclass(frozen=True, slots=True)
class Piece:
    """Some tokens of one sequence, and what they are in the caches of a stage.

    Attributes:
        key: of the sequence.
        start: how many tokens come before them.
        tokens: their ids.
        arrays: keys and values (1, heads, tokens, size) by the places of the caches.
    """

    key: str
    start: int
    tokens: tuple[int, ...]
    arrays: dict[int, tuple[mx.array, mx.array]]

    def first(self, count: int) -> Piece:
        """So many of its tokens, from its beginning."""
        if count >= len(self.tokens):
            return self
        cut = {place: (keys[:, :, :count], values[:, :, :count]) for place, (keys, values) in self.arrays.items()}
        return replace(self, tokens=self.tokens[:count], arrays=cut)


@dataclass(frozen=True, slots=True)
class Delta:
    """What has changed in the caches of a stage.

    Attributes:
        changes: before anything is added, in this order: `("trim", key, tokens that remain)`, `("drop", key)` or
            `("fork", source, key, tokens in common)`.
        pieces: what was added, at most one piece for a sequence.
    """

    changes: tuple[tuple[Any, ...], ...]
    pieces: tuple[Piece, ...]


class Journal:
    """What a stage's caches hold, and how much of it was told. All of it runs on the thread of MLX."""

    def __init__(self) -> None:
        self._tokens: dict[str, list[int]] = {}
        self._told: dict[str, int] = {}
        self._changes: list[tuple[Any, ...]] = []
        self._new: set[str] = set()

    def note(self, step: Step) -> None:
        """A step was taken; see `StageModel.run` for the order of what it does."""
        for key, count in step.trim:
            self._cut(key, len(self._tokens.get(key, ())) - count)
        for key in step.forget:
            self._drop(key)
        for source, key, length in step.fork:
            if source in self._tokens:
                self._tokens[key] = self._tokens[source][:length]
                self._fork(source, key, length)
        for key in step.drop:
            self._drop(key)
        for row in step.rows:
            self.add(row.key, row.ids)

    def add(self, key: str, tokens: Sequence[int]) -> None:
        """The caches of a sequence have these tokens now, after those that they had."""
        self._tokens.setdefault(key, []).extend(tokens)
        self._new.add(key)

    def delta(self, model: StageModel) -> Delta | None:
        """What has changed since this was asked last, computed; None where nothing has."""
        pieces = []
        for key in self._new:
            told, tokens = self._told.get(key, 0), self._tokens[key]
            if told < len(tokens) and (arrays := model.tail(key, told, len(tokens))):
                pieces.append(Piece(key, told, tuple(tokens[told:]), arrays))
                self._told[key] = len(tokens)
        changes, self._changes = tuple(self._changes), []
        self._new.clear()
        return Delta(changes, tuple(pieces)) if changes or pieces else None

    def remains(self, model: StageModel) -> list[tuple[tuple[int, ...], str, Saved]]:
        """All that the caches of a stage hold: tokens, key and arrays."""
        found = []
        for key, tokens in self._tokens.items():
            if arrays := model.tail(key, 0, len(tokens)):
                found.append((tuple(tokens), key, dict[int, Any](arrays)))
        return found

    def _fork(self, source: str, key: str, length: int) -> None:
        told = min(length, self._told.get(source, 0))
        if told:
            self._told[key] = told
            self._changes.append(("fork", source, key, told))
        self._new.add(key)

    def _cut(self, key: str, length: int) -> None:
        if key in self._tokens:
            del self._tokens[key][length:]
            if self._told.get(key, 0) > length:
                self._told[key] = length
                self._changes.append(("trim", key, length))

    def _drop(self, key: str) -> None:
        self._tokens.pop(key, None)
        self._new.discard(key)
        if self._told.pop(key, None) is not None:
            self._changes.append(("drop", key))


class Shadow:
    """Copies of a neighbour's caches. All of it runs on the thread of MLX."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Piece]] = {}

    def take(self, delta: Delta) -> None:
        """The neighbour's caches have changed."""
        for kind, key, *what in delta.changes:
            if kind == "drop":
                self._pieces.pop(key, None)
            elif kind == "trim":
                self._pieces[key] = _first(self._pieces[key], what[0])
            else:
                self._pieces[what[0]] = _first(self._pieces[key], what[1])
        for piece in delta.pieces:
            self._pieces.setdefault(piece.key, []).append(piece)

    def remains(self) -> list[tuple[tuple[int, ...], str, Saved]]:
        """All that there is: tokens, key and arrays."""
        return [(_tokens(pieces), key, _whole(pieces)) for key, pieces in self._pieces.items() if pieces]


class Legacy:
    """What a stage had of sequences, its own caches and its neighbour's, for those that come after a death.

    Args:
        found: tokens, key and arrays of each; the same key may be there twice.
    """

    def __init__(self, found: Collection[tuple[tuple[int, ...], str, Saved]] = ()) -> None:
        self._found = list(found)

    def remains(self) -> list[Remains]:
        """What there is."""
        return [Remains(key, tokens, tuple(saved)) for tokens, key, saved in self._found]

    def save(self, key: str, tokens: Sequence[int], wanted: Collection[int]) -> Saved:
        """The first `tokens` of a sequence in its caches, as `saved.save` gives them, of all places that are here."""
        import mlx.core as mx

        count, whole = len(tokens), dict[int, Any]()
        for known, name, saved in self._found:
            if name == key and known[:count] == tuple(tokens):
                for place, arrays in saved.items():
                    if place not in whole:
                        whole[place] = plain_state(*(_part(each, count, wanted=place in wanted) for each in arrays))
        mx.eval([each for state in whole.values() for each in state if isinstance(each, mx.array)])
        return whole


class Shading:
    """Sends what a stage adds to its caches. On the stage's event loop, but for `note`.

    Args:
        model: the stage's.
        neighbour: the actor that keeps the copies.
        do: does something on the thread of MLX.
    """

    def __init__(
        self, model: StageModel, neighbour: ActorHandle, do: Callable[[Callable[..., Any], Any], Awaitable[Any]]
    ) -> None:
        self.journal = Journal()
        self._model, self._neighbour, self._do = model, neighbour, do
        self._sending: asyncio.Task[None] | None = None
        self._more = self._over = False

    def note(self, step: Step) -> None:
        """A step was taken; on the thread of MLX."""
        self.journal.note(step)

    def wake(self) -> None:
        """There is something to be sent."""
        self._more = True
        if self._sending is None and not self._over:
            # In a context of its own: it is no part of the call that the step was taken for.
            self._sending = asyncio.get_running_loop().create_task(self._send(), context=Context())

    async def settle(self) -> None:
        """Wait until the neighbour has all that was added until now, or is gone."""
        self.wake()
        while self._sending is not None:
            await asyncio.wait({self._sending})

    def close(self) -> None:
        """Send nothing any more."""
        self._over = True

    async def _send(self) -> None:
        try:
            while self._more and not self._over:
                self._more = False
                delta = await self._do(self.journal.delta, self._model)
                if delta is not None:
                    await self._neighbour.shadow.remote(delta)
        except ActorsError:  # it is gone; whoever reads an answer finds that out, and others take the places of all
            self._over = True
        finally:
            self._sending = None


def _first(pieces: Sequence[Piece], count: int) -> list[Piece]:
    return [piece.first(count - piece.start) for piece in pieces if piece.start < count]


def _tokens(pieces: Sequence[Piece]) -> tuple[int, ...]:
    return tuple(token for piece in pieces for token in piece.tokens)


def _whole(pieces: Sequence[Piece]) -> Saved:
    import mlx.core as mx

    whole: Saved = {}
    for place in pieces[0].arrays:
        parts = [piece.arrays[place] for piece in pieces]
        whole[place] = tuple(mx.concatenate(list(each), axis=2) for each in zip(*parts, strict=True))
    mx.eval(list(whole.values()))
    return whole


def _part(array: mx.array, count: int, *, wanted: bool) -> mx.array | Ghost:
    return array[:, :, :count] if wanted else Ghost((1, 1, count, 1))
