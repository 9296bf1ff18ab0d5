"""The caches of the sequences under way in a stage: each by itself, or side by side with those it goes along with.

Those side by side are mlx-lm's batched caches: shorter ones are padded on the left. A sequence joins and leaves by a
copy, so that whoever asks for the caches of one always gets them by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class _Batch:
    """Sequences side by side, in this order, and their caches, one a layer."""

    keys: list[str]
    caches: list[Any]

    @classmethod
    def of(cls, alone: dict[str, list[Any]]) -> _Batch:
        layers = zip(*alone.values(), strict=True)
        return cls(list(alone), [None if each[0] is None else each[0].merge(list(each)) for each in layers])

    def keep(self, keys: Sequence[str]) -> None:
        """Let go of all but these, and have them in this order."""
        if list(keys) == self.keys:
            return
        numbers = [self.keys.index(key) for key in keys]
        for cache in self.caches:
            if cache is not None:
                cache.filter(numbers)
        self.keys = list(keys)

    def take(self, key: str) -> list[Any]:
        """The caches of one, by themselves."""
        number = self.keys.index(key)
        return [None if cache is None else cache.extract(number) for cache in self.caches]

    def extend(self, other: _Batch) -> None:
        """Put others beside these."""
        for mine, theirs in zip(self.caches, other.caches, strict=True):
            if mine is not None:
                mine.extend(theirs)
        self.keys += other.keys


class Caches(MutableMapping[str, list[Any]]):
    """By the key of a sequence, its caches, one a layer."""

    def __init__(self) -> None:
        self._alone: dict[str, list[Any]] = {}
        self._batches: dict[str, _Batch] = {}  # of each sequence that is in one

    def __getitem__(self, key: str) -> list[Any]:
        batch = self._batches.get(key)
        if batch is not None:
            taken = batch.take(key)
            self._remove(key, batch)
            self._alone[key] = taken
        return self._alone[key]

    def __setitem__(self, key: str, caches: list[Any]) -> None:
        self.pop(key, None)
        self._alone[key] = caches

    def __delitem__(self, key: str) -> None:
        batch = self._batches.get(key)
        if batch is None:
            del self._alone[key]
        else:
            self._remove(key, batch)

    def __iter__(self) -> Iterator[str]:
        yield from list(self._alone)
        yield from list(self._batches)

    def __len__(self) -> int:
        return len(self._alone) + len(self._batches)

    def __contains__(self, key: object) -> bool:
        return key in self._alone or key in self._batches

    def peek(self, key: str) -> list[Any] | None:
        """The caches that a sequence is in, its own or those of several; to be looked at, from any thread."""
        batch = self._batches.get(key)
        return self._alone.get(key) if batch is None else batch.caches

    def row(self, key: str) -> int:
        """Which row a sequence is of the caches that `peek` gives; 0 where it gives none."""
        batch = self._batches.get(key)
        return 0 if batch is None else batch.keys.index(key)

    def together(self, keys: Sequence[str]) -> list[Any]:
        """Batched caches of these sequences, side by side in this order, and of no others."""
        homes = [self._batches[key] for key in keys if key in self._batches]
        if not homes:
            return self._join(keys, None)
        home = max(homes, key=lambda batch: sum(key in keys for key in batch.keys))
        for key in [key for key in home.keys if key not in keys]:  # it waits for its reader
            self._alone[key] = home.take(key)
            del self._batches[key]
        home.keep([key for key in keys if self._batches.get(key) is home])
        return self._join(keys, home)

    def _join(self, keys: Sequence[str], home: _Batch | None) -> list[Any]:
        apart = [key for key in keys if home is None or self._batches.get(key) is not home]
        if apart:
            guests = _Batch.of({key: self[key] for key in apart})
            for key in apart:
                del self._alone[key]
            if home is None:
                home = guests
            else:
                home.extend(guests)
            self._batches |= dict.fromkeys(apart, home)
        assert home is not None
        home.keep(keys)
        return home.caches

    def _remove(self, key: str, batch: _Batch) -> None:
        del self._batches[key]
        others = [other for other in batch.keys if other != key]
        if others:
            batch.keep(others)
