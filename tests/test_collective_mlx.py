"""Groups whose arrays MLX's own ring carries."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import actors
from actors import collective
from actors.collective import agreement
from actors.exceptions import CollectiveError, TaskError

PATIENCE = 60.0
UFUNCS = {"sum": np.add, "min": np.minimum, "max": np.maximum, "mean": np.add}
RING_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "complex64"),
)
COUNT = 50_000  # more than travels with an offer


@actors.remote
class Rank:
    """In no group of its own."""

    def pid(self) -> int:
        return os.getpid()

    def everything(self) -> list[Any]:
        rank = collective.get_rank()
        x = mx.full((COUNT,), rank + 1, dtype=mx.bfloat16)
        whole = np.full((2, COUNT), rank + 1, np.int32)
        mean = collective.allreduce(np.full(COUNT, rank, np.float32), "mean")
        sent = collective.broadcast(np.arange(COUNT) * 1j if rank == 1 else None, 1)
        tree = collective.average_gradients({"a": np.full(COUNT, rank, np.float32), "b": [mx.ones(COUNT)]})
        total = collective.allreduce(x)
        return [
            (type(total).__name__, str(total.dtype), float(total[-1])),
            int(collective.allreduce(whole, "max")[1, -1]),
            float(mean[0]),
            [int(part[0, 0]) for part in collective.allgather(whole)],
            complex(sent[-1]),
            (float(tree["a"][0]), float(tree["b"][0][0])),
            collective.reduce(whole, 0, "min") is None,
            float(collective.allreduce(np.ones(1, np.float32))[0]),
            collective.get_group().explain(1 << 20),
        ]

    def refused(self) -> list[str]:
        """What MLX does not have is said before anything is sent, and the group goes on."""
        x = np.ones(COUNT)
        said = []
        for call in (
            lambda: collective.allreduce(x.astype(np.float32), "product"),
            lambda: collective.allreduce(x),
            lambda: collective.alltoall([x] * collective.get_world_size()),
            lambda: collective.allreduce(x.astype(np.float32), deterministic=True),
        ):
            try:
                call()
            except ValueError as error:
                said.append(str(error))
        assert collective.allreduce(np.ones(COUNT, np.float32))[0] == collective.get_world_size()
        return said

    def as_numpy(self) -> int:
        """Has the ring do every op and dtype it has, with arrays that are too small for it otherwise."""
        agreement.INLINE_BYTES = -1
        rank, size, done = collective.get_rank(), collective.get_world_size(), 0
        odd = itertools.product(UFUNCS, ["float32"], [(), (0,)])  # with one dtype: a spinning ring takes its time
        for op, dtype, shape in [*itertools.product(UFUNCS, RING_DTYPES, [(3, 5)]), *odd]:
            if op == "mean" and np.dtype(dtype).kind not in "fc":
                continue
            rows = [np.random.default_rng([other, done]).integers(0, 4, shape).astype(dtype) for other in range(size)]
            wide = np.float32 if dtype == "float16" else np.dtype(dtype)
            whole = UFUNCS[op].reduce(np.stack(rows).astype(wide), axis=0, dtype=wide)
            wanted = np.asarray(whole / size if op == "mean" else whole).astype(dtype)
            root = done % size
            at_root, gathered = collective.reduce(rows[rank], root, op), collective.allgather(rows[rank])
            sent = collective.broadcast(rows[rank] if rank == root else None, root)
            assert (at_root is None) == (rank != root)
            tree = collective.allreduce({"a": [rows[rank]]}, op)["a"][0]
            sums = [collective.allreduce(rows[rank], op), tree, *([] if at_root is None else [at_root])]
            for found, expected in zip(
                [*sums, *gathered, sent], [*[wanted] * len(sums), *rows, rows[root]], strict=True
            ):
                assert (found.dtype, found.shape) == (expected.dtype, expected.shape), (op, dtype, shape)
                np.testing.assert_allclose(found, expected, rtol=2e-3, err_msg=f"{op} {dtype} {shape}")
            done += 1
        return done

    def reduce(self, group: Any = None, timeout: float = 20.0) -> float:
        return float(collective.allreduce(np.ones(COUNT, np.float32), group=group, timeout=timeout)[0])

    def until_it_fails(self) -> str:
        try:
            while True:
                self.reduce(timeout=5)
        except CollectiveError as error:
            return str(error)


@pytest.fixture
def ranks(cluster: actors.Cluster) -> Any:
    handles = [Rank.options(num_cpus=0).remote() for _ in range(3)]
    yield handles
    for handle in handles:
        actors.kill(handle)


def get(refs: Any) -> Any:
    return actors.get(refs, timeout=PATIENCE)


def test_mlx_carries_what_it_can_and_refuses_the_rest_by_name(ranks: list[Any]) -> None:
    group = collective.create_group(ranks, "mlx")
    for rank, result in enumerate(get(group.everything.remote())):
        *values, explanation = result
        expected = [
            ("array", "mlx.core.bfloat16", 6.0),
            3,
            1.0,
            [1, 2, 3],
            (COUNT - 1) * 1j,
            (1.0, 1.0),
            rank != 0,
            3.0,
        ]
        assert values == expected
        assert "MLX's own ring" in explanation
    for said in get(group.refused.remote()):
        product, float64, alltoall, ordered = said
        assert "'product'" in product
        assert "float64" in float64
        assert "alltoall" in alltoall
        assert "deterministic" in ordered
    second = collective.create_group(ranks[::-1], "mlx")
    with pytest.raises(TaskError, match="once in a process"):
        get(second.reduce.remote(second))


@pytest.mark.slow
def test_the_ring_gives_what_numpy_gives(ranks: list[Any]) -> None:
    group = collective.create_group(ranks, "mlx")
    wholes = sum(np.dtype(dtype).kind not in "fc" for dtype in RING_DTYPES)
    done = actors.get(group.as_numpy.remote(), timeout=150)  # the ring spins, and the ranks outnumber the cores
    assert done == [len(UFUNCS) * (len(RING_DTYPES) + 2) - wholes] * 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_dies_or_stalls_in_the_ring_fails_it_on_all(ranks: list[Any], how: signal.Signals) -> None:
    group = collective.create_group(ranks, "mlx")
    pid = get(ranks[1].pid.remote())
    assert get(group.reduce.remote()) == [3.0] * 3
    waiting = [ranks[rank].until_it_fails.remote() for rank in (0, 2)]
    get(ranks[1].reduce.remote())
    os.kill(pid, how)
    for said in get(waiting):
        assert "rank 1 (" in said
