"""Models on the Hugging Face hub, which each node reads for itself: of the weights, the bytes that its stage needs.

A model is named with the commit that was found, so that all nodes take the same one, today and after a device has died:
`hf://organisation/model@commit`, or `hf://organisation/model@commit/file.gguf` where it is one of several files. What
nodes got they keep and give to each other, as with models that are sent (`weights`), so that the hub is asked for each
piece once or twice, however many devices there are.
"""

from __future__ import annotations

import hashlib
import re
import struct
import tempfile
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from actors.exceptions import ModelError

from . import ledger
from .gguf import read_header
from .ledger import Piece
from .spans import is_plain, is_weights
from .weights import Library, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

SCHEME: Final = "hf://"
_NAME: Final = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./-]+\.gguf))?")
_TRIES: Final = 3
_SECONDS: Final = 10
_AHEAD: Final = 8  # pieces on their way at once
_FIRST: Final = 4 << 20  # bytes of a .gguf file that are asked for at first; its header has no length
_MOST: Final = 1 << 30  # and at most


@dataclass(frozen=True, slots=True)
class HubName:
    """What a model is called on the hub.

    Attributes:
        repo: `organisation/model`.
        revision: a branch, tag or commit; None for what is the newest.
        file: one `.gguf` file of it; None for the model that the repository is.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def read(cls, text: str) -> Self | None:
        """From `[hf://]organisation/model[@revision][/file.gguf]`; None where it is nothing like that."""
        found = _NAME.fullmatch(text)
        return None if found is None or ".." in text else cls(found[1], found[2], found[3])

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}@{self.revision or 'main'}{f'/{self.file}' if self.file else ''}"


def is_on_hub(path: str) -> bool:
    """Whether this is the name of a model on the hub, rather than a path."""
    return path.startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on the hub: how long it is, and by which function what digest it has (None for none that can be told)."""

    name: str
    size: int
    digest: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What the hub says of a model: its name with the commit, and the files that it is made of."""

    name: HubName
    files: tuple[HubFile, ...]

    @classmethod
    def ask(cls, name: HubName) -> Self:
        """Ask the hub.

        Raises:
            ModelError: it has no such model, does not give it, cannot be reached, or what it has is none.
        """
        from huggingface_hub import HfApi

        info = _asked(
            name, lambda: HfApi().model_info(name.repo, revision=name.revision, files_metadata=True, timeout=_SECONDS)
        )
        there = info.siblings or []
        wanted = [each for each in there if _is_wanted(each.rfilename, name.file)]
        if not any(each.rfilename == name.file or is_weights(each.rfilename) for each in wanted):
            raise ModelError(_no_weights(name, [each.rfilename for each in there]))
        files = tuple(HubFile(each.rfilename, int(each.size or 0), _digest(each)) for each in wanted)
        return cls(replace(name, revision=info.sha), files)


def skeleton(name: HubName) -> Path:
    """A model's headers, configuration and tokenizer in this user's cache, where its weights would be, fetched once.

    Args:
        name: with a commit.

    Raises:
        ModelError: as `Listing.ask`; or what the hub has is damaged.
    """
    found = next(filter(None, (_kept(key, str(name)) for key in ledger.kept(str(name)))), None)
    return _fetched(Listing.ask(name)) if found is None else found


def remembered(name: HubName) -> HubName | None:
    """The commit of a model that was fetched here last, for when the hub cannot be reached; None for none."""
    names = map(HubName.read, ledger.models())
    wanted = (name.repo, name.file)
    same = [each for each in names if each is not None and (each.repo, each.file) == wanted]
    return next((each for each in same if name.revision in {None, each.revision}), None)


class Hub(Library):
    """A model on the hub, for a node that lacks its weights: read from there, piece by piece.

    The digests of its pieces are not known, as the hub has one for each file; only those of its headers are.
    """

    def __init__(self, name: str) -> None:
        known = HubName.read(name)
        assert known is not None
        here = skeleton(known)
        self._name = known
        self._known = {piece.place: piece for piece in Library(str(here)).manifest(None, None).pieces}
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="hub")
        self._expected: deque[Piece] = deque()
        self._coming: dict[tuple[str, int, int], Future[bytes]] = {}
        super().__init__(str(here))

    def expect(self, pieces: Sequence[Piece]) -> None:
        """Be asked for these, in this order: some are on their way at once, as each takes a while to begin."""
        self._expected, self._coming = deque(pieces), {}

    def read(self, piece: Piece) -> bytes:
        """The bytes of a piece."""
        if piece.place in self._known:
            return super().read(piece)
        while self._expected and len(self._coming) < _AHEAD:
            each = self._expected.popleft()
            self._coming[each.place] = self._pool.submit(self._from_afar, each)
        coming = self._coming.pop(piece.place, None)
        return self._from_afar(piece) if coming is None else coming.result()

    def _from_afar(self, piece: Piece) -> bytes:
        return _bytes(self._name, self._name.file or piece.name, piece.start, piece.size)

    def _piece(self, name: str, start: int, size: int) -> Piece:
        return self._known.get((name, start, size), Piece(name, start, size, b""))


# -- the skeleton -------------------------------------------------------------------------------------------------


def _kept(key: str, model: str) -> Path | None:
    """What is kept under a key, if all that is no weight is there and right."""
    folder = ledger.weights_dir() / key
    pieces = ledger.noted(folder, model, ledger.HEADERS)
    where = ledger.file_of(folder, sorted({piece.name for piece in pieces}))
    return where if pieces and all(ledger.is_there(folder, piece) for piece in pieces) else None


def _fetched(listing: Listing) -> Path:
    name = listing.name
    try:
        ledger.weights_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=ledger.weights_dir(), prefix="hub-") as scratch:
            folder = Path(scratch)
            for file in listing.files:
                _write(name, file, folder / Path(file.name).name)
            try:
                model = folder if name.file is None else folder / Path(name.file).name
                return fetch([Library(str(model))], model=str(name))
            except ModelError as error:
                told = str(error).replace(f"{folder}/", "").replace(str(folder), name.repo)
                raise ModelError(f"{name} on the Hugging Face hub cannot be used: {told}") from error
    except OSError as error:
        raise ModelError(f"{name} cannot be kept in {ledger.weights_dir()}: {error.strerror or error}") from error


def _write(name: HubName, file: HubFile, path: Path) -> None:
    """All of a small file; of one with weights the header, and a hole where the rest would be."""
    if file.name == name.file:
        _write_gguf(name, file, path)
        return
    if not is_weights(file.name):
        path.write_bytes(_whole(name, file))
        return
    head = _bytes(name, file.name, 0, min(8, file.size))
    length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
    with path.open("wb") as opened:
        opened.write(head)
        if length <= min(file.size - 8, _MOST):  # else it is damaged, as whoever reads it will say
            opened.write(_bytes(name, file.name, 8, length))
        opened.truncate(file.size)


def _write_gguf(name: HubName, file: HubFile, path: Path) -> None:
    """Longer and longer beginnings, until one has all of the header."""
    size = 0
    while size < min(file.size, _MOST):
        more = min(max(size, _FIRST), file.size - size)
        with path.open("ab") as opened:
            opened.truncate(size)
            opened.write(_bytes(name, file.name, size, more))
            opened.truncate(file.size)
        size += more
        try:
            tensors = read_header(path).tensors.values()
        except ModelError:
            continue  # whoever reads it at last says what is wrong
        if min((entry.start for entry in tensors), default=0) <= size:
            return


def _whole(name: HubName, file: HubFile) -> bytes:
    for _ in range(_TRIES):
        data = _bytes(name, file.name, 0, file.size)
        if file.digest is None or _hash(file.digest[0], data) == file.digest[1]:
            return data
    raise ModelError(f"{file.name} of {name} arrived damaged {_TRIES} times from the Hugging Face hub")


def _hash(kind: str, data: bytes) -> str:
    if kind == "sha256":
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()  # as git has it


def _digest(sibling: Any) -> tuple[str, str] | None:
    if sibling.lfs is not None:
        return "sha256", str(sibling.lfs.sha256)
    return None if sibling.blob_id is None else ("git", str(sibling.blob_id))


def _is_wanted(file: str, gguf: str | None) -> bool:
    if gguf is not None:
        return file == gguf
    return "/" not in file and (is_plain(file) or is_weights(file))


def _no_weights(name: HubName, files: list[str]) -> str:
    others = [each for each in files if each.endswith(".gguf")]
    if name.file is not None or others:
        has = f"it has {', '.join(others[:8])}{' and others' if len(others) > 8 else ''}" if others else "it has none"
        wanted = f"no {name.file}" if name.file else "no model*.safetensors, but .gguf files: name one of them"
        return f"{name.repo} on the Hugging Face hub has {wanted}; {has}. Say {name.repo}/FILE.gguf"
    return f"{name.repo} on the Hugging Face hub has no weights that can be read: no model*.safetensors"


# -- what goes over the network -----------------------------------------------------------------------------------


def _bytes(name: HubName, file: str, start: int, size: int) -> bytes:
    """A part of a file on the hub, asked for again where it comes short."""
    if size == 0:
        return b""
    for _ in range(_TRIES):
        data: bytes = _asked(name, lambda: _range(name, file, start, size))
        if len(data) == size:
            return data
    raise ModelError(f"the Hugging Face hub sent {len(data)} bytes of {file} of {name} from {start} on, not {size}")


def _range(name: HubName, file: str, start: int, size: int) -> bytes:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

    url = hf_hub_url(name.repo, file, revision=name.revision)
    wanted = {"range": f"bytes={start}-{start + size - 1}", "accept-encoding": "identity"}
    answer = http_backoff("GET", url, headers={**build_hf_headers(), **wanted}, timeout=_SECONDS)
    hf_raise_for_status(answer)
    found: bytes = answer.content
    return found if answer.status_code == 206 else found[start : start + size]  # it does not know of ranges


def _asked(name: HubName, ask: Callable[[], Any]) -> Any:
    """What the hub's client brings.

    Raises:
        ModelError: it raised something.
    """
    try:
        return ask()
    except Exception as error:  # the client raises its own, its transport's and the system's
        raise ModelError(_why(name, error)) from error


def _why(name: HubName, error: Exception) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{name.repo}"
    sign_in = "run `hf auth login` on this device, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{name.repo} is gated: ask for access at {page}, then {sign_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.repo} has no revision {name.revision}; see {page}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no {page}, or it is private: then {sign_in}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, and this device does not have it"
    first = (str(error).strip().splitlines() or [""])[0]
    told = f"{type(error).__name__}: {first}" if first else type(error).__name__
    if isinstance(error, errors.HfHubHTTPError):
        return told
    return f"the Hugging Face hub at {constants.ENDPOINT} cannot be reached ({told})"
