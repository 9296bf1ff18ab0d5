"""The screen: the face of a program in a notebook. Everything is shown in the cell that has caused it."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
import weakref
from collections import OrderedDict, deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from actors.cluster import flush_output, is_current
from actors.exceptions import ActorsError
from actors.face import Face
from actors.notebook import pictures
from actors.notebook.ticker import Ticker
from actors.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from actors.cluster import Cluster
    from actors.face import Open
    from actors.notebook.cells import Cells
    from actors.progress import Progress
    from actors.refs import ObjectRef

WAIT_SECONDS = 1.0  # after which a wait for many values is shown
DRAW_SECONDS = 0.2  # between two pictures of one bar
IDLE_SECONDS = 2.0  # between two pictures of the cluster while no cell runs
COST = 0.1  # share of the time that may go into looking at the cluster
LIVE_PICTURES = 3  # of the cluster; those before stay as they were last
FLUSH_SECONDS = 0.3  # at the end of a cell, for what its actors have printed
QUICK_SECONDS = 0.3  # before that, for its calls to end
MOST_LATE_CELLS = 100
MOST_LATE_LINES = 500  # of one cell; the oldest go
_MANY = 64  # calls of one cell, from which on those that are over are looked for


class Screen(Face):
    """Shows what the cells of one kernel cause.

    Args:
        cells: of the kernel.

    Attributes:
        busy: a cell runs.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._ticker = Ticker()
        self._numbers = itertools.count(1)
        self._live: list[_Live] = []
        self.busy = True
        self._bars: dict[str, _Bar] = {}
        self._used = False  # the cell that runs has called an actor
        self._calls: list[weakref.ref[Open]] = []  # of the cell that runs
        self._late: OrderedDict[str, _Late] = OrderedDict()  # by cell, what is printed after its end
        self._cut: list[ObjectRef[Any]] = []  # what it waited for when the wait was cut short

    # -- for the runtime ----------------------------------------------------------------------------------------

    def origin(self) -> str:
        """See `Face`."""
        self._used = True
        return self._cells.running()

    def write(self, origin: str, stream: str, text: str) -> None:
        """See `Face`."""
        late = self._late.get(origin)
        if late is not None:
            late.print(text)
        else:
            self._cells.print(origin, stream, text)

    def draw(self, origin: str, label: str, progress: Progress) -> bool:
        """See `Face`."""
        bar = self._bars.get(progress.id)
        if bar is None:
            bar = self._bars[progress.id] = _Bar(self._cells, origin, self._name("bar"))
        bar.show(label, progress)
        if progress.closed:
            del self._bars[progress.id]
        return True

    def joined(self, cluster: Cluster) -> None:
        """See `Face`."""
        self.show(cluster)

    def adopt(self, call: Open) -> None:
        """Remembers a call that the running cell has made."""
        if len(self._calls) >= _MANY and len(self._calls).bit_count() == 1:
            self._calls = self._open()
        self._calls.append(weakref.ref(call))

    def _open(self) -> list[weakref.ref[Open]]:
        return [known for known in self._calls if (call := known()) is not None and not call.over]

    @contextmanager
    def waiting(self, refs: Sequence[ObjectRef[Any]]) -> Iterator[None]:
        """Shows how far a wait for many values has come, once it lasts."""
        wait = _Wait(self._cells, self._cells.running(), self._name("wait"), refs)
        if len(refs) > 1:
            self._ticker.add(wait.draw)
        try:
            yield
        except BaseException:
            self._cut = [ref for ref in refs if not ref.pending.done()]
            raise
        finally:
            if len(refs) > 1:
                self._ticker.remove(wait.draw)
                wait.end()

    # -- for the notebook ---------------------------------------------------------------------------------------

    def show(self, cluster: Cluster) -> None:
        """Shows the cluster, live, in the cell that runs; once there."""
        cell = self._cells.running()
        if any(live.cell == cell and live.cluster is cluster for live in self._live):
            return
        live = _Live(self._cells, cell, self._name("cluster"), cluster, self)
        for older in self._live[:-LIVE_PICTURES]:
            self._ticker.remove(older.draw)
        self._live = [*self._live[-LIVE_PICTURES:], live]
        live.draw()
        self._ticker.add(live.draw)

    def cell_begins(self, *_: Any) -> None:
        """A cell is about to run."""
        self._used, self._cut, self._calls = False, [], []
        self.busy = True

    def cell_ends(self, result: Any = None) -> None:
        """A cell has run: what its actors have printed is shown now, since a front end may not take it later."""
        self.busy = False
        for live in self._live:
            live.draw_end()
        if not self._used:
            return
        cell = self._cells.running()
        error = getattr(result, "error_in_exec", None)
        if result is not None and not isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
            self._flush()
        elif self._cut:
            self._cells.print(cell, "stderr", _still_running(self._cut))
        self._cut = []
        if self._open():
            self._late[cell] = _Late(self._cells, cell, self._name("late"))
            if len(self._late) > MOST_LATE_CELLS:
                self._late.popitem(last=False)

    def _flush(self) -> None:
        """Waits a moment for the calls of the cell to end, and for what they have printed."""
        until = time.monotonic() + QUICK_SECONDS
        while self._open() and time.monotonic() < until:
            time.sleep(0.01)
        with suppress(ActorsError, TimeoutError):
            flush_output(FLUSH_SECONDS)
        self._cells.summed_up()

    def _name(self, what: str) -> str:
        return f"actors-{what}-{os.getpid()}-{next(self._numbers)}"


