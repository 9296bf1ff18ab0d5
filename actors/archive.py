"""Folders as archives: what of them is taken, its hash, and a zip file that is the same each time."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from actors.exceptions import RuntimeEnvError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_BYTES = 500 << 20
_NAMED = 5  # of the biggest files
_NEVER = {".git", "__pycache__"}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that is taken.

    Attributes:
        name: in the archive, with ``/``.
        path: where it is.
        size: in bytes.
        runs: whether it may be executed.
        changed: time of its last change, in nanoseconds.
    """

    name: str
    path: Path
    size: int
    runs: bool
    changed: int


@dataclass(frozen=True, slots=True)
class _Rule:
    """One line of a .gitignore."""

    pattern: re.Pattern[str]
    folders_only: bool
    takes: bool  # "!": what the rules before left out is taken after all

    def matches(self, name: str, *, is_folder: bool) -> bool:
        return (is_folder or not self.folders_only) and self.pattern.fullmatch(name) is not None


def read_rules(lines: Iterable[str], below: str = "") -> list[_Rule]:
    """Reads the lines of a .gitignore that lies in the folder ``below``, a name with a closing ``/`` or empty."""
    rules = []
    for raw in lines:
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        takes = line.startswith("!")
        line = line.removeprefix("!").removeprefix("./")
        folders_only = line.endswith("/")
        line = line.rstrip("/")
        if not line:
            continue
        anchored = "/" in line
        body = _expression(line.lstrip("/"))
        depth = "" if anchored else "(?:.*/)?"
        rules.append(_Rule(re.compile(re.escape(below) + depth + body, re.DOTALL), folders_only, takes))
    return rules


def _expression(pattern: str) -> str:
    """Returns a .gitignore pattern as a regular expression."""
    out = ""
    at = 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/"):
            out, at = out + "(?:.*/)?", at + 3
        elif rest == "**":
            out, at = out + ".*", at + 2
        elif rest[0] == "*":
            out, at = out + "[^/]*", at + 1
        elif rest[0] == "?":
            out, at = out + "[^/]", at + 1
        elif kind := re.match(r"\[([!^]?)(\]?[^\]]+|\])\]", rest):
            one = fnmatch.translate(f"[{'!' if kind[1] else ''}{kind[2]}]")
            out, at = f"{out}(?!/){one[4:-3]}", at + kind.end()  # without fnmatch's own beginning and end
        elif rest[0] == "\\" and len(rest) > 1:
            out, at = out + re.escape(rest[1]), at + 2
        else:
            out, at = out + re.escape(rest[0]), at + 1
    return out


def _is_left_out(name: str, rules: Sequence[_Rule], *, is_folder: bool) -> bool:
    return next((not rule.takes for rule in reversed(rules) if rule.matches(name, is_folder=is_folder)), False)


def files_of(folder: Path, excludes: Sequence[str] = ()) -> list[Entry]:
    """Returns the files of a folder that are taken, in order of their names.

    Left out are ``.git``, ``__pycache__``, what a ``.gitignore`` in it names, and ``excludes``, which is in the same
    language and comes last. Links are followed; what is no file, such as a socket, is left out.

    Raises:
        RuntimeEnvError: a folder in it cannot be read.
    """
    last = read_rules(excludes)
    try:
        return sorted(_walk(folder, "", [], last, (folder.resolve(),)), key=lambda entry: entry.name)
    except OSError as error:
        raise RuntimeEnvError(f"{folder} cannot be packed: {error}. Leave it out by 'excludes'") from error


def _walk(folder: Path, below: str, rules: list[_Rule], last: list[_Rule], above: tuple[Path, ...]) -> Iterator[Entry]:
    own = folder / ".gitignore"
    if own.is_file():
        rules = rules + read_rules(own.read_text(encoding="utf-8", errors="replace").splitlines(), below)
    with os.scandir(folder) as entries:
        found = list(entries)
    for item in found:
        name = below + item.name
        is_folder = item.is_dir()
        if item.name in _NEVER or _is_left_out(name, rules + last, is_folder=is_folder):
            continue
        path = Path(item.path)
        if is_folder:
            real = path.resolve()
            if real not in above:  # else a link to a folder that holds it
                yield from _walk(path, f"{name}/", rules, last, (*above, real))
            continue
        try:
            status = item.stat()
        except FileNotFoundError:  # a link to nowhere
            continue
        if stat.S_ISREG(status.st_mode):
            yield Entry(name, path, status.st_size, bool(status.st_mode & stat.S_IXUSR), status.st_mtime_ns)


def check_size(entries: Sequence[Entry], what: str, most: int = MOST_BYTES) -> None:
    """Refuses what is too big to be sent to every node.

    Raises:
        RuntimeEnvError: it is; the message names the biggest files.
    """
    total = sum(entry.size for entry in entries)
    if total <= most:
        return
    biggest = sorted(entries, key=lambda entry: -entry.size)[:_NAMED]
    files = "".join(f"\n  {_megabytes(entry.size)}  {entry.name}" for entry in biggest)
    raise RuntimeEnvError(
        f"{what} has {_megabytes(total)} in {len(entries)} files, and the limit is {_megabytes(most)}. "
        f"Leave out what actors do not need, by runtime_env={{'excludes': [...]}} or .gitignore. The biggest:{files}"
    )


def _megabytes(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def write_archive(entries: Sequence[Entry], target: Path) -> str:
    """Writes files into a zip file; returns the hash of their names, contents and right to be executed.

    Raises:
        RuntimeEnvError: a file cannot be read.
    """
    import zipfile  # late, as in all of this module: few processes pack or unpack

    digest = hashlib.sha256()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, on every system
            info.external_attr = (stat.S_IFREG | (0o755 if entry.runs else 0o644)) << 16
            info.file_size = entry.size  # lets the format hold files of over 2 GiB where need be
            content = hashlib.sha256()
            try:
                with entry.path.open("rb") as source, archive.open(info, "w") as packed:
                    while piece := source.read(_COPY_BYTES):
                        content.update(piece)
                        packed.write(piece)
            except OSError as error:
                raise RuntimeEnvError(
                    f"{entry.path} cannot be packed: {error.strerror}. Leave it out by 'excludes'"
                ) from error
            digest.update(repr((entry.name, entry.runs, content.hexdigest())).encode(errors="surrogateescape"))
    return digest.hexdigest()


def check_archive(path: Path) -> str:
    """Looks a zip file through; returns its hash.

    Raises:
        RuntimeEnvError: it cannot be read, or is too big unpacked.
    """
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, zipfile.BadZipFile) as error:
        raise RuntimeEnvError(f"{path} cannot be read as a zip file: {error}") from error
    check_size([Entry(info.filename, path, info.file_size, runs=False, changed=0) for info in infos], str(path))
    return digest


def extract(archive: Path, folder: Path) -> None:
    """Unpacks a zip file into a folder that appears whole or not at all; one that is there is left alone."""
    if folder.is_dir():
        return
    import zipfile

    draft = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True, mode=0o700)
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            path = packed.extract(info, draft)
            if info.external_attr >> 16 & stat.S_IXUSR and not info.is_dir():
                os.chmod(path, 0o700)
    draft.rename(folder)
