"""The harness: one driver process for each side, and rounds in which all sides do the same in turn."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from environments import interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

    from samples import Count
    from side import Entry
    from workloads import Workload

DRIVER = Path(__file__).with_name("driver.py")
START_SECONDS = 60.0
STEP_SECONDS = 60.0
STOP_SECONDS = 12.0
QUIET_SECONDS = 3.0
GLANCE_SECONDS = 0.03


class SideFailedError(Exception):
    """A side raised, gave a wrong result, fell silent or ended."""


class Driver:
    """The process of one side, seen from here."""

    def __init__(self, entry: Entry, folder: Path) -> None:
        self.entry = entry
        self.version = ""
        self.failure: str | None = None
        self._log = folder / f"{entry.name}.log"
        own = folder / entry.name
        own.mkdir()
        with self._log.open("wb") as log:
            # In a session of its own: Ctrl-C is for the harness to act on, which then ends every driver.
            self._process = subprocess.Popen(
                [str(interpreter(entry)), str(DRIVER), entry.name, str(own)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._send({"do": "start"})

    def started(self) -> None:
        """Waits until the side is there.

        Raises:
            SideFailedError: it will not be.
        """
        self.version = self._answer(START_SECONDS)["version"]

    def measure(self, workload: Workload, count: Count) -> list[float] | None:
        """Does a workload and returns the seconds of each operation; None where the side has no such thing.

        Raises:
            SideFailedError: it could not be done.
        """
        self._send({"do": workload.name, "warm": count.warm, "measured": count.measured})
        seconds: list[float] | None = self._answer(STEP_SECONDS)["seconds"]
        return seconds

    def _send(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SideFailedError(f"its process has ended: {self._last_words()}") from None

    def _answer(self, patience: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe, line, deadline = self._process.stdout.fileno(), b"", time.monotonic() + patience
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                self.kill()
                raise SideFailedError(f"no answer within {patience:g} s")
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise SideFailedError(f"its process has ended: {self._last_words()}")
            line += piece
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideFailedError(answer["error"])
        return answer

    def _last_words(self) -> str:
        return " / ".join(self._log.read_text(errors="replace").splitlines()[-3:]) or "it printed nothing"

    def kill(self) -> None:
        """Ends it and all it started, at once."""
        family = _descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        _end(family)

    def hang_up(self) -> None:
        """Lets it end by itself."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """Waits until it has ended, and all it started with it; what does not end is killed."""
        self.hang_up()
        family = _descendants(self._process.pid)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
        _end(left)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Harness:
    """Starts the drivers, has them work in turn, and ends them whatever happens.

    Args:
        entries: the sides.
        folder: for what they leave while they run.
        tell: shown one line of progress at a time.
    """

    def __init__(self, entries: Sequence[Entry], folder: Path, tell: Callable[[str], None]) -> None:
        self.drivers: list[Driver] = []
        self._entries = entries
        self._folder = folder
        self._tell = tell

    def __enter__(self) -> Self:
        try:
            for entry in self._entries:
                self.drivers.append(Driver(entry, self._folder))
            for driver in self.drivers:
                self._attempt(driver, driver.started)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        with ExitStack() as closing:  # each is closed, also where closing another one fails
            for driver in self.drivers:
                driver.hang_up()
                closing.callback(driver.close)

    def _attempt(self, driver: Driver, step: Callable[[], Any]) -> Any:
        """Does a step; a side that fails in it is left out from then on, and its failure told."""
        try:
            return step()
        except SideFailedError as error:
            driver.failure = str(error)
            self._tell(f"{driver.entry.name} failed: {error}")
            return None

    def run(self, workload: Workload, count: Count, rounds: Count) -> dict[str, list[list[float]]]:
        """Does a workload on every side in turn: some rounds that only warm up, then those that count.

        Each round begins with another side, so that none always follows the same one.

        Returns:
            For each side that can do it and has not failed, its samples by round.
        """
        found: dict[str, list[list[float]]] = {driver.entry.name: [] for driver in self.drivers}
        for number in range(rounds.warm + rounds.measured):
            shift = number % len(self.drivers)
            for driver in self.drivers[shift:] + self.drivers[:shift]:
                if driver.failure is not None:
                    continue
                _wait_until_quiet()
                seconds = self._attempt(driver, lambda driver=driver: driver.measure(workload, count))  # type: ignore[misc]
                if number >= rounds.warm and seconds is not None:
                    found[driver.entry.name].append(seconds)
        failed = {driver.entry.name for driver in self.drivers if driver.failure is not None}
        return {name: samples for name, samples in found.items() if samples and name not in failed}


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=STOP_SECONDS)


def _wait_until_quiet() -> None:
    """Waits until the processes of all sides rest, so that what one leaves behind does not burden the next.

    A worker that a node starts ahead of need, for one. Not for ever: a side may never rest.
    """
    deadline = time.monotonic() + QUIET_SECONDS
    before = _processor_time()
    while time.monotonic() < deadline:
        time.sleep(GLANCE_SECONDS)
        now = _processor_time()
        if now == before:
            return
        before = now


def _processor_time() -> dict[int, float]:
    """Returns the seconds each descendant has computed, as far as the system's clock ticks tell."""
    found = {}
    for process in _descendants(os.getpid()):
        try:
            times = process.cpu_times()
        except psutil.Error:  # it has just ended
            continue
        found[process.pid] = times.user + times.system
    return found
