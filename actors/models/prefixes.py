"""Which sequences that are over still have their caches, so that a prompt that begins alike need not go in again."""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST: Final = 32  # sequences, each of which is looked at for every prompt
_WORTH: Final = 8  # tokens; fewer are as soon computed


class Prefixes:
    """Sequences that are kept, the one that was of use last at the end."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    @property
    def slots(self) -> int:
        """Places in the caches that they take."""
        return sum(map(len, self._kept.values()))

    def add(self, key: str, tokens: Sequence[int]) -> list[str]:
        """Keep a sequence whose cache holds `tokens`; returns keys of those to be given up for it."""
        tokens = tuple(tokens)
        gone = [known for known, others in self._kept.items() if tokens[: len(others)] == others]
        for known in gone:
            del self._kept[known]
        self._kept[key] = tokens
        while len(self._kept) > _MOST:
            gone.append(self.pop())
        return gone

    def pop(self) -> str:
        """Give up the one that has been of no use for the longest time; returns its key."""
        return self._kept.popitem(last=False)[0]

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
