"""The arena: memory that the processes of one host share, where large values lie once.

A value's buffers are written into a file of their own in the cluster's folder, which on Linux is memory. Who receives
the value maps the file instead of getting the bytes. Each process has a name of its own for what it uses, a link that
goes with its last use; so the order in which processes let go of a value does not matter. A large file for
which only its maker has a name is written again, see `actors.spares`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import resource
import socket
import stat
import sys
import weakref
from itertools import count
from typing import TYPE_CHECKING, cast

from actors.address import host_key
from actors.courtesy import courteous
from actors.draft import PIECE_BYTES, Draft, write
from actors.emptying import LEAST_BYTES as MUCH_BYTES
from actors.emptying import MODE, discard, unlink, wait
from actors.mappings import KEEPS_DESCRIPTOR, Mappings
from actors.messages import Shared
from actors.reserve import Reserve
from actors.shortage import NoThreadError, begin
from actors.spares import IDLE_SECONDS, KEPT_MODE, Spare, Spares

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from actors.mappings import Mapping
    from actors.messages import Buffer
    from actors.segment import Segment

LEAST_BYTES = 1 << 20  # buffers of less in all travel faster with their message

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_ALIGNMENT = 64  # of each buffer, for vector instructions
_COPIED_BYTES = 4 << 20  # at once by one thread; what is larger is copied by two
_MOST_MAPPINGS = 16_000  # a quarter of what Linux lets a process have


class Arena:
    """This process's part in the memory that a cluster shares on this host.

    `store` and `lend` may be called from any thread.

    Args:
        folder: of the cluster's shared memory, see `actors.home.arena_dir`.
        process: id of this process.

    Attributes:
        key: the same for two processes that see the same folder, and for no others.
        folder: of the cluster's shared memory.
    """

    def __init__(self, folder: Path, process: str) -> None:
        found = folder.stat()
        self.key = f"{host_key()}/{found.st_dev:x}.{found.st_ino:x}"
        self.folder = folder
        self._process = process
        self._numbers = count(1)
        self._names: set[str] = set()  # of what is mapped
        self._spares = Spares(folder)
        self._mappings = Mappings(folder)
        self._most = _most_mappings()
        self._pid = os.getpid()
        self._reserve = Reserve()
        _arenas.add(self)

    def store(self, buffers: Sequence[memoryview]) -> list[memoryview] | None:
        """Copies buffers of bytes into one new segment; returns them there, read-only.

        Returns None where there is no room: in memory, where half is left to others, or for one more mapping.
        """
        if os.getpid() != self._pid or len(self._names) >= self._most:
            return None
        starts, size = _laid_out(buffers)
        if size >= LEAST_BYTES and (spare := self._spares.take(size, self._new_path)) is not None:
            return self._rewritten(spare, buffers, starts)
        path = self._new_path()
        try:
            return self._written(path, buffers, starts, size)
        except OSError:  # the folder is gone, the memory full, or a limit reached
            unlink(path)
            return None
        except BaseException:
            unlink(path)
            raise

    def _written(
        self, path: Path, buffers: Sequence[memoryview], starts: Sequence[int], size: int
    ) -> list[memoryview] | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            if not _has_room(descriptor, size):
                self._spares.trim(0)
                wait()
                if not _has_room(descriptor, size):
                    unlink(path)
                    return None
            os.ftruncate(descriptor, size)
            # Written, not copied into a mapping: where the memory is full that is an error, and not a SIGBUS.
            for buffer, start in zip(buffers, starts, strict=True):
                write(descriptor, start, buffer)
            mapping = self._mappings.map(descriptor, os.fstat(descriptor))
        finally:
            os.close(descriptor)
        ended = (self._spares.add, Spare(path, size, None)) if size >= LEAST_BYTES else (unlink, path)
        view = self._segment(mapping, path, size, *ended)
        return [view[start : start + len(buffer)] for buffer, start in zip(buffers, starts, strict=True)]

    def _rewritten(self, spare: Spare, buffers: Sequence[memoryview], starts: Sequence[int]) -> list[memoryview] | None:
        assert spare.mapping is not None
        try:
            for buffer, start in zip(buffers, starts, strict=True):
                if buffer.nbytes:
                    _copy(buffer, spare.mapping, start)
        except BaseException:
            unlink(spare.path)
            raise
        view = self._segment(spare.mapping, spare.path, spare.size, self._spares.add, spare)
        return [view[start : start + len(buffer)] for buffer, start in zip(buffers, starts, strict=True)]

    def trim(self, idle: float = IDLE_SECONDS) -> None:
        """Gives memory back that was kept to be written or read again, and was not for so many seconds."""
        self._spares.trim(idle)
        self._mappings.trim(idle)
        if "numpy" in sys.modules:  # else nothing is kept
            from actors import pages

            pages.trim(idle)

    @property
    def mapped(self) -> int:
        """How many files are mapped to be read, with those kept to be read again."""
        return len(self._mappings)

    def lend(self, buffers: Sequence[Buffer]) -> tuple[Shared, ...]:
        """Says of those of these buffers that lie in the arena where they do; what it returns keeps them there."""
        lent = []
        for index, buffer in enumerate(buffers):
            if not isinstance(buffer, memoryview) or not buffer.nbytes:
                continue
            segment = segment_of(buffer)
            if segment is not None and segment.folder == self.folder:
                offset = _address(buffer) - segment.ctypes.data
                if 0 <= offset <= len(segment) - buffer.nbytes:
                    lent.append(Shared(index, segment.name, offset, buffer.nbytes, buffer))
        return tuple(lent)

    def take(self, shared: Sequence[Shared]) -> list[memoryview]:
        """Returns buffers that another process has lent, which must keep them until this returns.

        Raises:
            ValueError: no such buffers can be in the arena.
            OSError: they are not there any more, or cannot be mapped.
        """
        files: dict[str, memoryview] = {}
        buffers = []
        for part in shared:
            file = files.get(part.name)
            if file is None:
                file = files[part.name] = self.link(part.name).open()
            end = part.offset + part.size
            if end > len(file):
                raise ValueError(f"{part.name} has {len(file)} bytes of shared memory, not {end}")
            buffers.append(file[part.offset : end])
        return buffers

    def link(self, name: str) -> Linked:
        """Gives another process's file a name of this process's own too, by which it stays.

        Raises:
            ValueError: there can be no such file.
            OSError: it is not there any more.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name[:100]!r} is no name of shared memory")
        path = self._new_path()
        os.link(self.folder / name, path)
        return Linked(path, self._opened)

    def draft(self, size: int) -> Draft | None:
        """Opens a file of so many bytes, to be written bit by bit; None where there is no room, or no memory for it."""
        if not self._spares.in_memory:
            return None
        spare = self._spares.take(size, self._new_path)
        path = spare.path if spare is not None else self._new_path()
        made = 0 if spare is not None else os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | made, MODE)
        except OSError:
            unlink(path)
            return None
        draft = Draft(spare or Spare(path, size, None), descriptor, self._spares)
        if spare is None:
            try:
                if not _has_room(descriptor, size):
                    raise OSError(errno.ENOSPC, "the rest is left to others")
                os.ftruncate(descriptor, size)
            except OSError:
                draft.close(again=False)
                return None
        return draft

    def _opened(self, path: Path) -> memoryview:
        name = path.name
        try:
            with self._reserve.open(path) as descriptor:
                found = os.fstat(descriptor)
                if not stat.S_ISREG(found.st_mode) or not found.st_size:
                    raise ValueError(f"{name} is no shared memory")
                if len(self._names) < self._most:
                    with contextlib.suppress(OSError):  # no descriptor is left, or no room for one more mapping
                        mapping = self._mappings.map(descriptor, found)
                        return self._segment(mapping, path, found.st_size, _read_on, path, mapping, self._mappings)
                content = _read(descriptor, found.st_size)
        except BaseException:
            unlink(path)
            raise
        unlink(path)
        return memoryview(content).toreadonly()

    def _segment(
        self, mapping: mmap.mmap, path: Path, size: int, then: Callable[..., None], *args: object
    ) -> memoryview:
        from actors.segment import segment  # here, since it takes numpy

        made = segment(mapping, size, path)
        self._names.add(path.name)
        weakref.finalize(made, _ended, path.name, self._names, self._pid, then, *args)
        return made.data

    def _new_path(self) -> Path:
        return self.folder / f"{self._process}-{next(self._numbers)}"

    def keep(self) -> None:
        """Sees to it that nothing mapped here is written again: a forked child reads it, and gives no sign of it."""
        for name in tuple(self._names):
            with contextlib.suppress(OSError):
                (self.folder / name).chmod(KEPT_MODE)

    def clear(self) -> None:
        """Gives this process's names up: it leaves. What it still reads is never written again."""
        if os.getpid() == self._pid:
            self.keep()
        remove(self.folder, self._process)


