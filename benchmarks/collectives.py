"""Collectives of a group on this machine: the time of each, and the bytes of one rank's array over it.

    python benchmarks/collectives.py [--ranks 2] [--backend auto] [--json]

Times are medians of the slowest rank's, every call after a barrier.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

import actors
from actors import collective

CASES = [
    ("allreduce", 4, 500),
    ("allreduce", 4 << 10, 300),
    ("allreduce", 1 << 20, 60),
    ("allreduce", 64 << 20, 8),
    ("barrier", 0, 500),
    ("broadcast", 64 << 20, 8),
    ("allgather", 8 << 20, 20),
    ("reducescatter", 64 << 20, 8),
    ("tree of 200", 200 * (64 << 10), 20),
]

SETTLE_SECONDS = 3.0  # a cluster that has just begun starts processes for later


@actors.remote
class Rank:
    """One rank."""

    def times(self, what: str, nbytes: int, repeats: int) -> list[float]:
        """Returns the seconds that each call took here."""
        x = np.ones(nbytes // 4, np.float32)
        call = {
            "allreduce": lambda: collective.allreduce(x),
            "barrier": collective.barrier,
            "broadcast": lambda: collective.broadcast(x if collective.get_rank() == 0 else None),
            "allgather": lambda: collective.allgather(x),
            "reducescatter": lambda: collective.reducescatter(x),
            "tree of 200": lambda: collective.allreduce(parts),
        }[what]
        parts = np.split(x, 200) if what == "tree of 200" else []
        times = []
        for _ in range(repeats + 2):
            collective.barrier()
            start = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - start)
            del result
        return times[2:]


def measure(ranks: int, backend: str) -> list[dict[str, Any]]:
    """Returns one row for each case."""
    members = [Rank.options(num_cpus=0).remote() for _ in range(ranks)]
    group = collective.create_group(members, backend)
    time.sleep(SETTLE_SECONDS)
    rows = []
    for what, nbytes, repeats in CASES:
        times = actors.get(group.times.remote(what, nbytes, repeats), timeout=120)
        seconds = statistics.median(map(max, zip(*times, strict=True)))
        rows.append({"what": what, "bytes": nbytes, "us": seconds * 1e6, "GB/s": nbytes / seconds / 1e9})
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--backend", choices=["auto", "shm", "grpc"], default="auto")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with actors.init():
        rows = measure(asked.ranks, asked.backend)
    if asked.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['what']:14}{row['bytes']:>10} B {row['us']:>11.1f} us {row['GB/s']:>7.2f} GB/s")


if __name__ == "__main__":
    main()
