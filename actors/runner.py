"""The runner: the actor that runs tasks, one after the other, in a process that stays warm."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from actors.serialize import loads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Payload

KEPT_FUNCTIONS = 100


class Runner:
    """Runs functions that are sent to it, and keeps them for the next time."""

    def __init__(self) -> None:
        self._functions: OrderedDict[bytes, Callable[..., Any]] = OrderedDict()

    def run(self, code: Payload, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the function with this code."""
        return self._function(code)(*args, **kwargs)

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
