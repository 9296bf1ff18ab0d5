"""The ranks of a job on one host: started, listened to, and ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LINE_BYTES = 1 << 16  # a line that is longer is passed on in pieces
READ_SECONDS = 2.0  # what a rank printed last is waited for so long, where a child of its own holds its output open
_BATCH = 200
_WAITING = 2000  # events; a rank that prints faster than they are shown waits


@dataclass(frozen=True, slots=True)
class Printed:
    """A rank has printed a line."""

    rank: int
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A rank has ended; ``status`` is its exit status, or minus the number of the signal that ended it."""

    rank: int
    status: int


Event = Printed | Ended


class Ranks:
    """The ranks of one job on this host.

    Args:
        script: the file to run.
        arguments: for the script.
        folder: where they run; None for this process's own folder.
    """

    def __init__(self, script: str, arguments: Sequence[str], folder: str | None) -> None:
        self._command = [script, *arguments]
        self._folder = folder
        self._events: queue.Queue[Event] = queue.Queue(_WAITING)
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def run(self, environments: Mapping[int, Mapping[str, str]]) -> Iterator[list[Event]]:
        """Starts the ranks, each with variables of its own, and says what happens to them until all have ended."""
        # Only this process holds the writing end: with its end, however it comes, the ranks end.
        reading, writing = os.pipe()
        try:
            for rank, variables in environments.items():
                self._start(rank, variables, reading)
            left = len(environments)
            while left:
                events = self._next()
                left -= sum(isinstance(event, Ended) for event in events)
                yield events
        finally:
            self.signal(signal.SIGKILL)
            os.close(writing)
            os.close(reading)

    def _next(self) -> list[Event]:
        events = [self._events.get()]
        with contextlib.suppress(queue.Empty):
            while len(events) < _BATCH:
                events.append(self._events.get_nowait())
        return events

    def signal(self, number: int) -> None:
        """Sends all ranks that run, and what they have started, a signal."""
        for process in list(self._running.values()):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS says so of one that has just ended
                os.killpg(process.pid, number)

    def _start(self, rank: int, variables: Mapping[str, str], pipe: int) -> None:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "actors.launch.rank", str(pipe), *self._command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[pipe],
            start_new_session=True, env={**os.environ, **variables}, cwd=self._folder,
        )  # fmt: skip
        self._running[rank] = process
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            threading.Thread(target=self._read, args=(rank, name, pipe.fileno()), daemon=True)
            for name, pipe in (("stdout", process.stdout), ("stderr", process.stderr))
        ]
        for reader in readers:
            reader.start()
        threading.Thread(target=self._await, args=(rank, process, readers), daemon=True).start()

    def _read(self, rank: int, stream: str, descriptor: int) -> None:
        rest = b""
        while True:
            try:
                piece = os.read(descriptor, LINE_BYTES)
            except OSError:  # closed, since what held it open was not the rank itself
                return
            *lines, rest = (rest + piece).split(b"\n")
            if rest and (not piece or len(rest) >= LINE_BYTES):
                lines, rest = [*lines, rest], b""
            for line in lines:
                self._events.put(Printed(rank, stream, line.decode(errors="replace")))
            if not piece:
                return

    def _await(self, rank: int, process: subprocess.Popen[bytes], readers: Sequence[threading.Thread]) -> None:
        status = process.wait()
        del self._running[rank]
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left behind
        for reader in readers:
            reader.join(READ_SECONDS)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        self._events.put(Ended(rank, status))


def free_ports(host: str, count: int) -> list[int]:
    """Returns ports that nobody listens on at ``host`` just now."""
    with contextlib.ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sockets = [stack.enter_context(socket.socket(family, socket.SOCK_STREAM)) for _ in range(count)]
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
