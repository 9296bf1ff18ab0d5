"""Helpers of the black-box tests: waiting for conditions, processes, and programs that use a cluster of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import pytest

import actors
from actors.home import arena_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

# Seconds in which a death must be known; what a Ray cluster does is not ours to promise.
SOON = 20.0 if "ACTORS_TEST_RAY" in os.environ else 5.0
_PROGRAM_MARK = "ACTORS_TEST_PROGRAM"


def slow(*values: Any) -> list[Any]:
    """Values of a parameter that `make test` leaves to `make test-all`."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def eventually(condition: Callable[[], Any], within: float = 30.0, what: str = "") -> Any:
    """Returns the first true value of ``condition``, which is asked until ``within`` seconds are over."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or getattr(condition, '__name__', condition)}")
        time.sleep(0.02)
    return value


def failure(ref: actors.ObjectRef[Any], within: float = SOON) -> BaseException:
    """Returns the error that a call ends with; it must end within that many seconds."""
    try:
        value = actors.get(ref, timeout=within)
    except actors.exceptions.GetTimeoutError:
        raise AssertionError(f"{ref!r} got no reply within {within:g} s") from None
    except Exception as error:
        return error
    raise AssertionError(f"{ref!r} gave {value!r} instead of an error")


def is_gone(pid: int) -> bool:
    """Whether a process has ended and was waited for."""
    return not psutil.pid_exists(pid)


@actors.remote
class Latch:
    """Calls wait at it until somebody opens it: how a test holds a call back without sleeping."""

    def __init__(self) -> None:
        import asyncio

        self._opened = asyncio.Event()
        self._waiting = 0

    async def wait(self, value: object = None) -> object:
        self._waiting += 1
        await self._opened.wait()
        return value

    async def waiting(self) -> int:
        return self._waiting

    async def open(self) -> None:
        self._opened.set()


@actors.remote
class Counter:
    """The smallest actor with state."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def pid(self) -> int:
        return os.getpid()


class Program:
    """A Python program in a process of its own, with a state folder and a temporary folder of its own.

    Args:
        code: the program; it is dedented.
        how: ``"file"``, ``"command"`` for ``python -c``, or ``"stdin"``.
        beside: further files for the folder it runs in, by name.
        options: for the interpreter.
    """

    def __init__(
        self, code: str, *, how: str = "file", beside: dict[str, str] | None = None, options: tuple[str, ...] = ()
    ) -> None:
        # Not under TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="program-", dir="/tmp")).resolve()
        self.home = self.folder / "home"
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir()
        self._lines: list[str] = []
        self._errors: list[str] = []
        code = textwrap.dedent(code)
        for name, text in {**(beside or {}), "program.py": code}.items():
            (self.folder / name).write_text(textwrap.dedent(text))
        command = [sys.executable, *options]
        command += {"file": ["program.py"], "command": ["-c", code], "stdin": ["-"], "console": ["-i", "-q"]}[how]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, "ACTORS_HOME": str(self.home), "TMPDIR": str(self.temporary), **self._mark()},
            start_new_session=True,  # as a terminal does: Ctrl-C is for it and its children alone
        )
        assert self.process.stdin is not None
        if how in {"stdin", "console"}:
            self.process.stdin.write(code)
        self.process.stdin.close()
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._errors)),
        ]
        for reader in self._readers:
            reader.start()

    def _mark(self) -> dict[str, str]:
        return {_PROGRAM_MARK: self.folder.name}

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:  # one by one: they are read meanwhile
                lines.append(line.rstrip("\n"))  # noqa: PERF401

    def line(self, prefix: str, within: float = 30.0) -> str:
        """Waits for a printed line with this prefix; returns what follows it."""

        def found() -> list[str]:
            lines = [line for line in list(self._lines) if line.startswith(prefix)]
            assert lines or self.process.poll() is None or any(reader.is_alive() for reader in self._readers), (
                f"it ended with {self.process.returncode} before it printed {prefix!r}:\n{self.report()}"
            )
            return lines

        return str(eventually(found, within, f"a line with {prefix!r}")[0][len(prefix) :].strip())

    def ends(self, within: float = 60.0) -> int:
        """Waits for its end; returns its exit status, minus the signal's number for one that was killed."""
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {within:g} s:\n{self.report()}") from None
        for reader in self._readers:
            reader.join(5)
        return status

    def interrupt(self) -> None:
        """Does what Ctrl-C in a terminal does: SIGINT for the process and all those of its group."""
        os.killpg(self.process.pid, signal.SIGINT)

    @property
    def printed(self) -> list[str]:
        """The lines it printed so far."""
        return list(self._lines)

    @property
    def complaints(self) -> str:
        """What it said on standard error."""
        return "\n".join(self._errors)

    def report(self) -> str:
        """All it said."""
        return "\n".join([*self._lines, "-- standard error:", *self._errors])

    def leavings(self) -> list[str]:
        """Returns what is left of it: processes, sockets, files and shared memory."""
        walked = os.walk(self.folder)  # not rglob, which fails where a folder goes meanwhile
        paths = (Path(folder, name) for folder, folders, names in walked for name in (*folders, *names))
        files = [path for path in paths if self.temporary in path.parents or path.is_socket()]
        run = self.home / "run"
        files += list(run.iterdir()) if run.is_dir() else []
        return [*map(_described, self.processes()), *map(str, files), *map(str, self.segments())]

    def segments(self) -> list[Path]:
        """Returns the folders of shared memory of its clusters; none on macOS."""
        any_of_its = arena_path(self.home / "run" / "*")
        return list(any_of_its.parent.glob(any_of_its.name))

    def leaves_nothing(self, within: float = 30.0) -> None:
        """Waits until nothing is left of it."""
        deadline = time.monotonic() + within
        while left := self.leavings():
            assert time.monotonic() < deadline, "\n".join([f"left after {within:g} s:", *left, self.report()])
            time.sleep(0.05)

    def processes(self) -> list[psutil.Process]:
        """Returns every living process that it started, and itself."""
        return [process for process in psutil.process_iter() if self._is_its(process)]

    def _is_its(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(_PROGRAM_MARK) == self.folder.name
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            return False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # the end of one may be the end of another
                process.kill()
        self.process.wait(10)
        psutil.wait_procs(processes, timeout=10)
        for reader in self._readers:
            reader.join(10)
        shutil.rmtree(self.folder, ignore_errors=True)


def succeed(code: str, **how: Any) -> list[str]:
    """Runs a program to its end, which must be a good one; returns the lines it printed."""
    with Program(code, **how) as program:
        assert program.ends() == 0, program.report()
        return program.printed


def _described(process: psutil.Process) -> str:
    try:
        return f"process {process.pid}, of {process.ppid()}, {process.status()}: {' '.join(process.cmdline())}"
    except psutil.Error:
        return f"process {process.pid}: ended just now"