def _still_running(refs: Sequence[ObjectRef[Any]]) -> str:
    names = ", ".join(repr(ref).strip("<>").removesuffix(": waiting") for ref in refs[:3])
    more = f" and {len(refs) - 3} more" if len(refs) > 3 else ""
    return (
        f"The wait has ended, and what it waited for goes on: {names}{more}. actors.cancel(ref) ends a call, with "
        "force=True also a plain method that runs already.\n"
    )


class _Shown:
    """A picture in a cell: shown first, then changed where it is."""

    def __init__(self, cells: Cells, cell: str, name: str) -> None:
        self.cell = cell
        self._cells = cells
        self._name = name
        self._shown: dict[str, str] | None = None

    def _show(self, picture: pictures.Picture) -> None:
        bundle = picture.bundle
        if bundle != self._shown:
            self._cells.display(self.cell, self._name, bundle, update=self._shown is not None)
            self._shown = bundle


class _Live(_Shown):
    """The cluster, as long as the program is in it."""

    def __init__(self, cells: Cells, cell: str, name: str, cluster: Cluster, screen: Screen) -> None:
        super().__init__(cells, cell, name)
        self.cluster = cluster
        self._screen = screen
        self._view: Any = None
        self._rests_until = 0.0

    def draw(self) -> bool:
        if is_current(self.cluster):
            began = time.monotonic()
            if began < self._rests_until:
                return True
            with suppress(ActorsError, TimeoutError):
                self._view = Observer.here().view()
                self._show(pictures.of_cluster(self._view))
            took = time.monotonic() - began
            self._rests_until = began + max(took / COST, 0.0 if self._screen.busy else IDLE_SECONDS)
            return True
        self.draw_end()
        return False

    def draw_end(self) -> None:
        """Says that the program has left the cluster, where it has."""
        if self._view is not None and not is_current(self.cluster):
            self._show(pictures.of_cluster(self._view, note="This program has left the cluster."))


class _Late(_Shown):
    """What the calls of a cell print after its end: a block, since not every front end takes more text then."""

    def __init__(self, cells: Cells, cell: str, name: str) -> None:
        super().__init__(cells, cell, name)
        self._lines: deque[str] = deque(maxlen=MOST_LATE_LINES)
        self._show(pictures.of_lines([]))

    def print(self, text: str) -> None:
        self._lines += text.splitlines()
        self._show(pictures.of_lines(self._lines))


class _Wait(_Shown):
    """A wait for several values."""

    def __init__(self, cells: Cells, cell: str, name: str, refs: Sequence[ObjectRef[Any]]) -> None:
        super().__init__(cells, cell, name)
        self._refs = refs
        self._since = time.monotonic()

    def draw(self) -> bool:
        if time.monotonic() - self._since >= WAIT_SECONDS:
            self._draw()
        return True

    def end(self) -> None:
        if self._shown is not None:
            self._draw()

    def _draw(self) -> None:
        done = sum(ref.pending.done() for ref in self._refs)
        self._show(pictures.of_wait(done, len(self._refs), time.monotonic() - self._since))


class _Bar(_Shown):
    """A progress bar of the user's own."""

    _at = 0.0

    def show(self, label: str, progress: Progress) -> None:
        now = time.monotonic()
        if progress.closed or now - self._at >= DRAW_SECONDS:
            self._at = now
            self._show(pictures.of_progress(label, progress))
