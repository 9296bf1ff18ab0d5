"""How many tokens to guess ahead: as many as mostly come true, and none while guessing takes longer than it saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_FIRST: Final = 3  # tokens guessed at first
_MOST: Final = 8
_TRIAL: Final = 3  # rounds until a way is judged
_AGAIN: Final = 32  # rounds until the other way is tried again
_FADE: Final = 0.8  # what was seen counts for so much after another round


@dataclass(slots=True)
class _Seen:
    """Tokens that came of one way of going on, and the seconds that they took, those of late counting most."""

    tokens: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self.tokens = self.tokens * _FADE + tokens
        self.seconds = self.seconds * _FADE + seconds

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0


class Pace:
    """Chooses, for one answer, round by round. It only looks at what it is told, so that it has no clock of its own."""

    def __init__(self) -> None:
        self._count = _FIRST
        self._plain, self._guessing = _Seen(), _Seen()
        self._guesses = False  # the way that is gone now
        self._left = _TRIAL  # rounds that are still to be gone this way
        self._settled = False  # the way was chosen for being the better one

    def next(self) -> int:
        """How many tokens to guess in the next round."""
        if self._left <= 0:
            self._turn()
        return self._count if self._guesses else 0

    def took(self, guessed: int, made: int, seconds: float) -> None:
        """Tell what came of a round.

        Args:
            guessed: tokens that were guessed.
            made: tokens that came: those of them that were right, and one more.
            seconds: that it took, guesses included.
        """
        self._left -= 1
        if not guessed:
            self._plain.add(made, seconds)
            return
        self._guessing.add(made, seconds)
        # As transformers' assisted generation does: more while all are right, one less when one is wrong.
        self._count = min(self._count + 2, _MOST) if made > guessed else max(self._count - 1, 1)

    def _turn(self) -> None:
        """Go the better way, and now and then the other one for a short time, to see whether it is better by now."""
        if self._settled or not self._guessing.tokens:
            self._guesses, self._settled, self._left = not self._guesses, False, _TRIAL
        else:
            self._guesses = self._guessing.rate > self._plain.rate
            self._settled, self._left = True, _AGAIN
