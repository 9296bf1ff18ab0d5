"""Every collective by every way, against numpy: ops, dtypes, layouts and roots at random, ranks as threads."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import thread_fabric
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thread_fabric import ThreadFabric, World

from actors.collective import agreement, flow, pieces, plan, ring, shared
from actors.collective.group import Group
from actors.collective.near import NearFabric
from actors.costs import Costs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAYS = ("offer", "ring", "doubling", "board", "shown", "memory", "unordered", "hosts")
"""The last but one: through memory, on a processor that shows its writes to others in any order."""

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "longdouble", "complex64", "complex128", "clongdouble", ">f4", ">i2"),
)
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda x: x,
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2] if x.ndim else x,
    "reversed": lambda x: x[::-1].copy()[::-1] if x.ndim else x,
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
}
UFUNCS = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum, "mean": np.add}


def exact(array: np.ndarray) -> object:
    """Returns what is equal for arrays alike to the last bit; long doubles have bytes that belong to no number."""
    return array.tolist() if array.dtype.char in "gG" else array.tobytes()


@contextmanager
def going(way: str, block: int) -> Iterator[None]:
    """Has small arrays go the way of large ones, in pieces of a few bytes."""
    for plans in (plan._all_reduce, plan._all_reduce_structure):  # those of another way
        plans.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        if way not in {"offer", "board"}:
            patch.setattr(agreement, "INLINE_BYTES", -1)
        patch.setattr(thread_fabric, "costs", Costs(far_latency=1.0 if way == "doubling" else 1e-15))
        patch.setattr(flow, "CHUNK_BYTES", block)
        patch.setattr(ring, "LENT_BYTES", 2 * block)
        patch.setattr(shared, "BLOCK_BYTES", block)
        patch.setattr(shared, "SHOWN_BYTES", 1 << 20 if way in {"shown", "unordered"} else -1)
        patch.setattr(shared, "_IN_ORDER", way != "unordered")
        patch.setattr(pieces, "SMALL_BYTES", 0 if block == 256 else 1 << 14)
        yield


def run(way: str, size: int, hosts: str, work: Callable[[Group], Any]) -> list[Any]:
    """Runs ``work`` on every rank; returns what each returned."""
    world = World(size)
    lanes = [ThreadFabric(world, rank) for rank in range(size)]
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, ThreadPoolExecutor(size) as pool:
        if way in {"offer", "ring", "doubling"}:
            return list(pool.map(lambda lane: work(Group(lane)), lanes))
        keys = hosts[:size] if way == "hosts" else "a" * size
        near = [NearFabric(lane, Path(folder), keys[lane.rank], f"r{lane.rank}") for lane in lanes]
        try:
            return list(pool.map(lambda one: work(Group(one)), near))
        finally:
            for one in near:
                one.close()


def reduced(op: str, values: list[np.ndarray], dtype: np.dtype[Any]) -> np.ndarray:
    wide = np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")
    whole = UFUNCS[op].reduce(np.stack(values).astype(wide), axis=0, dtype=wide)
    return np.asarray(whole / len(values) if op == "mean" else whole).astype(dtype)


def same(found: Any, wanted: np.ndarray) -> None:
    assert type(found) is np.ndarray
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    assert found.flags.writeable
    loose = 2e-3 if wanted.dtype == np.float16 else 1e-5 if wanted.dtype.kind in "fc" else 0
    np.testing.assert_allclose(found, wanted, rtol=loose, atol=loose)


cases = {
    "size": st.integers(1, 8),
    "hosts": st.text("abc", min_size=8, max_size=8),
    "dtype": st.sampled_from(DTYPES).map(np.dtype),
    "shape": st.one_of(st.just(()), st.lists(st.integers(0, 6), min_size=1, max_size=3).map(tuple)),
    "op": st.sampled_from(sorted(UFUNCS)),
    "layout": st.sampled_from(sorted(LAYOUTS)),
    "block": st.sampled_from([16, 256, 1 << 20]),
    "seed": st.integers(0, 1 << 30),
}


def check(
    way: str, size: int, hosts: str, dtype: Any, shape: tuple[int, ...], op: str, layout: str, block: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    if op == "mean" and dtype.kind not in "fc":
        op = "sum"
    laid, root = LAYOUTS[layout], int(random.integers(size))

    def some(*axes: int) -> np.ndarray:
        return laid(np.asarray(random.integers(0, 4, axes)).astype(dtype))

    own = [some(*shape) for _ in range(size)]
    rows = [some(2 * size, *shape) for _ in range(size)]
    whole = np.arange(size + 2, dtype=np.float64 if op == "mean" else np.int16)
    pairs = [[some(int(random.integers(4)), *shape) for _ in range(size)] for _ in range(size)]

    def work(group: Group) -> Any:
        rank = group.rank
        results = (
            group.allreduce(own[rank], op),
            group.allreduce(own[rank], op),  # by a plan, where there are some
            group.allreduce(own[rank], op, deterministic=True),
            group.reduce(own[rank], root, op),
            group.reducescatter(rows[rank], op),
            group.broadcast(own[rank] if rank == root else None, root),
            group.allgather(own[rank]),
            group.gather(own[rank], root),
            group.scatter(pairs[rank] if rank == root else None, root),
            group.alltoall(pairs[rank]),
            group.allreduce({"a": own[rank], "b": [rows[rank], (rows[rank], whole + rank)]}, op),
            [group.allreduce({"a": own[rank], "b": [rows[rank]] * 3}, op) for _ in range(2)],  # the second by a plan
        )
        group.barrier()
        return results

    with going(way, block):
        found = run(way, size, hosts, work)
    total, parts = reduced(op, own, dtype), reduced(op, rows, dtype)
    for rank, results in enumerate(found):
        once, twice, ordered, at_root, part, sent, gathered, taken, given_, swapped, tree, alike = results
        for result in (once, twice, ordered, tree["a"]):
            same(result, total)
        assert exact(once) == exact(twice) == exact(found[0][0])
        assert (at_root is None) == (taken is None) == (rank != root)
        if rank == root:
            same(at_root, total)
        same(part, parts[2 * rank : 2 * rank + 2])
        same(tree["b"][0], parts)
        same(tree["b"][1][0], parts)
        same(tree["b"][1][1], reduced(op, [whole + other for other in range(size)], whole.dtype))
        for one in alike:
            for result, wanted in zip([one["a"], *one["b"]], [total, *[parts] * 3], strict=True):
                same(result, wanted)
        same(sent, own[root])
        for result, wanted in zip([*gathered, *(taken or [])], own * (2 if taken else 1), strict=True):
            same(result, wanted)
        same(given_, pairs[root][rank])
        for source, result in enumerate(swapped):
            same(result, pairs[source][rank])


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_what_numpy_gives(way: str) -> None:
    sample = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    sample(given(**cases)(lambda **case: check(way, **case)))()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_what_numpy_gives_at_length(way: str) -> None:
    many = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    many(given(**cases)(lambda **case: check(way, **case)))()


MLX_DTYPES = ("bfloat16", "float16", "float32", "int8", "uint32", "int64", "bool", "complex64")
mlx_cases = {**{key: cases[key] for key in ("size", "hosts", "shape", "op", "block", "seed")}}
mlx_cases["dtype"] = st.sampled_from(MLX_DTYPES)


def check_mlx(
    way: str, size: int, hosts: str, dtype: str, shape: tuple[int, ...], op: str, block: int, seed: int
) -> None:
    """As `check`, of MLX arrays; 16-bit floats are rounded once, so that nothing differs by a bit."""
    mx = pytest.importorskip("mlx.core")
    kind = getattr(mx, "bool_" if dtype == "bool" else dtype)
    if op == "mean" and "float" not in dtype and dtype != "complex64":
        op = "sum"
    random = np.random.default_rng(seed)
    root = int(random.integers(size))
    wide = np.dtype(np.float32 if "float" in dtype else dtype)
    rows = [random.integers(0, 3, (2 * size, *shape)).astype(wide) for _ in range(size)]
    own = [mx.array(row).astype(kind) for row in rows]
    mx.eval(own)

    def work(group: Group) -> Any:
        x = own[group.rank]
        return (
            [group.allreduce(x, op), group.allreduce({"a": [x]}, op, deterministic=True)["a"][0]],
            group.reducescatter(x, op),
            [group.broadcast(x if group.rank == root else None, root), group.allgather(x)[root]],
            group.alltoall([x[2 * rank : 2 * rank + 2] for rank in range(size)]),
        )

    def bits(array: Any) -> tuple[str, tuple[int, ...], bytes]:
        assert isinstance(array, mx.array)
        plain = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
        return str(array.dtype), tuple(array.shape), np.array(plain).tobytes()

    with going(way, block):
        found = run(way, size, hosts, work)
    total = mx.array(reduced(op, rows, wide)).astype(kind)
    for rank, (sums, part, sent, swapped) in enumerate(found):
        mine = slice(2 * rank, 2 * rank + 2)
        assert [bits(one) for one in sums] == [bits(total)] * 2
        assert bits(part) == bits(total[mine])
        assert [bits(one) for one in sent] == [bits(own[root])] * 2
        assert [bits(one) for one in swapped] == [bits(one[mine]) for one in own]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_what_numpy_gives_of_mlx_arrays(way: str) -> None:
    sample = settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    sample(given(**mlx_cases)(lambda **case: check_mlx(way, **case)))()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_what_numpy_gives_of_mlx_arrays_at_length(way: str) -> None:
    many = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    many(given(**mlx_cases)(lambda **case: check_mlx(way, **case)))()