class Linked:
    """A file of another process, for which this one has a name; the name goes with this object, or with the mapping."""

    def __init__(self, path: Path, opened: Callable[[Path], memoryview]) -> None:
        self._path: Path | None = path
        self._opened = opened
        self._pid = os.getpid()

    def open(self) -> memoryview:
        """Returns what is in it, once.

        Raises:
            ValueError: it is empty, or no file.
            OSError: it cannot be mapped.
        """
        assert self._path is not None
        path, self._path = self._path, None
        return self._opened(path)

    def __del__(self) -> None:
        if self._path is not None and os.getpid() == self._pid:
            unlink(self._path)


def remove(folder: Path, process: str) -> None:
    """Removes what a process that ends has in the arena. What others have mapped stays there for them."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(f"{process}-"):
                unlink(entry.path)


def sweep(folder: Path, sockets: Path) -> None:
    """Removes what is left of processes that have ended and that no node was there to bury.

    Args:
        folder: the arena.
        sockets: where processes listen at ``ID.sock`` while they live.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for process in {entry.name.rpartition("-")[0] for entry in entries}:
            if process and not _listens(sockets / f"{process}.sock"):
                remove(folder, process)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # it is busy, or this process has run out of something
            pass
        return True


def owner_of(buffer: memoryview) -> object:
    """Returns the object whose memory this is, as far as views and numpy arrays tell."""
    owner: object = buffer.obj
    while True:
        if isinstance(owner, memoryview):
            owner = owner.obj
        elif type(owner).__module__ == "numpy" and getattr(owner, "base", None) is not None:
            owner = owner.base  # type: ignore[attr-defined]
        else:
            return owner


