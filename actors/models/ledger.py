"""What is known of the weights that a node was sent: of which model, and the digests of the pieces that it has.

It is written beside the weights, one file for each range of layers, so that stages which are loaded at once do not
write the same one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from actors.home import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Piece:
    """`size` bytes of the file `name` from `start` on, and their digest."""

    name: str
    start: int
    size: int
    digest: bytes

    @property
    def place(self) -> tuple[str, int, int]:
        """Where it is, whatever is there."""
        return self.name, self.start, self.size


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a stage needs of a model: files with their sizes, pieces of them, and what tells this model from others."""

    key: str
    files: tuple[tuple[str, int], ...]
    pieces: tuple[Piece, ...]


def completed(manifest: Manifest, stocks: Iterable[frozenset[Piece]]) -> Manifest | None:
    """A manifest with the digests that others know of; None where nobody has some piece."""
    known = {piece.place: piece for stock in stocks for piece in stock}
    found = tuple(known.get(piece.place, piece) for piece in manifest.pieces)
    return replace(manifest, pieces=found) if all(piece.digest for piece in found) else None


def digest(data: bytes) -> bytes:
    """What tells these bytes from others."""
    return blake2b(data, digest_size=16).digest()


def weights_dir() -> Path:
    """Where this user's nodes keep what they were sent."""
    return cache_dir() / "weights"


def note(folder: Path, model: str, layers: str, manifest: Manifest) -> None:
    """Everything of a manifest is in `folder` now.

    Args:
        folder: where the weights are.
        model: what the model is called where it came from.
        layers: which they are, in words that make a file's name.
        manifest: what is there.
    """
    pieces = [[piece.name, piece.start, piece.size, piece.digest.hex()] for piece in manifest.pieces]
    where = _beside(folder)
    where.mkdir(exist_ok=True)
    draft = where / f"{layers}.{os.getpid()}"
    draft.write_text(json.dumps({"model": model, "pieces": pieces}))
    draft.replace(where / f"{layers}.json")


def pieces(folder: Path) -> frozenset[Piece]:
    """All that were noted."""
    found = (each for entry in _entries(folder) for each in entry["pieces"])
    return frozenset(Piece(name, start, size, bytes.fromhex(code)) for name, start, size, code in found)


def kept(model: str) -> list[str]:
    """The keys of what this node was sent of a model: one, but where it has changed since."""
    beside = (each.with_suffix("") for each in weights_dir().glob("*.pieces"))
    return [where.name for where in beside if where.is_dir() and any(it["model"] == model for it in _entries(where))]


def file_of(folder: Path, names: Sequence[str]) -> Path:
    """The path to load a model from that was sent in these files: the one file that it is, or the folder."""
    return folder / names[0] if len(names) == 1 and not names[0].endswith(".json") else folder


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.pieces")


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(_beside(folder).glob("*.json")):
        yield json.loads(file.read_text())
