"""Random programs of collectives among eight processes, call by call against numpy."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import actors
from actors import collective

if TYPE_CHECKING:
    from collections.abc import Iterator

RANKS = 8
CALLS = (
    *("allreduce", "reduce", "broadcast", "allgather", "gather", "scatter", "reducescatter", "alltoall"),
    *("tree", "messages", "objects", "halves", "barrier"),
)
UFUNCS = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum}
DTYPES = ("uint8", "int32", "int64", "float16", "float32", "float64")
LENGTHS = (0, 1, 1, 3, 40, 5_000, 120_000)
"""Elements of a rank's array, for each rank: what goes with the offer, and what goes in blocks and chunks."""


def program(seed: int, calls: int) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    return [
        {
            "what": chance.choice(CALLS),
            "op": chance.choice(sorted(UFUNCS)),
            "root": chance.randrange(RANKS),
            "dtype": chance.choice(DTYPES),
            "shape": (RANKS * chance.choice(LENGTHS), *([2] if chance.random() < 0.3 else [])),
            "seed": chance.randrange(1 << 30),
        }
        for _ in range(calls)
    ]


def brought(call: dict[str, Any], rank: int) -> np.ndarray:
    """What a rank brings: whole numbers so small that every order of reducing them gives the same bits."""
    return np.random.default_rng([call["seed"], rank]).integers(1, 3, call["shape"]).astype(call["dtype"])


@actors.remote
class Rank:
    def run(self, steps: list[dict[str, Any]]) -> list[Any]:
        """Does a program, and compares each result with numpy's; returns what differs."""
        rank, wrong = collective.get_rank(), []
        for number, call in enumerate(steps):
            found, wanted = self.found(call, rank), expected(call, rank)
            if not same(found, wanted):
                wrong.append((number, call, found, wanted))
        return wrong

    def found(self, call: dict[str, Any], rank: int) -> Any:
        x, op, root, there = brought(call, rank), call["op"], call["root"], rank == call["root"]
        todo = {
            "allreduce": lambda: collective.allreduce(x, op),
            "reduce": lambda: collective.reduce(x, root, op),
            "broadcast": lambda: collective.broadcast(x if there else None, root),
            "allgather": lambda: collective.allgather(x),
            "gather": lambda: collective.gather(x, root),
            "scatter": lambda: collective.scatter(np.split(x, RANKS) if there else None, root),
            "reducescatter": lambda: collective.reducescatter(x, op),
            "alltoall": lambda: collective.alltoall(np.split(x, RANKS)),
            "tree": lambda: collective.allreduce({"a": np.split(x, RANKS), "b": x[:1]}, op),
            "messages": lambda: self.messages(x, rank),
            "objects": lambda: collective.broadcast({"of": rank, "x": x[:3]} if there else None, root),
            "halves": lambda: self.halves(x, op, rank),
            "barrier": collective.barrier,
        }
        return todo[call["what"]]()

    def messages(self, x: np.ndarray, rank: int) -> Any:
        collective.send(x, (rank + 1) % RANKS)
        return collective.recv((rank - 1) % RANKS)

    def halves(self, x: np.ndarray, op: str, rank: int) -> Any:
        """The even ranks by themselves, and the odd ones, in the reverse order."""
        half = collective.split(rank % 2, key=-rank)
        assert half is not None
        try:
            return half.allreduce(x, op), half.allgather(rank)
        finally:
            collective.destroy_group(half)  # while others may still be finishing


def expected(call: dict[str, Any], rank: int) -> Any:
    """What numpy makes of it."""
    every, ufunc, root = [brought(call, one) for one in range(RANKS)], UFUNCS[call["op"]], call["root"]

    def total(of: range = range(RANKS)) -> np.ndarray:
        return ufunc.reduce(np.stack([every[one] for one in of]), axis=0, dtype=call["dtype"])

    def parts(x: np.ndarray) -> list[np.ndarray]:
        return np.split(x, RANKS)

    half = range(RANKS - 2 + rank % 2, -1, -2)
    todo = {
        "allreduce": total,
        "reduce": lambda: total() if rank == root else None,
        "broadcast": lambda: every[root],
        "allgather": lambda: every,
        "gather": lambda: every if rank == root else None,
        "scatter": lambda: parts(every[root])[rank],
        "reducescatter": lambda: parts(total())[rank],
        "alltoall": lambda: [parts(one)[rank] for one in every],
        "tree": lambda: {"a": parts(total()), "b": total()[:1]},
        "messages": lambda: every[(rank - 1) % RANKS],
        "objects": lambda: {"of": root, "x": every[root][:3]},
        "halves": lambda: (total(half), list(half)),
        "barrier": lambda: None,
    }
    return todo[call["what"]]()


def same(found: Any, wanted: Any) -> bool:
    """Whether two values are equal bit for bit, dtype and shape too."""
    if isinstance(wanted, np.ndarray):
        kind = (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        return kind and found.tobytes() == wanted.tobytes()
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


@pytest.fixture(scope="module")
def ranks(cluster: actors.Cluster) -> Iterator[list[Any]]:
    handles = [Rank.options(num_cpus=0).remote() for _ in range(RANKS)]
    yield handles
    for handle in handles:
        actors.kill(handle)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["auto", "grpc"])
def test_random_programs_of_eight_ranks_give_what_numpy_gives(ranks: list[Any], backend: str) -> None:
    group = collective.create_group(ranks, backend)
    try:
        for seed in range(3):
            wrong = actors.get([one.run.remote(program(seed, 50)) for one in group], timeout=120)
            assert not any(wrong), next(one for of_rank in wrong for one in of_rank)
    finally:
        collective.destroy_group(group)
