"""One program on two engines: a group of actors sums an array, here or on a Ray cluster whose address it is told.

``python examples/bigger_engine.py`` runs on this machine alone; with ``ray://127.0.0.1:10001`` behind it on a Ray
cluster, by Ray's client, such as ``ray start --head`` runs.
"""

import sys

import numpy as np

import actors


@actors.remote
class Part:
    """Has its share of the numbers from 1 to 1,000,000, and knows what all have together."""

    def __init__(self, scale):
        place = actors.get_runtime_context()
        self.own = scale * np.arange(1 + place.rank, 1_000_001, place.world_size, dtype=np.int64)

    def share(self):
        """Returns the sum of this rank's own."""
        return int(self.own.sum())

    def total(self):
        """Returns the sum over all ranks, which each of them gets."""
        return int(actors.collective.allreduce(np.array([self.own.sum()]))[0])


@actors.remote
def double(numbers):
    """A task: what `put` has put is there as it was."""
    return [2 * number for number in numbers]


with actors.init(sys.argv[1] if len(sys.argv) > 1 else "local", log_to_driver=False):
    group = Part.group(2, 1)
    print("each rank says:", actors.get(group.total.remote()))
    print("doubled:", actors.get(double.remote(actors.put([1, 2, 3]))))
    kept = Part.options(name="kept").remote(2)
    print("by its name:", actors.get(actors.get_actor("kept").share.remote()))
