"""Progress of long work: a bar's state as a line that an actor prints, and the bars that the driver makes of it."""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
from dataclasses import asdict, dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any, Self, TextIO

from actors import face, runtime

if TYPE_CHECKING:
    import rich.progress

MARK = "__actors_progress__ "
PLAIN_SECONDS = 5.0  # between two lines about one bar, where there is no terminal to draw it on
MOST_BARS = 500  # an actor that dies leaves its bar open
_MOST_TEXT = 200


@dataclass(frozen=True, slots=True)
class Progress:
    """How far some work has come.

    Attributes:
        id: of the bar.
        description: of the work.
        done: how much is done.
        total: how much there is; None where nobody knows.
        closed: whether that is the bar's last word.
    """

    id: str
    description: str
    done: float
    total: float | None
    closed: bool

    @property
    def line(self) -> str:
        """The line by which an actor tells it."""
        return MARK + json.dumps(asdict(self))

    @classmethod
    def read(cls, line: str) -> Self | None:
        """Returns the progress that a printed line tells; None for any other line."""
        if not line.startswith(MARK):
            return None
        try:
            told = cls(**json.loads(line[len(MARK) :]))
        except (ValueError, TypeError, RecursionError):
            return None
        well_formed = (
            isinstance(told.id, str)
            and isinstance(told.description, str)
            and _is_amount(told.done)
            and (told.total is None or _is_amount(told.total))
            and isinstance(told.closed, bool)
        )
        return told if well_formed else None

    @property
    def title(self) -> str:
        """The description, on one line and not too long."""
        return " ".join(self.description.split())[:_MOST_TEXT]

    def __str__(self) -> str:
        done = f"{self.done:g}" if self.total is None else f"{self.done:g}/{self.total:g}"
        if self.total:
            done += f" ({100 * self.done / self.total:.0f}%)"
        return f"{self.title}: {done}" if self.title else done


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and isfinite(value)


@dataclass(slots=True, eq=False)
class _Bar:
    label: str
    latest: Progress
    shown: Progress | None
    at: float
    task: Any = None


class Bars:
    """Shows progress in one place: a line redrawn for each bar on a terminal, else a line now and then.

    Args:
        file: where to; None is standard error as it is when something is shown.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file
        self._lock = threading.RLock()
        self._bars: dict[str, _Bar] = {}
        self._live: rich.progress.Progress | None = None

    def show(self, progress: Progress, label: str = "", origin: str = "") -> None:
        """Shows the state of a bar; ``label`` says whose it is, ``origin`` by what the call was made that tells it."""
        if face.current.draw(origin, label, progress):
            return
        with self._lock:
            bar = self._bars.get(progress.id)
            if bar is None:
                if len(self._bars) >= MOST_BARS:
                    self._end(next(iter(self._bars)))
                bar = self._bars[progress.id] = _Bar(label, progress, None, time.monotonic())
            bar.latest = progress
            if self._is_terminal():
                self._draw(bar)
            elif time.monotonic() - bar.at >= PLAIN_SECONDS:
                bar.at = time.monotonic()
                self._say(bar)
            if progress.closed:
                self._end(progress.id)

    def close(self) -> None:
        """Ends all bars, each with its last state."""
        with self._lock:
            for id in list(self._bars):
                self._end(id)

    def _end(self, id: str) -> None:
        bar = self._bars.pop(id)
        if self._live is not None and bar.task is not None:
            self._live.remove_task(bar.task)
            self._live.refresh()
        if not self._bars and self._live is not None:
            self._live.stop()
            self._live = None
            atexit.unregister(self.close)
        if bar.shown != bar.latest:
            self._say(bar)

    def _say(self, bar: _Bar) -> None:
        bar.shown = bar.latest
        out = self._out()
        if out is None:
            return
        text = f"({bar.label}) {bar.latest}" if bar.label else str(bar.latest)
        encoding = getattr(out, "encoding", None) or "utf-8"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=out, flush=True)

    def _out(self) -> TextIO | None:
        return self._file if self._file is not None else sys.stderr

    def _is_terminal(self) -> bool:
        out = self._out()
        return self._live is not None or (out is not None and out.isatty())

    def _draw(self, bar: _Bar) -> None:
        live = self._live or self._start_live()
        text = f"({bar.label}) {bar.latest.title}" if bar.label else bar.latest.title
        if bar.task is None:
            bar.task = live.add_task(text, total=bar.latest.total)
        live.update(bar.task, description=text, completed=bar.latest.done, total=bar.latest.total)

    def _start_live(self) -> rich.progress.Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # What is printed meanwhile must go above the bars, unless it goes to a file.
        live = self._live = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(file=self._out()), transient=True,
            redirect_stdout=_is_terminal(sys.stdout), redirect_stderr=_is_terminal(sys.stderr),
        )  # fmt: skip
        live.start()
        atexit.register(self.close)  # it has hidden the cursor
        return live


def _is_terminal(file: TextIO | None) -> bool:
    return file is not None and file.isatty()


bars = Bars()
"""The bars of this program."""


def tell(progress: Progress) -> None:
    """Shows progress at the driver, from wherever this is called."""
    process = runtime.joined()
    if process is not None and process.id.startswith("worker-"):
        sys.stdout.write(f"{progress.line}\n")  # in one write: another thread's line must not come between
        sys.stdout.flush()
    else:
        bars.show(progress, origin=face.current.origin())
