"""What a node's actors have printed, kept in files: rotated, bounded in all, and read again later."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import re
import secrets
import shutil
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

from actors.home import log_dir, private_folder
from actors.shortage import begin

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

FILE_BYTES = 10 << 20
OLD_FILES = 5  # beside the one that is written; what is older is dropped
KEPT_BYTES = 512 << 20  # of workers that have ended, on one node
KEPT_WORKERS = 1000
OLD_NODES = 50  # folders of nodes that have ended
OLD_NODES_BYTES = 1 << 30
OPEN_FILES = 64
WAITING_BYTES = 64 << 20  # what is printed faster than the disk takes it is counted and left out
LINE_COSTS = 200  # bytes that a line takes beside its text while it waits
CLOSE_SECONDS = 2.0

LogLine = tuple[str, str, str]
"""When it was printed (ISO 8601), on which stream, what."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who printed a line.

    Attributes:
        worker: id of the process.
        pid: its number.
        actor: id of the actor it is; None before it is one.
        name: the actor's name, if it has one.
        class_name: the actor's class.
    """

    worker: str
    pid: int
    actor: str | None = None
    name: str | None = None
    class_name: str | None = None

    @property
    def file_name(self) -> str:
        """Name of the file for it, such as ``worker-4711-Counter.log``."""
        return f"worker-{self.pid}-{_safe(self.class_name)}.log" if self.class_name else f"worker-{self.pid}.log"


class Logs:
    """Takes lines over on the node's loop, and writes them on a thread of its own. Nothing printed, nothing made.

    Files are in a folder of this node's, below `actors.home.log_dir`; a line begins with its time and its stream.

    Args:
        node: the node's name.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._orders: queue.SimpleQueue[tuple[Callable[[], None], Future[None] | None] | None] = queue.SimpleQueue()
        self._thread = begin(self._run, "actors-logs")
        self._left_out = 0
        self._taken = 0  # bytes; counted on the loop alone
        self._written = 0  # and on the thread alone
        self._folder: Path | None = None
        self._lock: int | None = None
        self._paths: dict[str, Path] = {}  # by worker
        self._known: dict[str | int, Path] = {}  # by actor, name and pid
        self._authors: dict[str, Author] = {}  # by worker, as it was called last
        self._open: OrderedDict[Path, _File] = OrderedDict()
        self._ended: deque[tuple[str, Path, int]] = deque()
        self._ended_bytes = 0

    # -- on the node's loop -------------------------------------------------------------------------------------

    def add(self, author: Author, stream: str, text: str) -> None:
        """Takes a line over; drops it where the disk is far behind."""
        if self._taken - self._written > WAITING_BYTES:
            self._left_out += 1
            return
        when = datetime.now().astimezone().isoformat(timespec="milliseconds")
        line = f"{when} {stream} {text}"
        if self._left_out:
            line, self._left_out = f"{when} {stream} ({self._left_out} lines were left out here)\n{line}", 0
        cost = len(line) + LINE_COSTS
        self._taken += cost
        self._orders.put((lambda: self._write(author, line, cost), None))

    def ended(self, worker: str) -> None:
        """A worker has ended: its file is closed, and the oldest such files go where they are too many."""
        self._orders.put((lambda: self._end(worker), None))

    async def read(self, who: str | int, count: int) -> list[LogLine]:
        """Returns the last ``count`` lines of an actor, by its id or name, or of a worker, by its pid.

        Raises:
            LookupError: nothing is kept of it.
        """
        found: list[LogLine] = []
        done: Future[None] = Future()
        self._orders.put((lambda: found.extend(self._last(who, count)), done))
        await asyncio.wrap_future(done)
        return found

    async def read_all(self, count: int) -> list[tuple[Author, list[LogLine]]]:
        """Returns the last ``count`` lines of each worker of which something is kept."""
        found: list[tuple[Author, list[LogLine]]] = []
        done: Future[None] = Future()
        self._orders.put((lambda: self._all(found, count), done))
        await asyncio.wrap_future(done)
        return found

    def close(self) -> None:
        """Writes what waits and closes all files. Not for the loop: it may take a moment."""
        self._orders.put(None)
        self._thread.join(CLOSE_SECONDS)

    # -- on the thread that writes ------------------------------------------------------------------------------

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            work, done = order
            if done is not None and not done.set_running_or_notify_cancel():
                continue
            try:
                work()
            except Exception as error:
                if done is not None:
                    done.set_exception(error)
                else:
                    log.warning("what an actor printed could not be kept: %s", error)
            else:
                if done is not None:
                    done.set_result(None)
        for file in self._open.values():
            file.close()
        if self._lock is not None:
            os.close(self._lock)

    def _write(self, author: Author, line: str, cost: int) -> None:
        self._written += cost
        path = self._path_of(author)
        file = self._open.get(path)
        if file is None:
            file = self._open[path] = _File(path)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(path)
        file.emit(logging.makeLogRecord({"msg": line}))

    def _path_of(self, author: Author) -> Path:
        path = self._paths.get(author.worker)
        if path is None:
            # As it was called when it first printed: one that prints before it is an actor keeps that file.
            path = self._paths[author.worker] = self._made_folder() / author.file_name
        self._authors[author.worker] = author
        for key in (author.pid, author.actor, author.name):
            if key is not None:
                self._known[key] = path
        return path

    def _made_folder(self) -> Path:
        if self._folder is None:
            nodes = private_folder(log_dir() / "nodes")
            _drop_old(nodes)
            started = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")  # so that their order is that of their age
            folder = private_folder(nodes / f"{started}-{_safe(self._node)}-{secrets.token_hex(3)}")
            self._lock = _lock(folder)  # while it is held, nobody takes the folder for an old one
            self._folder = folder
        return self._folder

    def _end(self, worker: str) -> None:
        path = self._paths.get(worker)
        if path is None:  # it has printed nothing
            return
        if (file := self._open.pop(path, None)) is not None:
            file.close()
        size = sum(part.stat().st_size for part in _parts(path))
        self._ended.append((worker, path, size))
        self._ended_bytes += size
        while len(self._ended) > KEPT_WORKERS or self._ended_bytes > KEPT_BYTES:
            self._forget(*self._ended.popleft())

    def _forget(self, worker: str, path: Path, size: int) -> None:
        self._ended_bytes -= size
        del self._paths[worker], self._authors[worker]
        for key in [key for key, kept in self._known.items() if kept == path]:
            del self._known[key]
        for part in _parts(path):
            part.unlink(missing_ok=True)

    def _last(self, who: str | int, count: int) -> list[LogLine]:
        path = self._known.get(who)
        if path is None:
            raise LookupError(f"node {self._node} has kept nothing that {who!r} printed")
        return self._read(path, count)

    def _all(self, found: list[tuple[Author, list[LogLine]]], count: int) -> None:
        found += [(author, self._read(self._paths[worker], count)) for worker, author in self._authors.items()]

    @staticmethod
    def _read(path: Path, count: int) -> list[LogLine]:
        lines: list[str] = []
        for part in reversed(_parts(path)):
            with part.open(encoding="utf-8", errors="replace", newline="\n") as file:
                lines = [*deque(file, maxlen=max(0, count - len(lines))), *lines]
        return list(map(_parsed, lines))


