"""A session of pdb in an actor's process, whose words and commands go over the network. See `actors.debugging`."""

from __future__ import annotations

import contextlib
import inspect
import pdb  # noqa: T100 - the debugger is what this is for
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

LEASE_SECONDS = 15.0  # without a word of who has attached; then the method goes on alone
MOST_CHARACTERS = 1 << 20  # printed and not fetched yet

PROMPT, RUNNING, ENDED = "prompt", "running", "ended"


class Session:
    """One debugger, at one actor, for one that has attached. Its commands are read where the method runs.

    Args:
        actor: the actor's id.
        method: to stop at; None stops at whichever is called next, and an empty one at none.
        ended: called when it stops at nothing any more.
    """

    def __init__(self, actor: str, method: str | None, ended: Callable[[], None]) -> None:
        self.actor = actor
        self.method = method
        self._ended = ended
        self.state = RUNNING
        self.heard = time.monotonic()
        self._commands: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._printed: list[str] = []
        self._size = 0
        self._pdb = _Pdb(self)

    # -- for pdb, which takes it for its standard streams -------------------------------------------------------

    def readline(self) -> str:
        """Waits for a command."""
        self.state = PROMPT
        try:
            while time.monotonic() - self.heard < LEASE_SECONDS:
                with contextlib.suppress(queue.Empty):
                    return self._commands.get(timeout=0.5)
            return "q\n"
        finally:
            self.state = RUNNING if self.state is PROMPT else self.state

    def write(self, text: str) -> int:
        """Prints."""
        with self._lock:
            if self._size < MOST_CHARACTERS:
                self._printed.append(text)
                self._size += len(text)
        return len(text)

    def flush(self) -> None:
        """Has nothing to do."""

    # -- for who has attached -----------------------------------------------------------------------------------

    def command(self, line: str) -> None:
        """Gives pdb a line."""
        self.state = RUNNING if self.state is PROMPT else self.state  # before it is read: the next prompt is another
        self._commands.put(line)

    def printed(self) -> str:
        """Takes what was printed since."""
        with self._lock:
            text, self._printed, self._size = "".join(self._printed), [], 0
        return text

    def end(self) -> None:
        """Stops nothing any more."""
        self.state = ENDED
        self._ended()

    # -- where the method runs ----------------------------------------------------------------------------------

    def run(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a method and stops at its beginning; the session ends with the call."""
        self.method = ""  # this one, and no other
        if inspect.iscoroutinefunction(method):
            return self._awaited(method(*args, **kwargs))
        if inspect.isgeneratorfunction(method):
            return self._iterated(method(*args, **kwargs))
        if inspect.isasyncgenfunction(method):
            self.write("An async generator cannot be stepped into from its call: put breakpoint() into it.\n")
            self.end()
            return method(*args, **kwargs)
        try:
            return self._pdb.runcall(method, *args, **kwargs)
        finally:
            self.end()

    async def _awaited(self, coroutine: Any) -> Any:
        try:
            self._pdb.stop_in(coroutine.cr_code)
            return await coroutine
        finally:
            sys.settrace(None)
            self.end()

    def _iterated(self, values: Any) -> Any:
        try:
            self._pdb.stop_in(values.gi_code)
            yield from values
        finally:
            sys.settrace(None)
            self.end()

    def stop_here(self, frame: FrameType) -> None:
        """Stops in code that runs already."""
        self._pdb.set_trace(frame)


class _Pdb(pdb.Pdb):
    """Reads and writes by its session; to quit is to let the method go on."""

    def __init__(self, session: Session) -> None:
        stream: Any = session
        super().__init__(stdin=stream, stdout=stream, nosigint=True, readrc=False)
        self._session = session
        self.use_rawinput = False

    def stop_in(self, code: Any) -> None:
        """Stops at the first line of some code that is about to run."""
        self.reset()
        self.set_break(code.co_filename, code.co_firstlineno + 1, temporary=True)
        self._first = code
        sys.settrace(self._waits_for)

    def _waits_for(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code is not self._first:
            return None
        self.clear_all_breaks()
        self.reset()
        self.set_step()
        self.botframe = frame.f_back
        sys.settrace(self.trace_dispatch)
        return self.trace_dispatch(frame, event, arg)

    def set_continue(self) -> None:
        """See `bdb.Bdb`; with nothing left to stop at, the session ends."""
        super().set_continue()
        if not self.breaks:
            self._session.end()

    def do_quit(self, arg: str) -> bool | None:
        """q(uit): let the method go on, without the debugger."""
        self.clear_all_breaks()
        return self.do_continue(arg)

    do_q = do_exit = do_EOF = do_quit  # noqa: N815 - pdb's names
