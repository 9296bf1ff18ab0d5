"""Parts of an answer that are no text for the reader: calls of tools, and thoughts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "call", "thought"]


@dataclass(frozen=True, slots=True)
class Mark:
    """How a model writes one kind of part: between two marks; an empty `end` is the end of the answer."""

    kind: Kind
    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of an answer. Text and thoughts come as they are written, calls whole; `raw` is with the marks."""

    kind: Kind
    text: str
    raw: str = ""


class Scanner:
    """Takes an answer apart as it arrives.

    Args:
        marks: of the parts there may be.
        inside: the part that the answer begins in, since the prompt has opened it.
    """

    def __init__(self, marks: tuple[Mark, ...], inside: Mark | None = None) -> None:
        self._marks = marks
        self._inside = inside
        self._held = ""  # of the part that is being written: what may be a mark, and a call that is not whole
        self._strip = False  # white space after a part belongs to nobody

    def feed(self, text: str) -> list[Segment]:
        """Takes a piece of the answer; returns what is known of it."""
        self._held += text
        found: list[Segment] = []
        while self._step(found):
            pass
        return found

    def finish(self) -> list[Segment]:
        """Returns what was held back, at the answer's end. A call that was cut off is text."""
        held, inside, self._held = self._held, self._inside, ""
        if inside is None:
            return self._visible(held)
        if inside.kind == "call" and not inside.end:
            return [Segment("call", held, inside.start + held)]
        if inside.kind == "call":
            return [Segment("text", inside.start + held)]
        return [Segment("thought", held)] if held else []

    def _step(self, found: list[Segment]) -> bool:
        """Goes on by one part; whether there may be more to do."""
        if self._inside is None:
            places = [(at, mark) for mark in self._marks if (at := self._held.find(mark.start)) >= 0]
            if not places:
                found += self._visible(self._take(*(mark.start for mark in self._marks)))
                return False
            at, mark = min(places, key=lambda place: place[0])
            found += self._visible(self._held[:at])
            self._held, self._inside = self._held[at + len(mark.start) :], mark
            return True
        mark = self._inside
        at = self._held.find(mark.end) if mark.end else -1
        if at < 0:
            if mark.kind == "thought" and (text := self._take(mark.end)):
                found.append(Segment("thought", text))
            return False
        body = self._held[:at]
        if body or mark.kind == "call":
            found.append(Segment(mark.kind, body, mark.start + body + mark.end))
        self._held, self._inside, self._strip = self._held[at + len(mark.end) :], None, True
        return True

    def _take(self, *marks: str) -> str:
        """Takes what is held but for an end that one of the marks may begin with."""
        keep = max((_overlap(self._held, mark) for mark in marks), default=0)
        cut = len(self._held) - keep
        taken, self._held = self._held[:cut], self._held[cut:]
        return taken

    def _visible(self, text: str) -> list[Segment]:
        if self._strip:
            text = text.lstrip()
        if not text:
            return []
        self._strip = False
        return [Segment("text", text)]


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of `text` that `mark` begins with, short of the whole mark."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
