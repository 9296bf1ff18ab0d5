"""The runner: the actor that runs tasks, one after the other, in a process that stays warm."""

from __future__ import annotations

import os
import signal
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.serialize import loads

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from actors.messages import Payload

KEPT_FUNCTIONS = 100


class Runner:
    """Runs functions that are sent to it, and keeps them for the next time."""

    def __init__(self) -> None:
        self._functions: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()
        self._inside = False  # the user's code runs
        signal.signal(signal.SIGINT, self._interrupted)

    def run(self, code: Payload, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the function with this code; a `KeyboardInterrupt` ends it when its task is cancelled."""
        function = self._function(code)
        running = runtime.running()
        if running is not None:
            running.method = getattr(function, "__name__", "task")  # so that messages name it
        self._inside = True
        try:
            return function(*args, **kwargs)
        except SystemExit as error:  # a task has no process of its own to end but this one
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.code if isinstance(error.code, int) else error.code is not None)
        finally:
            self._inside = False

    def _interrupted(self, _: int, __: FrameType | None) -> None:
        # Sent by this process itself; the task that was meant may have ended since.
        if self._inside and runtime.cancelled():
            raise KeyboardInterrupt

    def _function(self, code: Payload) -> Callable[..., Any]:
        function = self._functions.get(code.pickle)
        if function is None:
            function = loads(code)
            if not code.buffers:  # else the pickle alone does not say which it is
                self._functions[code.pickle] = function
            if len(self._functions) > KEPT_FUNCTIONS:
                self._functions.popitem(last=False)
        else:
            self._functions.move_to_end(code.pickle)
        return function
