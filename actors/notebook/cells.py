"""Cells: which one runs, and how something is shown in one that has run before. Only this sends to front ends."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import OrderedDict
from typing import Any

MOST_CELLS = 1000  # remembered: what is printed for an older one is shown in the one that runs
BYTES_A_SECOND = 500_000  # a front end's server drops what comes faster than about twice that
BURST_BYTES = 1_000_000


class Cells:
    """The cells of one kernel; safe for any thread.

    Args:
        kernel: ipykernel's.
    """

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._lock = threading.Lock()
        self._parents: OrderedDict[str, Any] = OrderedDict()
        self._budget = _Budget()
        self._left_out: dict[tuple[str, str], int] = {}

    def running(self) -> str:
        """Returns the id of the cell that this code runs for; empty where it runs for none."""
        try:
            parent = self._kernel.get_parent("shell")
            cell = parent["header"]["msg_id"]
        except (LookupError, TypeError, AttributeError):
            return ""
        if cell not in self._parents:
            with self._lock:
                self._parents[cell] = parent
                if len(self._parents) > MOST_CELLS:
                    self._parents.popitem(last=False)
        return str(cell)

    def print(self, cell: str, stream: str, text: str) -> None:
        """Shows text in a cell; what is too much for a front end is counted, and said."""
        with self._lock:
            left_out = self._left_out.pop((cell, stream), 0)
            if not self._budget.takes(len(text)):
                self._left_out[cell, stream] = left_out + text.count("\n")
                return
        if left_out:
            text = f"… {left_out} lines more are not shown here: `actors logs` has them\n{text}"
        self.send(cell, "stream", {"name": stream, "text": text})

    def display(self, cell: str, display_id: str, bundle: dict[str, str], *, update: bool) -> None:
        """Shows a picture in a cell, or changes one that is shown, wherever that is."""
        content = {"data": bundle, "metadata": {}, "transient": {"display_id": display_id}}
        if update:  # as a message of the cell that runs: nbclient hears no others, and all find it by its id
            self.send("", "update_display_data", content)
        else:
            self.send(cell, "display_data", content)

    def send(self, cell: str, kind: str, content: dict[str, Any]) -> None:
        """Sends a message to all front ends, as one that belongs to a cell."""
        with self._lock:
            parent = self._parents.get(cell) or self._kernel.get_parent("shell")
        with contextlib.suppress(Exception):  # the kernel is ending
            # What the cell itself has printed before is buffered for a moment.
            sys.stdout.flush()
            sys.stderr.flush()
            topic = f"stream.{content['name']}" if kind == "stream" else kind
            self._kernel.session.send(self._kernel.iopub_socket, kind, content, parent=parent, ident=topic.encode())

    def summed_up(self) -> None:
        """Says of which cells lines were left out that nothing has followed."""
        with self._lock:
            left_out, self._left_out = self._left_out, {}
        for (cell, stream), lines in left_out.items():
            text = f"… {lines} lines more are not shown here: `actors logs` has them\n"
            self.send(cell, "stream", {"name": stream, "text": text})


class _Budget:
    """How much may be sent: so much a second, and a burst at once."""

    def __init__(self) -> None:
        self._left = float(BURST_BYTES)
        self._at = time.monotonic()

    def takes(self, nbytes: int) -> bool:
        now = time.monotonic()
        self._left = min(BURST_BYTES, self._left + (now - self._at) * BYTES_A_SECOND)
        self._at = now
        if nbytes > self._left:
            return False
        self._left -= nbytes
        return True
