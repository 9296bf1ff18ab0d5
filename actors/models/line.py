"""The line of a model's stages: the last one begins each step at the first, and each gives the next what it has.

Steps and hidden states go by cables, which the threads of MLX read and write themselves; so each stage takes the steps
in the order in which they were begun, and nothing but arithmetic and a socket lies between two of them. What goes wrong
in a stage is passed on to the last, which asks for it by a call. That a stage is gone it knows by a call as well, to
each of them, which is open for as long as the line is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actors.cable import Inlet, Outlet
from actors.exceptions import ActorsError, ModelError

from .hop import packed, piece, read_piece, read_step, step_text, unpacked
from .stagecaches import awaited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from actors.cable import Bell, Place
    from actors.handle import ActorHandle

    from .stage import Step
    from .turns import Turns

    Run = Callable[[Step, Any, Any], Any]

log = logging.getLogger(__name__)

_KEPT: Final = 64  # failures that were not asked for are forgotten some time
_PATIENCE: Final = 5.0  # seconds in which it shows that the stage before has died, where its cable has ended


@dataclass(frozen=True, slots=True)
class Failed:
    """In place of what a stage would have given.

    Attributes:
        stage: where it is in the line.
        number: of the failure there.
    """

    stage: int
    number: int


class Line:
    """One stage's place in the line. On its event loop, but for what the thread of MLX does.

    Args:
        turns: the thread of MLX.
        run: takes a step through the layers that are here, given the hidden states and what to do with the output.
    """

    def __init__(self, turns: Turns, run: Run) -> None:
        self._turns, self._run = turns, run
        self._loop = asyncio.get_running_loop()
        self._inlet = Inlet(turns.ring)
        self._outlet: Outlet | None = None
        self._number = 0
        self._others: Sequence[ActorHandle] = ()
        self._attending: list[asyncio.Task[None]] = []
        self._waiting: deque[tuple[Step, Any, asyncio.Future[Any]]] = deque()  # in the last stage
        self._failures: dict[int, Exception] = {}
        self._broken: Exception | None = None
        self._over = asyncio.Event()  # nothing comes any more

    @property
    def place(self) -> Place:
        """Where the stage before finds this one; the last one, where the first is concerned."""
        return self._inlet.place

    async def join(self, number: int, after: Place, others: Sequence[ActorHandle]) -> None:
        """Takes the place `number`.

        Args:
            number: how many stages come before.
            after: where the next stage is; the first one, where this is the last.
            others: all but this one, if it is the last; else none.
        """
        self._number, self._others = number, others
        self._outlet = Outlet(after)
        if others:
            # In contexts of their own: they are no part of the call that the line was made by.
            ends: list[Callable[[], Any]] = [self.attended, *(other.attend.remote for other in others)]
            self._attending = [self._loop.create_task(self._attend(end), context=Context()) for end in ends]
        self._turns.submit(self._turns.hear, self)

    async def attended(self) -> None:
        """Returns when nothing comes from the stage before any more, and that this one has died does not show."""
        await self._over.wait()
        await asyncio.sleep(_PATIENCE)

    async def close(self) -> None:
        """Takes nothing any more; what is under way is forgotten."""
        for task in self._attending:
            task.cancel()
        self._over.set()
        await asyncio.wrap_future(self._turns.submit(self._close))
        self._break(ModelError("this stage has become one of another line"))

    def begin(self, step: Step, finish: Any) -> Awaitable[Any]:
        """Begins a step, which goes through all stages; in the last one. See `StageModel.run`."""
        future: asyncio.Future[Any] = self._loop.create_future()
        if self._broken is not None:
            future.set_exception(self._broken)
            return future
        assert self._outlet is not None
        self._waiting.append((step, finish, future))
        self._outlet.send(piece(step_text(step), None))
        return future

    def failure(self, number: int) -> Exception:
        """What went wrong here."""
        return self._failures.pop(number)

    # -- on the thread of MLX -----------------------------------------------------------------------------------

    def fileno(self) -> int:
        """See `turns.Source`."""
        return self._inlet.fileno()

    def lead(self, done: Callable[[], bool], bell: Bell) -> bool:
        """See `turns.Source`."""
        try:
            self._inlet.lead(done, bell)
        except Exception:  # of the link's, which another one replaces; without this thread nobody would ever compute
            log.exception("a stage could not read its messages itself")
        return self._inlet.brought

    def come(self) -> None:
        """See `turns.Source`."""
        try:
            for value in self._inlet.arrived():
                if self._others:
                    self._end(value)
                else:
                    self._pass(value)
        except Exception:  # what came was not sent by a stage
            self._inlet.close()
            self._soon(self._over.set)
        if self._inlet.ended and not self._over.is_set():
            self._soon(self._over.set)

    def _pass(self, value: Any) -> None:
        assert self._outlet is not None
        text, hidden = read_piece(value)
        if not isinstance(hidden, Failed):
            try:
                hidden = self._run(read_step(text), unpacked(hidden), packed)
                self._outlet.send(piece(text, hidden))
            except Exception as error:  # of any kind: it is told at the end of the line
                hidden = self._failed(error)
            else:
                return
        self._outlet.send(piece(text, hidden))

    def _end(self, value: Any) -> None:
        _, hidden = read_piece(value)
        if not self._waiting:  # the line is broken, and those who waited know
            return
        step, finish, future = self._waiting.popleft()
        if isinstance(hidden, Failed):
            self._soon(self._ask, hidden, future)
            return
        try:
            out = self._run(step, unpacked(hidden), finish)
        except Exception as error:  # of any kind: who began the step is told
            self._soon(_settle, future, error, None)
        else:
            self._soon(_settle, future, None, out)

    def _failed(self, error: Exception) -> Failed:
        number = max(self._failures, default=-1) + 1
        self._failures[number] = error
        if len(self._failures) > _KEPT:
            del self._failures[next(iter(self._failures))]
        return Failed(self._number, number)

    def _close(self) -> None:
        self._turns.hear(None)
        self._inlet.close()
        if self._outlet is not None:
            self._outlet.close()

    def _soon(self, what: Callable[..., Any], *args: Any) -> None:
        self._loop.call_soon_threadsafe(what, *args)

    # -- what goes wrong ------------------------------------------------------------------------------------------

    async def _attend(self, end: Callable[[], Awaitable[None]]) -> None:
        try:
            await end()
        except ActorsError as error:
            self._break(error)
        else:
            self._break(ModelError("a stage is no longer heard by the next one, though both are there: load it again"))

    def _break(self, error: Exception) -> None:
        if self._broken is None:
            self._broken = error
            while self._waiting:
                _settle(self._waiting.popleft()[2], error, None)

    def _ask(self, failed: Failed, future: asyncio.Future[Any]) -> None:
        task = self._loop.create_task(self._fail(failed, future), context=Context())
        self._attending.append(task)
        task.add_done_callback(self._attending.remove)

    async def _fail(self, failed: Failed, future: asyncio.Future[Any]) -> None:
        try:
            await awaited(self._others[failed.stage].failure.remote(failed.number))
        except Exception as error:
            _settle(future, error, None)


def _settle(future: asyncio.Future[Any], error: Exception | None, value: Any) -> None:
    if future.done():  # who began it wants it no more
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
