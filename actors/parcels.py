"""The owner's side of `runtime_env`: folders are packed once, and handed to each node that asks."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from actors.archive import Entry, check_archive, check_size, files_of, write_archive
from actors.environment import Environment, Parcel
from actors.exceptions import RuntimeEnvError
from actors.messages import Payload
from actors.requirements import read_requirements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.address import Address
    from actors.transport.acceptor import Visitor

PIECE_BYTES = 4 << 20
SETTLED_NANOSECONDS = 1_000_000_000


class Parcels:
    """What this process has packed, as the service ``"parcels"``.

    Args:
        address: of this process.
        folder: of the cluster; what is packed lies in it and ends with it.

    Attributes:
        base: the environment that `actors.init` was given, for all actors of this program.
    """

    def __init__(self, address: Address, folder: Path) -> None:
        self.base: Environment | None = None
        self._address = address
        self._folder = folder / f"parcels-{address.process}"
        self._known: dict[str, tuple[Any, str]] = {}  # how a folder looked when it was packed, and its hash
        self._lock = threading.Lock()  # two threads may make actors

    # -- packing ------------------------------------------------------------------------------------------------

    def prepare(self, env: dict[str, Any] | None, base: Environment | None) -> Environment | None:
        """Packs what a ``runtime_env`` names, and fills in from ``base`` what it does not say.

        Raises:
            RuntimeEnvError: a path in it cannot be used, or is too big.
        """
        if not env:
            return base
        excludes = tuple(env.get("excludes") or ())
        working_dir, modules, pip = env.get("working_dir"), env.get("py_modules"), env.get("pip")
        return Environment(
            env_vars=dict(env.get("env_vars") or {}),
            working_dir=self._working_dir(Path(working_dir), excludes) if working_dir is not None else None,
            py_modules=tuple(self._module(module, excludes) for module in modules) if modules else None,
            pip=read_requirements(pip) if pip else None,
        ).over(base)

    def _working_dir(self, given: Path, excludes: Sequence[str]) -> Parcel:
        path = given.expanduser().absolute()
        if path.is_dir():
            return self._pack(f"working_dir {path}", files_of(path, excludes))
        if path.is_file() and path.suffix == ".zip":
            return self._take(f"working_dir {path}", path)
        raise RuntimeEnvError(f"runtime_env['working_dir']: {path} is no folder and no .zip file here")

    def _module(self, given: Any, excludes: Sequence[str]) -> Parcel:
        path = _path_of(given) if isinstance(given, ModuleType) else Path(given).expanduser().absolute()
        if path.is_dir():
            entries = files_of(path, excludes)
            return self._pack(f"py_modules {path}", [_below(path.name, entry) for entry in entries])
        if path.is_file() and path.suffix in {".whl", ".zip"}:
            return self._take(f"py_modules {path}", path)
        if path.is_file() and path.suffix in {".py", ".so"}:
            status = path.stat()
            return self._pack(f"py_modules {path}", [Entry(path.name, path, status.st_size, False, status.st_mtime_ns)])
        raise RuntimeEnvError(f"runtime_env['py_modules']: {path} is no folder, .py, .whl or .zip file here")

    def _pack(self, label: str, entries: list[Entry]) -> Parcel:
        check_size(entries, label)
        looks = [(entry.name, entry.size, entry.runs, entry.changed) for entry in entries]
        with self._lock:
            before, digest = self._known.get(label, (None, ""))
            if before != looks:
                # What was changed just now may change again without a new time.
                settled = all(entry.changed < time.time_ns() - SETTLED_NANOSECONDS for entry in entries)
                draft = self._ready_folder() / "new"
                digest = write_archive(entries, draft)
                draft.rename(self._folder / digest)
                self._known[label] = (looks if settled else None, digest)
        return Parcel(digest, label, self._address)

    def _take(self, label: str, path: Path) -> Parcel:
        digest = check_archive(path)
        with self._lock:
            target = self._ready_folder() / digest
            if not target.exists():
                # A copy: the file may be another one when a node asks.
                draft = self._folder / "new"
                draft.write_bytes(path.read_bytes())
                draft.rename(target)
        return Parcel(digest, label, self._address)

    def _ready_folder(self) -> Path:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        return self._folder

    # -- the service --------------------------------------------------------------------------------------------

    async def fetch(self, _: Visitor, digest: str, offset: int) -> Payload | None:
        """Returns a piece of a parcel; see `read_piece`."""
        return await asyncio.to_thread(read_piece, self._folder, digest, offset)


def read_piece(folder: Path, digest: str, offset: int) -> Payload | None:
    """Returns `PIECE_BYTES` of a parcel kept in a folder, fewer at its end, out of band; None if it is not there.

    In pieces, so that many nodes may ask at once in bounded memory, and none has to come in a given time.
    """
    if not digest.isalnum():  # it comes from elsewhere, and names a file
        return None
    try:
        with (folder / digest).open("rb") as file:
            file.seek(offset)
            return Payload(b"", (file.read(PIECE_BYTES),))
    except FileNotFoundError:
        return None


def _path_of(module: ModuleType) -> Path:
    """Returns the folder or file of a module; of one in a package, the whole package's."""
    top = sys.modules.get(module.__name__.partition(".")[0], module)
    folders = list(getattr(top, "__path__", ()))
    where = folders[0] if folders else getattr(top, "__file__", None)
    if where is None:
        raise RuntimeEnvError(f"runtime_env['py_modules']: the module {module.__name__!r} is in no file")
    return Path(os.path.abspath(where))


def _below(folder: str, entry: Entry) -> Entry:
    return Entry(f"{folder}/{entry.name}", entry.path, entry.size, entry.runs, entry.changed)
