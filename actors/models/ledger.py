"""What is known of the weights that a node was sent: of which model, and the digests of the pieces that it has.

It is written beside the weights, one file for each range of layers, so that stages which are loaded at once do not
write the same one.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from actors.home import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path


HEADERS: Final = "headers"
"""What is noted of a model of which no layer is here."""


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


def filled(manifest: Manifest, stocks: Iterable[frozenset[Piece]]) -> Manifest:
    """A manifest with the digests that others know of, where it has none."""
    known = {piece.place: piece for stock in stocks for piece in stock}
    found = (piece if piece.digest else known.get(piece.place, piece) for piece in manifest.pieces)
    return replace(manifest, pieces=tuple(found))


def completed(manifest: Manifest, stocks: Iterable[frozenset[Piece]]) -> Manifest | None:
    """The same; None where nobody has some piece."""
    found = filled(manifest, stocks)
    return found if all(piece.digest for piece in found.pieces) else None


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
    return frozenset(piece for entry in _entries(folder) for piece in _pieces(entry))


def is_there(folder: Path, piece: Piece) -> bool:
    """Whether these bytes are what their digest says."""
    try:
        with (folder / piece.name).open("rb") as file:
            file.seek(piece.start)
            return digest(file.read(piece.size)) == piece.digest
    except OSError:
        return False


def noted(folder: Path, model: str, layers: str) -> list[Piece]:
    """Those that were noted of these layers of a model; none where they are not here."""
    file = _beside(folder) / f"{layers}.json"
    entry = json.loads(file.read_text()) if file.exists() else {"model": None}
    return _pieces(entry) if entry["model"] == model else []


def models() -> list[str]:
    """What the models are called that this node was sent something of, the latest first."""
    files = sorted(weights_dir().glob("*.pieces/*.json"), key=lambda file: file.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(str(json.loads(file.read_text())["model"]) for file in files))


def kept(model: str) -> list[str]:
    """The keys of what this node was sent of a model: one, but where it has changed since."""
    beside = (each.with_suffix("") for each in weights_dir().glob("*.pieces"))
    return [where.name for where in beside if where.is_dir() and any(it["model"] == model for it in _entries(where))]


def file_of(folder: Path, names: Sequence[str]) -> Path:
    """The path to load a model from that was sent in these files: the one file that it is, or the folder."""
    return folder / names[0] if len(names) == 1 and not names[0].endswith(".json") else folder


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.pieces")


def _pieces(entry: dict[str, Any]) -> list[Piece]:
    return [Piece(name, start, size, bytes.fromhex(code)) for name, start, size, code in entry["pieces"]]


def _entries(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(_beside(folder).glob("*.json")):
        yield json.loads(file.read_text())