def segment_of(buffer: memoryview) -> Segment | None:
    """Returns the segment in which these bytes lie; None for any other memory."""
    owner = owner_of(buffer)
    # By the module's name: to load it takes numpy, and who has not loaded it has no segments.
    return cast("Segment", owner) if type(owner).__module__ == "actors.segment" else None


def _copy(buffer: memoryview, mapping: mmap.mmap, start: int) -> None:
    """Copies bytes to their place; many by two threads, since one core alone does not use all of the memory's speed."""
    import numpy as np

    source = np.frombuffer(buffer, np.uint8)
    target = np.frombuffer(mapping, np.uint8, len(source), start)
    if len(source) <= _COPIED_BYTES:
        np.copyto(target, source)
        return
    pieces = iter(range(0, len(source), _COPIED_BYTES))  # whose core has other work takes fewer of them

    def copy() -> None:
        for at in pieces:  # unlike a memoryview, numpy lets other threads run meanwhile
            np.copyto(target[at : at + _COPIED_BYTES], source[at : at + _COPIED_BYTES])
            courtesy.give_way()

    with courteous() as courtesy:
        other = None
        if (os.cpu_count() or 1) > 1:
            with contextlib.suppress(NoThreadError):  # then this one copies all
                other = begin(copy, "actors-copy")
        copy()
        if other is not None:
            other.join()


def _laid_out(buffers: Sequence[memoryview]) -> tuple[list[int], int]:
    """Returns where each buffer starts, and how long all are together."""
    starts, end = [], 0
    for buffer in buffers:
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        starts.append(start)
        end = start + len(buffer)
    return starts, end


def _address(buffer: memoryview) -> int:
    import numpy as np

    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address


def _read(descriptor: int, size: int) -> bytearray:
    content = bytearray(size)
    view, done = memoryview(content), 0
    with io.FileIO(descriptor, closefd=False) as file:
        while done < size and (count := file.readinto(view[done : done + PIECE_BYTES])):
            done += count
    if done < size:
        raise ValueError("shared memory has become shorter")
    return content


def _most_mappings() -> int:
    if not KEEPS_DESCRIPTOR:
        return _MOST_MAPPINGS
    # Before Python 3.13 each mapping keeps a file open: most of what this process may open is for connections.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_MAPPINGS if soft == resource.RLIM_INFINITY else min(_MOST_MAPPINGS, soft // 4)


def _has_room(descriptor: int, size: int) -> bool:
    room = os.fstatvfs(descriptor)
    return size <= room.f_bavail * room.f_frsize // 2


def _ended(name: str, names: set[str], pid: int, then: Callable[..., None], *args: object) -> None:
    # On any thread, between any two instructions. In a forked child the name is its parent's.
    if os.getpid() == pid:
        names.discard(name)
        then(*args)


def _read_on(path: Path, mapping: Mapping, mappings: Mappings) -> None:
    """Gives up a name of another process's file, and keeps the mapping, since that file may come again."""
    if len(mapping) < MUCH_BYTES:
        unlink(path)
    else:
        discard(path, mapping)
    mappings.keep(mapping)


_arenas: weakref.WeakSet[Arena] = weakref.WeakSet()


def _keep_all() -> None:
    for arena in list(_arenas):
        arena.keep()


# In the child as well, for what another thread has mapped since.
os.register_at_fork(before=_keep_all, after_in_child=_keep_all)

_current: Arena | None = None


def use(arena: Arena | None) -> None:
    """Sets, or with None ends, where large values of this process are put."""
    global _current  # noqa: PLW0603 - one cluster a process
    _current = arena


def current() -> Arena | None:
    """Returns where large values of this process are put; None where it shares no memory."""
    return _current
