"""Which sequences that are over still have their caches, so that a prompt that begins alike need not go in again."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST: Final = 32  # sequences, each of which is looked at for every prompt
_WORTH: Final = 8  # tokens; fewer are as soon computed


@dataclass(frozen=True, slots=True)
class Kept:
    """A sequence that is kept: its key, its tokens, and how many hold it."""

    key: str
    tokens: tuple[int, ...]
    holds: int


class Prefixes:
    """Sequences that are kept, the one that was of use last at the end."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._holds: Counter[str] = Counter()

    @property
    def slots(self) -> int:
        """Places in the caches that they take."""
        return sum(map(len, self._kept.values()))

    def all(self) -> list[Kept]:
        """All of them, the one that was of use last at the end."""
        return [Kept(key, tokens, self._holds[key]) for key, tokens in self._kept.items()]

    def add(self, key: str, tokens: Sequence[int], holds: int = 0) -> list[str]:
        """Keep a sequence whose cache holds `tokens`; returns keys of those to be given up for it."""
        if holds:
            self._holds[key] = holds
        tokens = tuple(tokens)
        gone = [
            known for known, others in self._kept.items() if tokens[: len(others)] == others and not self._holds[known]
        ]
        for known in gone:
            del self._kept[known]
        self._kept[key] = tokens
        while len(self._kept) > _MOST:
            gone.append(self.pop())
        return gone

    def pop(self) -> str:
        """Give up the one that has been of no use for the longest time, one that is held last; returns its key."""
        key = next((known for known in self._kept if not self._holds[known]), None) or next(iter(self._kept))
        del self._kept[key]
        del self._holds[key]
        return key

    def hold(self, tokens: Sequence[int]) -> str | None:
        """Keep the sequence of exactly these tokens longer than others; returns its key, None if it is not there."""
        tokens = tuple(tokens)
        key = next((known for known, others in self._kept.items() if others == tokens), None)
        if key is not None:
            self._holds[key] += 1
        return key

    def release(self, key: str) -> None:
        """Keep it no longer than others, if nobody else holds it."""
        if self._holds[key] > 1:
            self._holds[key] -= 1
        else:
            del self._holds[key]

    def length(self, key: str) -> int:
        """How many tokens the sequence has; 0 where it was given up."""
        return len(self._kept.get(key, ()))

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, prompt: Sequence[int], fits: Callable[[str, int, int], bool]) -> tuple[str, int] | None:
        """The sequence that begins most like a prompt, and how many tokens are the same.

        The last token of the prompt is not among them: it is taken in in any case, so that something comes out.

        Args:
            prompt: token ids.
            fits: whether the cache of a key, so many tokens long, can be cut to a length.
        """
        best: tuple[str, int] | None = None
        for key, tokens in self._kept.items():
            pairs = zip(prompt[:-1], tokens, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if same >= max(_WORTH, best[1] if best else 0) and fits(key, len(tokens), same):
                best = key, same
        if best is not None:
            self._kept.move_to_end(best[0])
        return best
