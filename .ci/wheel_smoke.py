"""The demo's first steps where only the built wheel is installed: three nodes, a counter on each, an all-reduce."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import psutil

import actors
from actors import collective

NODES = 3


@actors.remote
class Counter:
    """Counts, and reduces with its group."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int) -> int:
        """Returns the count after adding."""
        self.value += amount
        return self.value

    def total(self) -> np.ndarray:
        """Returns the group's element-wise sum of what each rank brings: rank + 1, four times."""
        return collective.allreduce(np.full(4, collective.get_rank() + 1.0))


def check(holds: bool, what: str) -> None:
    """Prints what was looked at, or ends the program with it."""
    if not holds:
        sys.exit(f"wheel: {what}: NO")
    print(f"wheel: {what}: yes", flush=True)


def children_gone() -> bool:
    """Waits up to 10 s for the last process we started to end."""
    deadline = time.monotonic() + 10
    while psutil.Process().children(recursive=True):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def main() -> None:
    """Raises or exits non-zero unless every step worked."""
    check(Path(actors.__file__).is_relative_to(sys.prefix), "imported from the installed wheel")
    command = Path(sysconfig.get_path("scripts")) / "actors"
    check("demo" in subprocess.check_output([command, "--help"], text=True, timeout=60), "the command knows its demo")

    with actors.init(local_nodes=NODES):
        names = [node.name for node in actors.nodes()]
        check(len(set(names)) == NODES, f"{NODES} nodes")
        counters = [Counter.options(node=name).remote() for name in names]
        counts = actors.get([counter.add.remote(n) for n, counter in enumerate(counters)], timeout=60)
        check(counts == [0, 1, 2], "a counter on each node")
        totals = actors.get(Counter.options(scheduling_strategy="SPREAD").group(NODES).total.remote(), timeout=60)
        check(all(np.array_equal(total, np.full(4, 6.0)) for total in totals), "an all-reduce among them")
    check(children_gone(), "no process left")


if __name__ == "__main__":
    main()
