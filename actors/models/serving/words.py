"""What tokens stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .scanner import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.models import Tokenizer

    from .grammar import Vocabulary

_TAIL = 16  # tokens of a prompt in which the mark that opens a thought is looked for


class Words:
    """The tokens of a model, one by one.

    Attributes:
        thoughts: how the model marks what it only thinks; None where it does not.
        longest: characters that one token stands for, at most.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary | None) -> None:
        self._inner = tokenizer.inner
        self._vocabulary = vocabulary
        self._stop_ids = tokenizer.stop_ids
        self._special = frozenset(int(each) for each in self._inner.all_special_ids) - tokenizer.stop_ids
        self.longest = max(map(len, self._inner.get_vocab()))
        start, end = self._inner.think_start, self._inner.think_end
        self.thoughts = Mark("thought", start, end) if start and end else None

    def mark(self, token: int) -> str:
        """The text of a token that plain text leaves out, such as one that begins a call; "" for others."""
        return self._decode(token) if token in self._special else ""

    def ends(self, token: int) -> bool:
        """Whether a token only ends an answer."""
        return token in self._stop_ids

    def spelled(self, token: int) -> tuple[str, list[int]]:
        """A token's own text, and its bytes, which may be a part of a character."""
        text = self._decode(token)
        if self._vocabulary is None or token in self._special:
            return text, list(text.encode())
        return text, list(self._vocabulary.tokenizer().decode_bytes([token]))

    def opened(self, prompt: Sequence[int]) -> Mark | None:
        """The part that an answer to this prompt begins in."""
        if self.thoughts is None:
            return None
        tail = str(self._inner.decode(list(prompt[-_TAIL:]), skip_special_tokens=False))
        return self.thoughts if tail.rstrip().endswith(self.thoughts.start) else None

    def _decode(self, token: int) -> str:
        return str(self._inner.decode([token], skip_special_tokens=False))
