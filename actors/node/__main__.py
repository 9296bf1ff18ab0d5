"""Runs a node by the orders on standard input, until its parent ends."""

from __future__ import annotations

import gc
import json
import sys
from typing import Any

from actors.exceptions import ActorsError
from actors.node.starting import start
from actors.parent import read_orders
from actors.shortage import no_process
from actors.transport.portal import Portal


def main() -> None:
    """Runs a node; says on standard output when it is ready, or why it is not."""
    gc.disable()  # until it is ready: nothing that is loaded is garbage, and to look for some takes an eighth of it
    orders, parent = read_orders()
    try:
        portal = Portal()
        first = portal.run(start(sys.executable)) if _is_alone(orders) else None
    except OSError as error:
        name = orders.get("name", "of this device")
        print(
            json.dumps({"error": str(error) if isinstance(error, ActorsError) else no_process(name, error)}), flush=True
        )
        raise
    # Here, since a node takes longer to load than a worker takes to begin: both do so at the same time.
    from actors.node.running import run

    run(orders, parent, portal, first)


def _is_alone(orders: dict[str, Any]) -> bool:
    """Whether it is a program's only node, whose first actor somebody may wait for just now."""
    return not orders.get("device") and orders["identity"] is None  # a device finds its own key


if __name__ == "__main__":
    main()
