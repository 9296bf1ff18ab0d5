"""What the reader of an answer is told when it goes on with other stages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Moved:
    """In place of what would come next: others have the answer's caches, and are to be asked for the rest."""
