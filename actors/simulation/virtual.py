"""An event loop whose time passes at once: where nothing is to be done, it is the moment of the next timer.

It is asyncio's loop without its sockets and threads, which a simulation has no use for, in a third of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import heapq
import logging
import time
from asyncio import _get_running_loop, _set_running_loop  # which are for loops of one's own
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncio import BaseEventLoop as Loop  # which lacks nothing that a loop may have
    from collections.abc import Callable, Collection, Coroutine, Iterator
else:
    from asyncio import AbstractEventLoop as Loop

log = logging.getLogger(__name__)


class Step:
    """Something that is to be done; see `asyncio.TimerHandle`."""

    __slots__ = ("args", "context", "off", "what", "when_")

    def __init__(self, what: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None) -> None:
        self.what = what
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.off = False
        self.when_ = 0.0

    def cancel(self) -> None:
        """See `asyncio.Handle`."""
        self.off = True
        self.args = ()  # which may be large, and a timer may lie in the heap for long

    def cancelled(self) -> bool:
        """See `asyncio.Handle`."""
        return self.off

    def when(self) -> float:
        """See `asyncio.TimerHandle`."""
        return self.when_


class VirtualLoop(Loop):
    """See above.

    Attributes:
        moments: how many timers have gone off: all that happens, but for what follows from it at once.
    """

    held: Collection[object] = ()
    """Those that do nothing now; see `holds_back`."""

    def __init__(self) -> None:
        self.moments = 0
        self._now = 0.0
        self._ready: deque[Step] = deque()
        self._timers: list[tuple[float, int, Step]] = []
        self._order = count()  # of timers that go off at one time
        self._running = self._closed = False
        self._on_error: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None

    # -- what is to be done -------------------------------------------------------------------------------------

    def time(self) -> float:
        """The time, in seconds from 0."""
        return self._now

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """See `asyncio.loop.call_soon`."""
        step = Step(callback, args, context)
        self._ready.append(step)
        return step

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """See `asyncio.loop.call_at`."""
        step = Step(callback, args, context)
        step.when_ = when
        if when <= self._now:
            self._ready.append(step)
        else:
            heapq.heappush(self._timers, (when, next(self._order), step))
        return step

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """See `asyncio.loop.call_later`."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio.loop.create_future`."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **how: Any) -> asyncio.Task[Any]:
        """See `asyncio.loop.create_task`."""
        return asyncio.Task(coro, loop=self, **how)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Does at once what would be done on another thread."""
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    # -- doing it -----------------------------------------------------------------------------------------------

    def run_until_complete(self, future: Any) -> Any:
        """See `asyncio.loop.run_until_complete`."""
        task = asyncio.ensure_future(future, loop=self)
        before = _get_running_loop()
        self._running = True
        _set_running_loop(self)
        ready = self._ready
        try:
            while not task.done():
                if not ready:
                    self._let_time_pass()
                step = ready.popleft()
                if not (step.off or (self.held and self.holds_back(step))):
                    self.do(step)
        finally:
            _set_running_loop(before)
            self._running = False
        return task.result()

    def _let_time_pass(self) -> None:
        """It is the moment of the next timer, and what goes off then is ready."""
        ready, timers = self._ready, self._timers
        while timers and (not ready or timers[0][0] <= self._now):
            when, _, step = heapq.heappop(timers)
            if not step.off:
                self._now = when
                self.moments += 1
                ready.append(step)
        if not ready:
            raise RuntimeError("nothing will ever happen any more")

    def holds_back(self, step: Step) -> bool:
        """Whether a thing is not to be done now; asked where there are such that do nothing."""
        del step
        return False

    def do(self, step: Step) -> None:
        """Does one thing."""
        try:
            step.context.run(step.what, *step.args)
        except Exception as error:
            self.call_exception_handler({"message": f"{step.what} failed", "exception": error})

    def work(self, what: Coroutine[Any, Any, Any]) -> Any:
        """Runs a coroutine to its end."""
        asyncio.set_event_loop(self)
        return self.run_until_complete(what)

    def end(self) -> None:
        """Cancels what is still under way, and closes the loop."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        self.close()

    # -- what asyncio wants to know -----------------------------------------------------------------------------

    def close(self) -> None:
        """See `asyncio.loop.close`."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    def is_closed(self) -> bool:
        """See `asyncio.loop.is_closed`."""
        return self._closed

    def is_running(self) -> bool:
        """See `asyncio.loop.is_running`."""
        return self._running

    def get_debug(self) -> bool:
        """See `asyncio.loop.get_debug`."""
        return False

    def set_exception_handler(self, handler: Any) -> None:
        """See `asyncio.loop.set_exception_handler`."""
        self._on_error = handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See `asyncio.loop.call_exception_handler`."""
        if self._on_error is not None:
            self._on_error(self, context)
        else:
            log.error("%s", context["message"], exc_info=context.get("exception"))


class Machine(Protocol):
    """Whose work it is, in a simulation of several machines on one loop."""

    def holds_back(self, step: Step) -> bool:
        """Whether a piece of its work is not to be done now; the machine has it done later, or never."""

    def wall(self) -> float:
        """Returns what its wall clock says."""

    def ends(self) -> None:
        """The simulation is over: nothing waits any more."""


MACHINE: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("machine", default=None)
"""The machine on which a piece of code runs."""


class Machines(VirtualLoop):
    """A loop for several machines: each does its own work, and one that stands still or is off does none.

    Attributes:
        machines: all that ever were.
        held: those of them that stand still, are off, or have something to catch up with.
    """

    held: set[Machine]

    def __init__(self) -> None:
        super().__init__()
        self.machines: list[Machine] = []
        self.held = set()

    def holds_back(self, step: Step) -> bool:
        """Whether the machine that a thing is work of does nothing now."""
        machine = step.context.get(MACHINE)
        return machine in self.held and machine.holds_back(step)

    def end(self) -> None:
        """Cancels what is still under way, on machines too that are off or stand still, and closes the loop."""
        self.set_exception_handler(lambda *_: None)
        for machine in self.machines:
            machine.ends()
        asyncio.set_event_loop(self)
        pending = asyncio.all_tasks(self)
        while pending:
            for task in pending:
                task.cancel()
            self.run_until_complete(asyncio.wait(pending, timeout=1))
            pending = asyncio.all_tasks(self)
        asyncio.set_event_loop(None)
        self.close()


@contextlib.contextmanager
def simulated_clocks(loop: Machines) -> Iterator[None]:
    """Has all clocks show the time of the simulation; each machine has a wall clock of its own."""

    def wall() -> float:
        machine = MACHINE.get()
        return loop.time() if machine is None else machine.wall()

    shown: dict[str, Callable[..., float]] = {
        "time": wall, "monotonic": loop.time, "perf_counter": loop.time, "clock_gettime": lambda _: loop.time(),
    }  # fmt: skip
    real = {name: getattr(time, name) for name in shown}
    try:
        for name, clock in shown.items():
            setattr(time, name, clock)
        yield
    finally:
        for name, clock in real.items():
            setattr(time, name, clock)


@contextlib.contextmanager
def nothing_collected() -> Iterator[None]:
    """Has garbage lie meanwhile: when it is collected, and what then ends, is not for the seed to decide."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
