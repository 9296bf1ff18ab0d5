"""Where things live on this machine: state, caches, logs, and the folders of a running cluster's sockets."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from actors.exceptions import ActorsError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

# macOS gives a socket's path 104 bytes with the closing zero (Linux 108); one limit for both.
SOCKET_PATH_LIMIT = 103
_RUN_NAME = re.compile(r"[a-z0-9]{1,8}")
_LONGEST_SOCKET = "/12345678-123456/w-0123456789ab.sock"
_ARENA_PREFIX = "mlx-actors-"
_ARENA = "arena"  # in the run folder, where shared memory has no place of its own
_OPEN_TO_WRITE = 0o022
_OPEN_AT_ALL = 0o077
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - what is used of it is checked to be ours; macOS has none
_WAY_OUT = "set ACTORS_HOME to a folder of your own"


def state_dir() -> Path:
    """The folder of this device's lasting state: keys, trust, sockets.

    ``ACTORS_HOME`` where set, else the platform's own place. Made with mode 0700 where missing. The path holds no
    symbolic link, so that two spellings of one folder are one device.

    Raises:
        ActorsError: the folder cannot be made, belongs to another user, or others can write to it.
    """
    return _top_folder("", "user_state_path")


def cache_dir() -> Path:
    """The folder of what can be fetched or made again; see ``state_dir``."""
    return _top_folder("cache", "user_cache_path")


def log_dir() -> Path:
    """The folder of log files; see ``state_dir``."""
    return _top_folder("log", "user_log_path")


def socket_dir() -> Path:
    """The folder of this device's run folders, short enough that every socket in one fits 103 bytes.

    ``run`` in the state folder; where a socket's path would be too long there, a folder under the temporary
    directory, named by the hash of the state folder and the user. Mode 0700 either way: on a Unix socket the
    folder is what keeps others out.

    Raises:
        ActorsError: the folder is not this user's alone, such as one that somebody else made first.
    """
    state = state_dir()
    digest = hashlib.sha256(f"{os.geteuid()} {state}".encode(errors="surrogateescape")).hexdigest()
    # The temporary directory is not resolved: on macOS that would add 8 bytes.
    shared = (Path(tempfile.gettempdir()), Path("/tmp"))  # noqa: S108 - the folder in it is checked to be ours
    for folder in (state / "run", *(temporary / f"actors-{digest[:10]}" for temporary in shared)):
        if len(os.fsencode(folder)) + len(_LONGEST_SOCKET) <= SOCKET_PATH_LIMIT:
            return private_folder(folder)
    raise ActorsError(f"no folder is short enough for sockets, not even /tmp; {_WAY_OUT} with a shorter path")


def private_folder(path: Path, *, forbidden: int = _OPEN_AT_ALL) -> Path:
    """Make a folder with mode 0700, or check that the one that is there is this user's own.

    Args:
        path: the folder; a symbolic link in its place is refused, those above it are followed.
        forbidden: permission bits that must not be set, by default all those of group and world.

    Returns:
        The path given.

    Raises:
        ActorsError: it cannot be made, is no folder, belongs to another user, or is open to others.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise ActorsError(f"cannot make the folder {path}: {error.strerror}; {_WAY_OUT}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ActorsError(f"{path} is not a folder but a file or a link; remove it, or {_WAY_OUT}")
    if found.st_uid != os.geteuid():
        raise ActorsError(
            f"the folder {path} belongs to user {found.st_uid} and this process runs as user {os.geteuid()}; {_WAY_OUT}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        raise ActorsError(f"the folder {path} is open to others (mode {mode:04o}); run: chmod 700 '{path}'")
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file with mode 0600 whole or not at all; its writers must hold one lock (see ``locked``)."""
    # One fixed name beside it: what a killed writer leaves, the next one takes away.
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)


@contextmanager
def locked(path: Path, *, timeout: float = 10.0) -> Iterator[None]:
    """Hold the lock file ``path`` against all other processes and threads.

    Args:
        path: the lock file; made where missing, and left there.
        timeout: seconds to wait for another holder. The lock of a process that died is free at once.

    Raises:
        ActorsError: another process held the lock for all that time.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while not _take(descriptor):
            if time.monotonic() > deadline:
                raise ActorsError(f"another process has held {path} for {timeout:g} s; is it stopped?")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


class RunDir:
    """A folder of one running cluster, held by this process and gone with it.

    ``path / "w-<12 hex digits>.sock"`` fits the limit of a socket's path. ``close`` removes the folder with all
    that is in it; where the process is killed instead, the next ``sweep`` does.
    """

    __slots__ = ("_locks", "path")

    def __init__(self, path: Path, lock: int, arena: int | None) -> None:
        self.path = path
        self._locks = [lock] if arena is None else [lock, arena]
        # systemd-tmpfiles leaves a locked folder under /tmp alone; it would take the lock file after ten days.
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._locks.append(descriptor)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def abandon(self) -> None:
        """Let go of the folder without removing it: in a forked child, whose parent still has it."""
        while self._locks:
            os.close(self._locks.pop())

    def close(self) -> None:
        """Remove the folder and let go of it; may be called again."""
        if self._locks:
            _remove(self.path)
        self.abandon()


def run_dir(name: str) -> RunDir:
    """A fresh folder for the sockets of one cluster, held until it is closed or the process ends.

    Args:
        name: what it is for, such as ``"node"``; 1 to 8 of a-z and 0-9. The folder's name has six random digits more.

    Raises:
        ValueError: the name is not of that form.
        ActorsError: see ``socket_dir``.
    """
    if not _RUN_NAME.fullmatch(name):
        raise ValueError(f"a run folder's name is 1 to 8 of a-z and 0-9, not {name!r}")
    parent = socket_dir()
    for _ in range(100):
        path = parent / f"{name}-{secrets.token_hex(3)}"
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        # A sweep may come between the two lines and take the folder, which has no owner yet: then another.
        lock = _hold(path)
        if lock is not None:
            return RunDir(path, lock, _make_arena(path))
    raise ActorsError(f"no fresh folder could be made in {parent} in 100 tries; remove what is in it")


def sweep() -> list[Path]:
    """Remove the run folders whose owners are dead, with the sockets in them, and this user's shared memory of such.

    Returns:
        The run folders removed.

    Raises:
        ActorsError: see ``socket_dir``.
    """
    with os.scandir(socket_dir()) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    removed = [folder for folder in folders if remove_if_dead(folder)]
    _sweep_memory()
    return removed


def held_folders() -> list[Path]:
    """Returns the run folders whose owners live."""
    with os.scandir(socket_dir()) as entries:
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    held = []
    for folder in folders:
        with suppress(OSError):  # it goes just now
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(folder)
            finally:
                os.close(descriptor)
    return held


def remove_if_dead(folder: Path) -> bool:
    """Remove a run folder unless its owner lives; returns whether it is gone."""
    try:
        lock = _hold(folder)
    except OSError:
        return False
    if lock is None:
        return False
    try:
        _remove(folder)
    finally:
        os.close(lock)
    return not folder.exists()


def arena_dir(run: Path) -> Path | None:
    """The folder of the memory that the processes of a cluster share; None where it has none.

    It is made and removed with the run folder. It lies in memory where the system has a place for that.

    Args:
        run: the cluster's run folder.
    """
    for folder in (arena_path(run), run / _ARENA):
        with suppress(OSError):
            found = folder.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _OPEN_AT_ALL:
                return folder
    return None


def arena_path(run: Path) -> Path:
    """Where the shared memory of a cluster with this run folder lies on Linux."""
    digest = hashlib.sha256(f"{os.geteuid()} {run.parent}".encode(errors="surrogateescape")).hexdigest()
    return _SHARED_MEMORY / f"{_ARENA_PREFIX}{digest[:10]}-{run.name}"


def _make_arena(run: Path) -> int | None:
    """Makes the folder of shared memory; returns a lock on it where it lies outside the run folder."""
    path = arena_path(run)
    with suppress(OSError):
        for _ in range(10):
            path.mkdir(mode=0o700)
            # A sweep may come between the two lines and take the folder, which has no owner yet: then once more.
            lock = _hold_memory(path)
            if lock is not None:
                return lock
    with suppress(OSError):
        (run / _ARENA).mkdir(mode=0o700)
    return None


def _hold_memory(folder: Path) -> int | None:
    """Locks a folder of shared memory itself; None where another process has it, or it is gone or not ours."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    held = False
    try:
        with suppress(OSError):
            found = os.fstat(descriptor)
            held = found.st_uid == os.geteuid() and _take(descriptor) and os.path.samestat(found, folder.lstat())
    finally:
        if not held:
            os.close(descriptor)
    return descriptor if held else None


def _sweep_memory() -> None:
    """Removes shared memory whose owner is dead, also where its run folder went with an `ACTORS_HOME` of its own."""
    for folder in _SHARED_MEMORY.glob(f"{_ARENA_PREFIX}*"):
        lock = _hold_memory(folder)
        if lock is not None:
            try:
                _remove_memory(folder)
            finally:
                os.close(lock)


def _remove_memory(arena: Path) -> None:
    gone = arena.with_name(f"{arena.name.removesuffix('.gone')}.gone")  # under it, no process puts anything more there
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):
        arena.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _remove(run: Path) -> None:
    """Removes a run folder and what belongs to it elsewhere, in an order that lets a later sweep go on with it."""
    _remove_memory(arena_path(run))
    shutil.rmtree(run, ignore_errors=True)


def _hold(folder: Path) -> int | None:
    """Lock a run folder; None where another process has it or it is gone.

    Only the holder of the lock file that lies in the folder may remove it. So a lock counts only if the file is
    still there once it is taken: it may be one that a sweep has removed together with its folder.
    """
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    held = False
    try:
        with suppress(FileNotFoundError):
            held = _take(descriptor) and os.path.samestat(os.fstat(descriptor), path.lstat())
    finally:
        if not held:
            os.close(descriptor)
    return descriptor if held else None


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _top_folder(below_home: str, platform_place: str) -> Path:
    path = _place(below_home, platform_place).resolve()
    try:
        str(path).encode()
    except UnicodeEncodeError:  # paths of sockets go over the wire, where all text is UTF-8
        shown = os.fsencode(path).decode(errors="replace")
        raise ActorsError(
            f"this locale cannot read the name of the folder {shown}; set LC_ALL=C.UTF-8, or {_WAY_OUT}"
        ) from None
    return private_folder(path, forbidden=_OPEN_TO_WRITE)


def _place(below_home: str, platform_place: str) -> Path:
    home = os.environ.get("ACTORS_HOME", "")
    if not home:
        import platformdirs

        place: Path = getattr(platformdirs, platform_place)("mlx-actors", appauthor=False)
        return place
    path = Path(home).expanduser()
    if not path.is_absolute():
        # Workers run in other folders: a relative path would be another device there.
        raise ActorsError(f"ACTORS_HOME must be an absolute path, not {home!r}; set it to {str(path.absolute())!r}")
    private_folder(path.resolve(), forbidden=_OPEN_TO_WRITE)
    return path / below_home
