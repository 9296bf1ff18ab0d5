"""What actors print, shown by the program they belong to: with who said it, and once where many say the same."""

from __future__ import annotations

import asyncio
import os
import queue
import re
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from actors import face
from actors.progress import Progress, bars
from actors.shortage import begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.process import Process
    from actors.transport.acceptor import Visitor


class Line(NamedTuple):
    """What was printed.

    Attributes:
        label: who printed it.
        stream: ``"stdout"`` or ``"stderr"``.
        text: without its end.
        origin: what the call was made by that printed it, see `actors.face.Face`; empty where that is not known.
    """

    label: str
    stream: str
    text: str
    origin: str = ""


DEDUP = "ACTORS_DEDUP_LOGS"
WINDOW_SECONDS = 5.0
MOST_PATTERNS = 10_000  # remembered at once; a flood of different lines must not fill the memory
_NUMBER = re.compile(r"\d")


@dataclass(slots=True, eq=False)
class _Pattern:
    """Lines that differ in their numbers only.

    Attributes:
        since: when its window began.
        latest: the one that came last.
        sources: who has said it.
        held: how many were not shown in this window.
    """

    since: float
    latest: Line
    sources: set[str] = field(default_factory=set)
    held: int = 0


class Deduplicator:
    """Lines that several actors say are shown once, and then counted; a pure state machine, after Ray's.

    The first of a kind is shown at once. Those that follow within the window from others are held back, and the last
    of them is shown at its end with how many they were. What one actor alone repeats is its own affair: all shown.

    Args:
        window: seconds.
        now: the clock.
    """

    def __init__(self, window: float = WINDOW_SECONDS, now: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._now = now
        self._recent: OrderedDict[tuple[str, str, str], _Pattern] = OrderedDict()  # the oldest window first
        self._holding = 0  # how many of them hold lines back
        self._has_explained = False

    def take(self, lines: Iterable[Line]) -> list[Line]:
        """Takes lines over; returns those to show now, summaries of windows that are over among them."""
        shown = []
        for line in lines:
            shown += self.due()
            if not self._holds_back(line):
                shown.append(line)
            if len(self._recent) > MOST_PATTERNS:
                shown += self._end(self._recent.popitem(last=False)[1])
        return shown

    def _holds_back(self, line: Line) -> bool:
        source, stream, text, origin = line
        # Words with numbers in them tend to differ between actors that say the same.
        words = [word for word in text.split() if not _NUMBER.search(word)]
        if not words:  # then the numbers are what it says
            return False
        key = (origin, stream, " ".join(words))
        pattern = self._recent.get(key)
        if pattern is None:
            self._recent[key] = _Pattern(self._now(), line, {source})
            return False
        pattern.sources.add(source)
        if len(pattern.sources) == 1:
            return False
        self._holding += pattern.held == 0
        pattern.held += 1
        pattern.latest = line
        return True

    def due(self) -> list[Line]:
        """Returns the summaries of the windows that are over."""
        shown = []
        now = self._now()
        while self._recent:
            key, pattern = next(iter(self._recent.items()))
            if now - pattern.since < self._window:
                break
            del self._recent[key]
            shown += self._end(pattern)
            if pattern.held > 1:  # they go on, it seems: the next ones are counted as well
                self._recent[key] = _Pattern(now, pattern.latest, pattern.sources)
        return shown

    @property
    def waits(self) -> bool:
        """Whether lines are held back that `due` will return."""
        return self._holding > 0

    def flush(self) -> list[Line]:
        """Returns the summaries of all windows, over or not, and forgets them."""
        shown = [line for pattern in self._recent.values() for line in self._end(pattern)]
        self._recent.clear()
        return shown

    def _end(self, pattern: _Pattern) -> list[Line]:
        source, stream, text, origin = pattern.latest
        if pattern.held == 0:
            return []
        self._holding -= 1
        if pattern.held == 1:
            return [pattern.latest]
        hint = "" if self._has_explained else f" ({DEDUP}=0 in the environment shows every line)"
        self._has_explained = True
        return [Line(source, stream, f"{text} [repeated {pattern.held}x across cluster]{hint}", origin)]


class Console:
    """The service ``"console"``: shows what actors print, on the stream they printed it on.

    It prints on a thread of its own, begun here: a terminal that is stopped must not hold up calls, nor a callback of
    the user's the printing, and when the program ends no thread can be begun any more.
    """

    def __init__(self, process: Process) -> None:
        self._loop = process.loop
        self._deduplicator = Deduplicator() if os.environ.get(DEDUP) != "0" else None
        self._timer: asyncio.TimerHandle | None = None
        self._orders: queue.SimpleQueue[tuple[Callable[[], bool] | None, Future[bool]]] = queue.SimpleQueue()
        self._is_closed = False
        begin(self._run, "actors-console")

    async def show(self, _: Visitor, lines: list[Line]) -> None:
        """Prints lines of actors, each with who said it before it; returns when they are out."""
        self._look_again_if(await self._order(partial(self._print, lines)))

    async def summed_up(self) -> None:
        """Shows what is held back, and returns when that is out."""
        await self._order(self._sum_up)

    def _order(self, work: Callable[[], bool] | None) -> asyncio.Future[bool]:
        done: Future[bool] = Future()
        if self._is_closed:
            done.set_result(False)
        else:
            self._orders.put((work, done))
        return asyncio.wrap_future(done)

    def _look_again_if(self, held: bool) -> None:
        if held and self._timer is None and not self._is_closed:
            self._timer = self._loop.call_later(WINDOW_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        looked = self._order(partial(self._print, []))
        looked.add_done_callback(lambda done: self._look_again_if(not done.exception() and done.result()))

    async def closed(self, timeout: float) -> None:
        """Shows what is still held back, and returns when that is out, or the time is over."""
        if self._timer is not None:
            self._timer.cancel()
        last = self._order(None)
        self._is_closed = True
        await asyncio.wait({last}, timeout=timeout)

    # -- on the console's own thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        work: Callable[[], bool] | None = self._sum_up
        while work is not None:
            work, done = self._orders.get()
            is_awaited = done.set_running_or_notify_cancel()
            held, problem = False, None
            try:
                held = (work or self._finish)()
            except Exception as error:  # a stream of the user's own may raise anything
                problem = error
            if is_awaited and problem is not None:
                done.set_exception(problem)
            elif is_awaited:
                done.set_result(held)

    def _print(self, lines: list[Line]) -> bool:
        """Shows lines; returns whether some are held back."""
        said = []
        for line in lines:
            progress = Progress.read(line.text)
            if progress is None:
                said.append(line)
            else:
                bars.show(progress, line.label, line.origin)
        if self._deduplicator is None:
            _print(said)
            return False
        _print(self._deduplicator.take(said) if said else self._deduplicator.due())
        return self._deduplicator.waits

    def _sum_up(self) -> bool:
        if self._deduplicator is not None:
            _print(self._deduplicator.flush())
        return False

    def _finish(self) -> bool:
        self._sum_up()
        bars.close()
        return False


def _print(lines: list[Line]) -> None:
    for (origin, stream), some in groupby(lines, key=lambda line: (line.origin, line.stream)):
        face.current.write(origin, stream, "".join(f"({line.label}) {line.text}\n" for line in some))