class _File(RotatingFileHandler):
    """One worker's file. A disk that is full costs lines of a log, and nothing else."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8", errors="backslashreplace", delay=True
        )

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """See `logging.Handler`."""
        log.warning("a line could not be kept in %s", self.baseFilename, exc_info=True)


def _drop_old(nodes: Path) -> None:
    """Removes the folders of nodes that have ended, the oldest first, until few and small ones are left."""
    folders = sorted((path for path in nodes.iterdir() if path.is_dir()), reverse=True)
    size = 0
    for place, folder in enumerate(folders):
        with contextlib.suppress(OSError):  # one that lives rotates its files
            size += sum(file.stat().st_size for file in folder.iterdir())
        if place >= OLD_NODES or size > OLD_NODES_BYTES:
            lock = _lock(folder)
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Takes the lock of a node's folder, which its node holds while it lives; None where another has it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _safe(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)[:80]


def _parts(path: Path) -> list[Path]:
    """Returns the files that a log was rotated into, the oldest first."""
    rotated = [path.with_name(f"{path.name}.{number}") for number in range(OLD_FILES, 0, -1)]
    return [part for part in (*rotated, path) if part.exists()]


def _parsed(line: str) -> LogLine:
    when, _, rest = line.rstrip("\n").partition(" ")
    stream, _, text = rest.partition(" ")
    return when, stream, text
