"""Holds a Ctrl-C back for a moment, where it would leave something locked for ever."""

from __future__ import annotations

import threading
from importlib import import_module
from signal import SIGINT
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType

_signal: Any = import_module("_signal")  # what `signal` is made of: its enums take twenty times as long
_INTERRUPT = int(SIGINT)
_MAIN = threading.main_thread().ident


class Uninterrupted:
    """In its block Ctrl-C does nothing; at its end it does what it would have done. Not for long.

    Only the main thread is ever interrupted, so elsewhere this does nothing; nor where Python is not told of a Ctrl-C.
    """

    __slots__ = ("_came", "_handler")

    def __enter__(self) -> None:
        self._came = False
        self._handler: Any = None
        if threading.get_ident() == _MAIN and callable(handler := _signal.getsignal(_INTERRUPT)):
            self._handler = handler
            _signal.signal(_INTERRUPT, self._hold_back)

    def _hold_back(self, _: int, __: FrameType | None) -> None:
        self._came = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handler is not None:
            _signal.signal(_INTERRUPT, self._handler)
            if self._came:
                _signal.raise_signal(_INTERRUPT)
