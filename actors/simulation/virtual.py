"""An event loop whose time passes at once: where nothing is to be done, it is the moment of the next timer."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import selectors
import time
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class _Hasty(selectors.DefaultSelector):
    """Does not wait, but has the time go on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("nothing will ever happen any more")
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above."""

    def __init__(self) -> None:
        self._hasty = _Hasty()
        super().__init__(self._hasty)

    def time(self) -> float:
        """The time, in seconds from 0."""
        return self._hasty.now

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


class Machine(Protocol):
    """Whose work it is, in a simulation of several machines on one loop."""

    def run(self, cell: list[asyncio.Handle], work: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Does a piece of its work now, or later, or never."""

    def wall(self) -> float:
        """Returns what its wall clock says."""

    def ends(self) -> None:
        """The simulation is over: nothing waits any more."""


MACHINE: contextvars.ContextVar[Machine | None] = contextvars.ContextVar("machine", default=None)
"""The machine on which a piece of code runs."""


class Machines(VirtualLoop):
    """A loop for several machines: each does its own work, and one that stands still or is off does none."""

    def __init__(self) -> None:
        super().__init__()
        self.machines: list[Machine] = []

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """See `asyncio.loop.call_soon`."""
        context = contextvars.copy_context() if context is None else context
        if (machine := context.get(MACHINE)) is None:
            return super().call_soon(callback, *args, context=context)
        cell: list[asyncio.Handle] = []
        cell.append(super().call_soon(machine.run, cell, callback, args, context=context))
        return cell[0]

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there is one thread

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """See `asyncio.loop.call_at`."""
        context = contextvars.copy_context() if context is None else context
        if (machine := context.get(MACHINE)) is None:
            return super().call_at(when, callback, *args, context=context)
        cell: list[asyncio.Handle] = []
        cell.append(super().call_at(when, machine.run, cell, callback, args, context=context))
        return cell[0]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Does at once what would be done on another thread."""
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def end(self) -> None:
        """Cancels what is still under way, on machines too that are off or stand still, and closes the loop."""
        self.set_exception_handler(lambda *_: None)
        for machine in self.machines:
            machine.ends()
        asyncio.set_event_loop(self)
        while pending := asyncio.all_tasks(self):
            for task in pending:
                task.cancel()
            self.run_until_complete(asyncio.wait(pending, timeout=1))
        super().end()


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
