"""The program's face: where what it shows appears. A terminal, unless a notebook has put itself in its place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from actors.cluster import Cluster
    from actors.progress import Progress
    from actors.refs import ObjectRef


class Open(Protocol):
    """A call that the program has made, or the making of an actor."""

    @property
    def over(self) -> bool:
        """Whether it has had its answer."""


class Face:
    """Shows things as a terminal does, or a file; others do so in their own way.

    Attributes:
        adopt: told of each call that the program makes, and of each actor; None where that is of no interest.
        waiting: entered while the program waits for these references, and left at the end of the wait; None where
            nothing is shown of that.
    """

    adopt: Callable[[Open], None] | None = None
    waiting: Callable[[Sequence[ObjectRef[Any]]], AbstractContextManager[None]] | None = None

    def origin(self) -> str:
        """Returns a word for the place in the program that runs now, by which `write` is told whose output it has."""
        return ""

    def write(self, origin: str, stream: str, text: str) -> None:
        """Shows what actors have printed: whole lines, each with its end.

        Args:
            origin: what `origin` gave when the call was made that printed it; empty where that is not known.
            stream: ``"stdout"`` or ``"stderr"``.
            text: of the lines.
        """
        del origin
        out = sys.stderr if stream == "stderr" else sys.stdout
        if out is None:  # the program has none
            return
        encoding = getattr(out, "encoding", None) or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", file=out, flush=True)

    def draw(self, origin: str, label: str, progress: Progress) -> bool:
        """Draws a progress bar in a way of its own; returns whether it has."""
        del origin, label, progress
        return False

    def joined(self, cluster: Cluster) -> None:
        """The program has called `actors.init`."""


current = Face()


def use(face: Face) -> None:
    """Shows everything by this face from now on."""
    global current  # noqa: PLW0603 - the one place that knows
    current = face
