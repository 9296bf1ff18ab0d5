"""Weights on their way to nodes that lack them: what a stage needs, in pieces that are checked, and nothing else.

A node keeps what it got in its cache, in files that look like the sender's but have holes where the layers of others
are. Each piece has a digest, and what is there already is compared with it. So an interrupted transfer goes on where it
was, the next load sends nothing, and a piece that was damaged is fetched again. What a node has it gives to others that
lack it (`stock`).
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from actors.api import get
from actors.exceptions import ActorsError, ModelError

from . import ledger
from .checkpoint import open_checkpoint
from .ledger import Manifest, Piece, completed, digest, filled
from .spans import parts, spans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.handle import ActorHandle

T = TypeVar("T")

_TRIES: Final = 3
_NOTED: Final = 1.0  # seconds between two notes of what came from a hub


class Source(Protocol):
    """Whoever has the weights."""

    def manifest(self, first: int | None, last: int | None) -> Manifest:
        """What a stage of these layers needs; None for what a program needs that has no stage."""
        ...

    def read(self, piece: Piece) -> bytes:
        """The bytes of a piece."""
        ...

    def pieces(self) -> frozenset[Piece] | None:
        """Those that it has; None for all."""
        ...


class Hub(Source, Protocol):
    """One that is far away, and better told before what it will be asked for."""

    def expect(self, pieces: Sequence[Piece]) -> None:
        """It will be asked for these, in this order."""
        ...


class Library:
    """The weights of the model at `path`, for those who lack them; an actor where the model is."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        open_checkpoint(self._path)  # says what is wrong, if anything is

    def manifest(self, first: int | None, last: int | None) -> Manifest:
        """What a stage of these layers needs; its bytes are read once for their digests.

        None is for a program that has no stage: headers, configuration and tokenizer.
        """
        needed = dict(spans(self._path, first, last))
        files = tuple((name, self._file(name).stat().st_size) for name in needed)
        pieces = [self._piece(name, *part) for name, found in needed.items() for span in found for part in parts(*span)]
        return Manifest(_key(files, pieces), files, tuple(pieces))

    def pieces(self) -> frozenset[Piece] | None:
        """It has all."""
        return None

    def read(self, piece: Piece) -> bytes:
        """The bytes of a piece."""
        with self._file(piece.name).open("rb") as file:
            file.seek(piece.start)
            return file.read(piece.size)

    def _piece(self, name: str, start: int, size: int) -> Piece:
        return Piece(name, start, size, digest(self.read(Piece(name, start, size, b""))))

    def _file(self, name: str) -> Path:
        return self._path / name if self._path.is_dir() else self._path


class Sender:
    """A `Library` that is an actor elsewhere."""

    def __init__(self, library: ActorHandle) -> None:
        self._library = library

    def manifest(self, first: int | None, last: int | None) -> Manifest:
        """See `Library.manifest`."""
        found: Manifest = get(self._library.manifest.remote(first, last))
        return found

    def read(self, piece: Piece) -> bytes:
        """See `Library.read`."""
        found: bytes = get(self._library.read.remote(piece))
        return found

    def pieces(self) -> frozenset[Piece] | None:
        """See `Library.pieces`."""
        found: frozenset[Piece] | None = get(self._library.pieces.remote())
        return found

    def expect(self, pieces: Sequence[Piece]) -> None:
        """See `Hub.expect`; of a library that is one."""
        get(self._library.expect.remote(pieces))


