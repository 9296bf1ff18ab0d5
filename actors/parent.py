"""Ties a process to its parent: it ends when the parent does, however that ended."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

from actors.shortage import begin

if TYPE_CHECKING:
    from collections.abc import Callable


def read_orders() -> tuple[dict[str, Any], int]:
    """Reads the one line of JSON that a parent writes to its child's standard input.

    Returns:
        The orders, and a descriptor that reads as ended once the parent is gone. Standard input itself is empty
        from now on, so that no code of the user's can take from it.
    """
    # The terminal's Ctrl-C, and Jupyter's interrupt, are meant for the driver.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            os._exit(0)  # the parent is gone already
        line += byte
    parent = os.dup(0)
    os.set_inheritable(parent, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    orders: dict[str, Any] = json.loads(line)
    return orders, parent


def watch(parent: int, gone: Callable[[], None]) -> None:
    """Calls ``gone`` on a thread of its own when the parent has ended."""

    def wait() -> None:
        try:
            while os.read(parent, 4096):
                pass
        except OSError:
            pass
        gone()

    begin(wait, "actors-parent")


def orders_line(orders: dict[str, Any]) -> bytes:
    """Returns what a parent writes to its child's standard input."""
    return json.dumps(orders).encode() + b"\n"
