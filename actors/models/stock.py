"""What a node was sent of a model, for others that lack it: a part, or all that is left of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from actors.exceptions import ModelError

from . import ledger
from .ledger import Manifest, Piece
from .weights import Library

if TYPE_CHECKING:
    from pathlib import Path


class Stock(Library):
    """What this node keeps under `key`, for those who lack it; an actor where it is."""

    def __init__(self, key: str) -> None:
        folder = ledger.weights_dir() / key
        self._known = {piece.place: piece for piece in ledger.pieces(folder)}
        self._key = key
        super().__init__(str(ledger.file_of(folder, sorted({piece.name for piece in self._known.values()}))))

    def manifest(self, first: int | None, last: int | None) -> Manifest:
        """What a stage of these layers needs; pieces that are not here are without digests."""
        return replace(super().manifest(first, last), key=self._key)

    def pieces(self) -> frozenset[Piece]:
        """Those that are here."""
        return frozenset(self._known.values())

    def _piece(self, name: str, start: int, size: int) -> Piece:
        return self._known.get((name, start, size), Piece(name, start, size, b""))


def complete(model: str, first: int, last: int) -> Path | None:
    """Where this node keeps all that a stage of these layers needs of a model, undamaged; None if it does not."""
    for key in ledger.kept(model):
        folder = ledger.weights_dir() / key
        try:
            wanted = Stock(key).manifest(first, last)
        except ModelError:  # a part, without what tells what it is a part of
            continue
        if all(piece.digest and ledger.is_there(folder, piece) for piece in wanted.pieces):
            return ledger.file_of(folder, [name for name, _ in wanted.files])
    return None