def fetch(
    sources: Sequence[Source],
    first: int | None = None,
    last: int | None = None,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    model: str = "",
    hubs: Sequence[Hub] = (),
) -> Path:
    """Bring what a stage of these layers needs here, and return where it is: a path to load the stage from.

    Args:
        sources: whoever has the model; pieces are asked for in turns, and those that fail are left out.
        first: number of the stage's first layer; None where there is no stage, for all but the weights.
        last: number of its last layer.
        folder: where to keep it; None is the user's cache.
        progress: told how many bytes are here, and of how many, after each piece.
        model: what the model is called where it comes from, for others to ask for it here.
        hubs: have all of it too, far away, without digests: asked for what nobody else has, the first one that answers.

    Raises:
        ModelError: a piece arrived damaged several times, nobody has it who answers, or there is no room for it.
    """
    holders = _Holders(sources, hubs)
    manifest = holders.manifest(first, last)
    here = (ledger.weights_dir() if folder is None else folder) / manifest.key
    arrival = _Arrival(here, manifest, model, ledger.HEADERS if first is None else f"{first} to {last}")
    holders.expect([piece for piece in arrival.pieces if not piece.digest])
    total, done = sum(piece.size for piece in manifest.pieces), 0
    try:
        here.mkdir(parents=True, exist_ok=True)
        for name, size in manifest.files:
            handle = os.open(_inside(here, name), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.ftruncate(handle, size)
                for piece in arrival.pieces:
                    if piece.name == name:
                        arrival.came(_bring(holders, piece, handle))
                        done += piece.size
                        if progress is not None:
                            progress(done, total)
            finally:
                os.close(handle)
        arrival.note()
    except ActorsError:
        arrival.interrupted()
        raise
    except OSError as error:
        raise ModelError(f"the weights cannot be kept in {here}: {error.strerror or error}") from error
    return ledger.file_of(here, [name for name, _ in manifest.files])


class _Arrival:
    """What is here of a manifest, noted from time to time where nobody else could tell it again."""

    def __init__(self, here: Path, manifest: Manifest, model: str, layers: str) -> None:
        self.pieces = filled(manifest, [ledger.pieces(here)]).pieces
        self._here, self._manifest, self._model, self._layers = here, manifest, model, layers
        self._came: list[Piece] = []
        self._hurried = any(not piece.digest for piece in self.pieces)
        self._noted = time.monotonic()

    def came(self, piece: Piece) -> None:
        """It is here, as its digest says."""
        self._came.append(piece)
        if self._hurried and time.monotonic() - self._noted >= _NOTED:
            self.note()

    def interrupted(self) -> None:
        """There comes no more this time."""
        if self._hurried and self._came:
            self.note()

    def note(self) -> None:
        """All that came is found again."""
        ledger.note(self._here, self._model, self._layers, replace(self._manifest, pieces=tuple(self._came)))
        self._noted = time.monotonic()


def _inside(folder: Path, name: str) -> Path:
    if name != Path(name).name or name in {"", ".", ".."}:
        raise ModelError(f"the sender of the weights has a file {name!r}, which is no plain name")
    return folder / name


def _bring(holders: _Holders, piece: Piece, handle: int) -> Piece:
    """Have a piece here, which may be there already; with its digest."""
    if piece.digest and digest(os.pread(handle, piece.size, piece.start)) == piece.digest:
        return piece
    data = holders.read(piece)
    view = memoryview(data)
    while view:
        view = view[os.pwrite(handle, view, piece.start + piece.size - len(view)) :]
    return piece if piece.digest else replace(piece, digest=digest(data))


class _Holders:
    """Several sources of the same weights, as one; hubs are asked for what none of the others has."""

    def __init__(self, sources: Sequence[Source], hubs: Sequence[Hub] = ()) -> None:
        self._sources, self._hubs = list(sources), list(hubs)
        self._stocks: dict[Source, frozenset[Piece] | None] = {}
        self._turn = 0
        self._cause: Exception | None = None
        for source in sources:
            self._try(source, self._learn)

    def manifest(self, first: int | None, last: int | None) -> Manifest:
        """What is needed: by one who has all, or by all who have parts."""
        found = self._ask(lambda source: source.manifest(first, last), self._has_all)
        if found is not None:
            return found
        stocks = [stock for stock in self._stocks.values() if stock]
        found = self._ask_hub(lambda hub: hub.manifest(first, last))
        if found is not None:
            return filled(found, stocks)
        part = self._ask(lambda source: source.manifest(first, last), lambda _: True)
        whole = None if part is None else completed(part, stocks)
        if part is None:
            raise self._none_left()
        if whole is None:
            raise ModelError(
                f"nobody has all that layers {first} to {last} need: no device that has the whole model is there, and "
                "others were sent other layers. Bring one of them back, or put the model where the nodes see it"
            ) from self._cause
        return whole

    def read(self, piece: Piece) -> bytes:
        """Its bytes, as its digest says."""
        for _ in range(_TRIES * max(len(self._sources), 1)):
            data = self._ask(lambda source: source.read(piece), lambda source: self._has(source, piece))
            if data is None:
                data = self._ask_hub(lambda hub: hub.read(piece))
            if data is None:
                raise self._none_left()
            if digest(data) == piece.digest or not piece.digest:
                return data
        raise ModelError(
            f"{piece.size} bytes of {piece.name} from {piece.start} on arrived damaged {_TRIES} times: the file "
            "changes while it is sent, or its disk is failing"
        )

    def _learn(self, source: Source) -> None:
        self._stocks[source] = source.pieces()

    def _has_all(self, source: Source) -> bool:
        return self._stocks[source] is None

    def _has(self, source: Source, piece: Piece) -> bool:
        stock = self._stocks[source]
        return stock is None or piece in stock

    def _ask(self, what: Callable[[Source], T], whom: Callable[[Source], bool]) -> T | None:
        """What one of `whom` says, each in its turn; None where none of them is left."""
        while able := [each for each in self._sources if whom(each)]:
            self._turn += 1
            found = self._try(able[self._turn % len(able)], what)
            if found is not None:
                return found
        return None

    def expect(self, pieces: Sequence[Piece]) -> None:
        """These will have to be read from a hub, in this order."""

        def told(hub: Hub) -> bool:
            hub.expect(pieces)
            return True

        if pieces:
            self._ask_hub(told)

    def _ask_hub(self, what: Callable[[Hub], T]) -> T | None:
        """What the first hub that answers says; None where none does."""
        while self._hubs:
            try:
                return what(self._hubs[0])
            except (ActorsError, OSError) as error:
                self._cause = error
                del self._hubs[0]
        return None

    def _try(self, source: Source, what: Callable[[Source], T]) -> T | None:
        """What a source says; None, and it is asked no more, where it does not answer."""
        try:
            return what(source)
        except (ActorsError, OSError) as error:
            self._cause = error
            self._sources.remove(source)
            return None

    def _none_left(self) -> ModelError:
        told = getattr(self._cause, "cause", None) or self._cause  # without the remote traceback
        error = ModelError(f"nobody who has the weights can give them out any more: {told}")
        error.__cause__ = self._cause
        return error


def _key(files: Sequence[tuple[str, int]], pieces: Sequence[Piece]) -> str:
    """By the names and sizes of all files and the beginning of each, which is its header."""
    seen = blake2b(digest_size=16)
    for name, size in files:
        seen.update(f"{name} {size} ".encode())
    seen.update(b"".join(piece.digest for piece in pieces if piece.start == 0))
    return seen.hexdigest()
