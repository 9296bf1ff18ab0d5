"""All-reduce of two ranks on a Ray cluster of this machine: by Ray's object store, and by torch's gloo.

``python benchmarks/ray_collectives.py`` in an environment that has Ray (`make test-ray` makes one). It measures gloo
where that environment has torch, too.
"""

from __future__ import annotations

import statistics
import time
from importlib.util import find_spec
from typing import Any

import numpy as np

import actors

SIZES = ((4, 200), (1 << 20, 60), (64 << 20, 7))  # bytes, and how often
WARM = 2


@actors.remote
class Rank:
    """Measures in itself, so that the program's call is no part of it."""

    def way(self) -> str:
        """Returns what carries the arrays."""
        return "gloo" if find_spec("torch") is not None else "Ray's object store"

    def all_reduce(self, nbytes: int, times: int) -> list[float]:
        """Returns the seconds of each of so many all-reduces."""
        values = np.ones(nbytes // 4, np.float32)
        found = []
        for number in range(WARM + times):
            begun = time.perf_counter()
            result: Any = actors.collective.allreduce(values, timeout=60)
            if number >= WARM:
                found.append(time.perf_counter() - begun)
        assert result[0] == 2
        return found


def main() -> None:
    """Prints a line for each size: the median, and the least and the most."""
    with actors.init(engine="ray", num_cpus=2, log_to_driver=False):
        ranks = Rank.group(2)
        print("by", *set(actors.get(ranks.way.remote())), flush=True)
        for nbytes, times in SIZES:
            took, _ = actors.get(ranks.all_reduce.remote(nbytes, times))
            low, median, high = (1e3 * which(took) for which in (min, statistics.median, max))
            print(f"{nbytes:>9} B: {median:8.3f} ms ({low:.3f} to {high:.3f}, {times} times)", flush=True)


if __name__ == "__main__":
    main()
