"""Segments: what a process reads of a file of the arena."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    import mmap
    from pathlib import Path


class Segment(np.ndarray[Any, np.dtype[np.uint8]]):
    """The bytes of a file of the arena, to be read only; when this object goes, so does this process's name for it.

    It is an array since those can be watched, and can lie on memory that is mapped already. Whoever reads has views of
    it, each of which keeps it.

    Attributes:
        name: of the file.
        folder: it is in.
    """

    name: str
    folder: Path


def segment(mapping: mmap.mmap, size: int, path: Path) -> Segment:
    """Makes the segment of a file that is mapped."""
    made = cast("Segment", np.frombuffer(memoryview(mapping).toreadonly(), np.uint8, size).view(Segment))
    made.name, made.folder = path.name, path.parent
    return made
