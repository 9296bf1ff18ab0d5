"""The process of one side: ``python driver.py SIDE FOLDER``, told what to do on standard input, a line of JSON each.

It answers each line with one of its own, and ends with its standard input.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from samples import Count
from side import PEERS, SIDES, Side

GIVE_UP_SECONDS = 15.0


def answers() -> TextIO:
    """Returns standard output for answers alone; whatever else is printed goes to standard error from now on."""
    kept = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return kept


def orders() -> queue.SimpleQueue[dict[str, Any] | None]:
    """Returns the queue of what standard input brings, None at its end.

    Once it has ended this process ends too, in order if it can and by force if an operation never returns.
    """
    found: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            found.put(json.loads(line))
        found.put(None)
        threading.Event().wait(GIVE_UP_SECONDS)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return found


def obey(side: Side, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Does one thing and returns what to answer."""
    try:
        if order["do"] == "start":
            side.start(folder)
            return {"version": side.version}
        if not hasattr(side, order["do"]):
            return {"seconds": None}
        return {"seconds": getattr(side, order["do"])(Count(order["warm"], order["measured"]))}
    except Exception as error:
        # Whatever a side raises is what its row in the table says; the other sides go on.
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    """Serves one side until standard input ends."""
    name, folder = sys.argv[1:]
    # Read when a side loads gRPC, which would warn of the processes started while it is live.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    out, todo = answers(), orders()
    side = next(entry for entry in (*SIDES, *PEERS) if entry.name == name).load()
    try:
        while (order := todo.get()) is not None:
            print(json.dumps(obey(side, order, Path(folder))), file=out, flush=True)
    finally:
        side.stop()


if __name__ == "__main__":
    main()
