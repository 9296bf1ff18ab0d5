"""The standard streams of a worker: whole lines, and before them whose call it was that printed them.

A line of our own says so, where that changes; drivers that do not want to know have no origins, which cost nothing.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from actors import runtime

MARK = "__actors_origin__ "


class Stream(io.TextIOWrapper):
    """Sends each line at once and in one piece; as UTF-8, as the node reads it."""

    def __init__(self, descriptor: int) -> None:
        buffer = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
        super().__init__(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        self._origin = ""
        self._begins = True  # nothing stands in this line yet

    def write(self, text: str, /) -> int:
        """See `io.TextIOBase.write`."""
        if self._begins:
            call = runtime.current.get()
            if call is not None and call.origin != self._origin:
                self._origin = call.origin
                text, length = f"{MARK}{call.origin}\n{text}", len(text)
                super().write(text)
                self._begins = text.endswith("\n")
                return length
        if text:
            self._begins = text.endswith("\n")
        return super().write(text)


def print_whole_lines() -> None:
    """Gives this process its streams.

    Those it has may be unbuffered, which the environment asks for on behalf of what this process starts, and then send
    a line and its end apart.
    """
    streams: Any = {"stdout": 1, "stderr": 2}
    for name, descriptor in streams.items():
        setattr(sys, name, Stream(descriptor))


def read_origin(line: str) -> str | None:
    """Returns the origin that a line tells of; None for any other line."""
    return line[len(MARK) :] if line.startswith(MARK) else None
