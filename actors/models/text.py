"""Text of an answer as its tokens arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_REPLACEMENT: Final = "\ufffd"  # what decoding makes of a character whose bytes are not all there


class Decoder(Protocol):
    """Turns tokens into text; see `tokenizer.Tokenizer`."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        ...


class Detokenizer:
    """Gives text token by token, never a part of a character; joined, it is the text of all tokens."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._window: list[int] = []
        self._told = 0  # of the window's tokens, those whose text is out; they give the next ones their context

    def add(self, token: int) -> str:
        """The text that `token` completes, which may be none."""
        self._window.append(token)
        text = self._decoder.decode(self._window)
        if text.endswith(_REPLACEMENT):
            return ""
        piece = text[len(self._decoder.decode(self._window[: self._told])) :]
        self._window, self._told = self._window[self._told :], len(self._window) - self._told
        return piece

    def rest(self) -> str:
        """What remains when no more tokens come."""
        return self._decoder.decode(self._window)[len(self._decoder.decode(self._window[: self._told])) :]


class StopText:
    """Lets text through up to the first of some texts, and holds back what might become one.

    Attributes:
        found: one of them has come; nothing is let through any more.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def add(self, text: str) -> str:
        """What of `text`, and of text held back, may be seen."""
        if self.found or not self._stops:
            return "" if self.found else text
        held = self._held + text
        places = [place for place in (held.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return held[: min(places)]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """What was held back, since nothing more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that `stop` begins with."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
