"""Every collective, on ranks that are threads, against numpy; and what happens when a rank does not do its part."""

from __future__ import annotations

import contextvars
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import thread_fabric
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thread_fabric import Killed, ThreadFabric, World, run, run_ranks

from actors import collective
from actors.collective import agreement, flow, ring
from actors.collective import group as group_module
from actors.collective.context import add_group, current_group, entered, remove_group
from actors.collective.group import Group
from actors.collective.tree import neighbours
from actors.costs import Costs
from actors.exceptions import CollectiveError, SerializationError
from actors.reduction import OPS
from actors.shortage import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", ">f4", ">i2"),
)
ALGORITHMS = ("with the offer", "by ring", "by doubling")
UFUNCS = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum, "mean": np.add}

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@contextmanager
def using(algorithm: str, chunk: int = 16) -> Iterator[None]:
    """Has small arrays go the way of large ones: not with the offer, and in chunks of a few bytes."""
    with pytest.MonkeyPatch.context() as patch:
        if algorithm != "with the offer":
            # What a message costs decides which way is taken.
            patch.setattr(thread_fabric, "costs", Costs(far_latency=1e-15 if algorithm == "by ring" else 1.0))
            patch.setattr(agreement, "INLINE_BYTES", -1)
            patch.setattr(flow, "CHUNK_BYTES", chunk)
            patch.setattr(ring, "LENT_BYTES", 2 * chunk)
        yield


shapes = st.one_of(st.just(()), st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple))
cases = {
    "size": st.integers(1, 8),
    "dtype": st.sampled_from(DTYPES),
    "shape": shapes,
    "seed": st.integers(0, 2**31),
    "algorithm": st.sampled_from(ALGORITHMS),
}


def make(dtype: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    whole = random.integers(0 if dtype.startswith("u") else -4, 5, shape)
    kind = np.dtype(dtype).kind
    values = (
        whole + random.random(shape) if kind == "f" else whole + 1j * random.random(shape) if kind == "c" else whole
    )
    return np.asarray(values).astype(dtype)


def expect(op: str, arrays: list[np.ndarray]) -> np.ndarray:
    dtype = arrays[0].dtype
    wide = np.dtype(np.float32) if dtype == np.float16 else dtype.newbyteorder("=")
    result = UFUNCS[op].reduce(np.stack(arrays).astype(wide), axis=0, dtype=wide)
    return np.asarray(result / len(arrays) if op == "mean" else result).astype(dtype)


def check(results: list[Any], expected: np.ndarray) -> None:
    tolerance = 2e-3 if expected.dtype == np.float16 else 1e-5
    for result in results:
        assert type(result) is np.ndarray
        assert result.dtype == expected.dtype
        assert result.shape == expected.shape
        assert result.flags.writeable
        assert result.tobytes() == results[0].tobytes()
        if expected.dtype.kind in "fc":
            np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(result, expected)


def ops_of(dtype: str) -> list[str]:
    return [op for op in OPS if op != "mean" or np.dtype(dtype).kind in "fc"]


@quick
@given(**cases, data=st.data())
def test_allreduce_and_reduce(
    size: int, dtype: str, shape: tuple[int, ...], seed: int, algorithm: str, data: st.DataObject
) -> None:
    op, root = data.draw(st.sampled_from(ops_of(dtype))), data.draw(st.integers(0, size - 1))
    arrays = [make(dtype, shape, seed + rank) for rank in range(size)]
    with using(algorithm):
        results = run(size, lambda g: (g.allreduce(arrays[g.rank], op), g.reduce(arrays[g.rank], root, op)))
    check([result for result, _ in results], expect(op, arrays))
    check([results[root][1]], expect(op, arrays))
    assert all(results[rank][1] is None for rank in range(size) if rank != root)


@quick
@given(**cases, data=st.data())
def test_reducescatter(
    size: int, dtype: str, shape: tuple[int, ...], seed: int, algorithm: str, data: st.DataObject
) -> None:
    op, rows = data.draw(st.sampled_from(ops_of(dtype))), data.draw(st.integers(0, 3))
    arrays = [make(dtype, (rows * size, *shape), seed + rank) for rank in range(size)]
    with using(algorithm):
        results = run(size, lambda g: g.reducescatter(arrays[g.rank], op))
    whole = expect(op, arrays)
    for rank, result in enumerate(results):
        check([result], whole[rank * rows : (rank + 1) * rows])


@quick
@given(**cases, data=st.data())
def test_what_moves_arrives_unchanged(
    size: int, dtype: str, shape: tuple[int, ...], seed: int, algorithm: str, data: st.DataObject
) -> None:
    root = data.draw(st.integers(0, size - 1))
    arrays = [make(dtype, shape, seed + rank) for rank in range(size)]
    grid = [[make(dtype, (i + j, *shape), seed + i * size + j) for j in range(size)] for i in range(size)]

    def work(group: Group) -> Any:
        own = arrays[group.rank]
        placeholder = np.empty_like(own) if group.rank % 2 else None
        return (
            group.broadcast(own if group.rank == root else placeholder, root),
            group.allgather(own),
            group.gather(own, root),
            group.scatter(grid[root] if group.rank == root else None, root),
            group.alltoall(grid[group.rank]),
        )

    with using(algorithm):
        results = run(size, work)
    for rank, (sent, everyone, gathered, item, column) in enumerate(results):
        check([sent], arrays[root])
        check([item], grid[root][rank])
        for other in range(size):
            check([everyone[other]], arrays[other])
            check([column[other]], grid[other][rank])
            if rank == root:
                check([gathered[other]], arrays[other])
        assert rank == root or gathered is None


@pytest.mark.parametrize("size", [3, agreement.DIRECT_RANKS + 2])
def test_small_arrays_are_reduced_in_rank_order(size: int) -> None:
    values = [np.array([10.0**rank * (-1) ** rank, rank], np.float32) for rank in range(size)]
    in_order = values[0]
    for value in values[1:]:
        in_order = in_order + value
    assert all(result.tobytes() == in_order.tobytes() for result in run(size, lambda g: g.allreduce(values[g.rank])))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_layouts(algorithm: str) -> None:
    base = np.arange(60, dtype=np.float64).reshape(3, 4, 5)
    layouts = (np.asfortranarray(base), base[::2, ::-1], base.T, np.broadcast_to(base[0], (3, 4, 5)), base[1, 1, 1])
    with using(algorithm):
        for array in layouts:
            for result in run(3, lambda g, x=array: g.allreduce(x)):
                np.testing.assert_array_equal(result, array * 3)
                assert type(result) is type(array)
                assert result.dtype == array.dtype


def test_inputs_stay_and_results_are_ones_own() -> None:
    arrays = [np.arange(6.0) + rank for rank in range(3)]

    def work(group: Group) -> None:
        own = arrays[group.rank]
        results = [group.allreduce(own), group.broadcast(own), *group.allgather(own), *group.alltoall([own] * 3)]
        for index, result in enumerate(results):
            assert not np.shares_memory(result, own)
            assert not any(np.shares_memory(result, other) for other in results[:index])
            np.add(result, 1, out=result)

    run(3, work)
    run(1, _alone)
    for rank, array in enumerate(arrays):
        np.testing.assert_array_equal(array, np.arange(6.0) + rank)


def _alone(group: Group) -> None:
    own = np.arange(3.0)
    for result in (group.allreduce(own), group.broadcast(own), group.allgather(own)[0], group.scatter([own], 0)):
        assert not np.shares_memory(result, own)


def test_half_precision_is_rounded_once() -> None:
    values = np.array([40000, 1, 2048], np.float16)
    others = np.array([40000, 0.0004, 1], np.float16)
    for algorithm in ALGORITHMS:
        with using(algorithm):
            mean, total = run(4, lambda g: (g.allreduce(values, "mean"), g.allreduce(others if g.rank else values)))[0]
        np.testing.assert_array_equal(mean, values)
        assert np.isinf(total[0])
        assert total[2] == 2052  # one by one each 1 would be lost: 2049 rounds to 2048


def test_integers_wrap_and_booleans_are_logical() -> None:
    assert run(2, lambda g: g.allreduce(np.array([100], np.int8)))[0][0] == -56
    truth = [np.array([True, True, False]), np.array([True, False, False])]
    for op, expected in (("sum", [True, True, False]), ("product", [True, False, False])):
        result = run(2, lambda g, op=op: g.allreduce(truth[g.rank], op))[0]
        assert result.dtype == bool
        assert result.tolist() == expected


def test_overflow_and_nan_are_results_not_warnings() -> None:
    big = np.array([np.finfo(np.float32).max, np.nan, np.inf], np.float32)
    result = run(2, lambda g: g.allreduce(big if g.rank else -big * np.array([-1, 1, 1], np.float32)))[0]
    assert np.isinf(result[0])
    assert np.isnan(result[1:]).all()


class SlowFabric(ThreadFabric):
    """A rank that takes its time to receive."""

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        time.sleep(0.002)
        return super().recv(src, tag, deadline)


@pytest.mark.parametrize("slow", range(3))
@pytest.mark.parametrize("call", ["allreduce", "reducescatter", "allgather", "reduce"])
def test_arrays_may_be_changed_as_soon_as_a_collective_returns(call: str, slow: int) -> None:
    """Large segments are sent from where they lie: nobody reads them any more by then."""
    arrays = [make("float32", (48,), rank) for rank in range(3)]
    whole = np.sum(arrays, axis=0, dtype=np.float32)

    def work(group: Group) -> np.ndarray:
        own = arrays[group.rank].copy()
        result = np.asarray(getattr(group, call)(own, **({"dst": 0} if call == "reduce" else {})))
        kept = result.copy()
        own[:] = np.nan
        if result.flags.writeable and group.rank != slow:
            result[...] = np.nan
        return kept

    with using("by ring"):
        world = World(3)
        fabrics = [(SlowFabric if rank == slow else ThreadFabric)(world, rank) for rank in range(3)]
        results = run_ranks(fabrics, work)
    expected = {
        "allreduce": [whole] * 3,
        "reducescatter": np.split(whole, 3),
        "allgather": [np.stack(arrays)] * 3,
        "reduce": [whole, np.array(None), np.array(None)],
    }
    for result, due in zip(results, expected[call], strict=True):
        assert not isinstance(result, BaseException), result
        if due.dtype != object:
            np.testing.assert_allclose(result.reshape(due.shape), due, rtol=1e-5, atol=1e-5)


def test_eight_mebibytes_by_ring() -> None:
    world = World(3)
    count = (8 << 20) // 4 + 1
    arrays = [np.random.default_rng(rank).random(count, np.float32) for rank in range(3)]
    results = run(3, lambda g: g.allreduce(arrays[g.rank]), world=world)
    check(results, expect("sum", arrays))
    # Through each rank goes 2 (n - 1) / n of the array, the least possible, and never much at a time.
    assert world.bytes_sent < 3 * (2 * 2 / 3) * count * 4 * 1.01
    assert world.largest_backlog <= 3 * (flow.WINDOW + 1) * (flow.GROWTH * flow.CHUNK_BYTES + 4096)


@pytest.mark.parametrize("call", ["broadcast", "gather", "scatter"])
def test_a_slow_receiver_bounds_what_is_under_way(call: str) -> None:
    world = World(2)
    array = np.arange(64 * flow.GROWTH, dtype=np.uint8)
    calls: dict[str, Callable[[Group], Any]] = {
        "broadcast": lambda g: g.broadcast(array if g.rank == 0 else None),
        "gather": lambda g: (g.gather(array, 1) or [None])[0],
        "scatter": lambda g: g.scatter([array, array] if g.rank == 0 else None, 0),
    }
    with using("by ring", chunk=1):
        results = run(2, calls[call], world=world)
    np.testing.assert_array_equal(results[1], array)
    assert world.messages >= 64 + 2


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 9, 13])
def test_barrier_waits_for_all(size: int) -> None:
    arrived: list[int] = []

    def work(group: Group) -> int:
        arrived.append(group.rank)
        group.barrier()
        return len(arrived)

    assert run(size, work) == [size] * size


@pytest.mark.parametrize("size", range(1, 18))
def test_tree_reaches_every_rank_once(size: int) -> None:
    for root in range(size):
        parents = {rank: neighbours(rank, root, size)[0] for rank in range(size)}
        children = {child: rank for rank in range(size) for child in neighbours(rank, root, size)[1]}
        assert parents.pop(root) is None
        assert parents == children


def test_messages_between_two_ranks() -> None:
    large = np.random.default_rng(0).random(200_000)

    def work(group: Group) -> Any:
        other = 1 - group.rank
        for value in (1, {"a": np.ones(3)}, large):
            group.send(value, other)
        group.send("apart", other, tag="side")
        apart = group.recv(other, "side")
        return apart, group.recv(other), group.recv(other), group.recv(other)

    for apart, first, second, third in run(2, work):
        assert (apart, first) == ("apart", 1)
        np.testing.assert_array_equal(second["a"], np.ones(3))
        np.testing.assert_array_equal(third, large)
        assert not third.flags.writeable


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.array(["2024-01-01T12:00", "NaT"], "M8[us]"),
        np.array(["a", "büro"]),
        np.array([b"a", b"\x01\x02"], "V2"),
        np.zeros((2, 0), "S3"),
        np.array([(1, 2.5), (3, 4.5)], [("count", ">i4"), ("mean", "<f8")]),
        np.zeros(3, np.dtype({"names": ["x"], "formats": ["u1"], "offsets": [3], "itemsize": 8})),
    ],
    ids=lambda array: str(array.dtype.char + array.dtype.byteorder),
)
def test_arrays_of_any_dtype_keep_it(array: np.ndarray, algorithm: str) -> None:
    def work(group: Group) -> Any:
        other = 1 - group.rank
        group.send(array, other)
        return [group.recv(other), *group.allgather(array), *group.alltoall([array, array])]

    with using(algorithm):
        for result in (one for results in run(2, work) for one in results):
            assert result.dtype == array.dtype
            np.testing.assert_array_equal(result, array)


def test_objects_move_too() -> None:
    def work(group: Group) -> Any:
        own = {"rank": group.rank, "weights": np.ones(2)}
        return (
            group.broadcast(own if group.rank == 1 else None, 1)["rank"],
            [value["rank"] for value in group.allgather(own)],
            group.scatter([f"for {rank}" for rank in range(3)] if group.rank == 2 else None, 2),
            group.alltoall([group.rank, "b", np.ones(group.rank)]),
        )

    results = run(3, work)
    for rank, (sent, everyone, item, _) in enumerate(results):
        assert (sent, everyone, item) == (1, [0, 1, 2], f"for {rank}")
    assert results[0][3] == [0, 1, 2]
    assert [len(array) for array in results[2][3]] == [0, 1, 2]


# MLX


@pytest.fixture(scope="module")
def mx() -> Any:
    return pytest.importorskip("mlx.core", reason="no MLX on this platform")


MLX_DTYPES = (
    *("bool_", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", MLX_DTYPES)
def test_mlx_arrays_come_back_as_mlx(mx: Any, name: str, algorithm: str) -> None:
    dtype = getattr(mx, name)
    values = np.array([[0, 1, 3], [1, 0, 2]])

    def work(group: Group) -> Any:
        for shaped in (values, values.T, values[0, 1], values[:0]):
            x = mx.array(shaped + group.rank, dtype=dtype)
            total, highest, everyone = group.allreduce(x), group.allreduce(x, "max"), group.allgather(x)
            sent = group.broadcast(x if group.rank == 1 else None, 1)
            other = (group.rank + 1) % 3
            group.send(x, other)
            received = group.recv((group.rank + 2) % 3)
            expected = [mx.array(shaped + rank, dtype=dtype) for rank in range(3)]
            summed = mx.array(((shaped > 0) | True) if name == "bool_" else shaped * 3 + 3, dtype=dtype)
            for result, wanted in (
                (total, summed),
                (highest, expected[2]),
                (sent, expected[1]),
                (received, expected[(group.rank + 2) % 3]),
                *zip(everyone, expected, strict=True),
            ):
                assert isinstance(result, mx.array)
                assert result.dtype == dtype
                assert result.shape == wanted.shape
                assert result.tolist() == wanted.tolist()

    with using(algorithm):
        run(3, work)


def test_bfloat16_is_added_in_float32_and_rounded_to_even(mx: Any) -> None:
    inputs = [mx.array([1.0, 256.0, float("nan"), 3e38, 1.0078125], dtype=mx.bfloat16), None]
    inputs[1] = mx.array([2**-8, 1.0, 1.0, 3e38, 1.0], dtype=mx.bfloat16)

    def work(group: Group) -> Any:
        x = mx.array(inputs[group.rank].tolist(), dtype=mx.bfloat16)
        return group.allreduce(x).tolist(), group.allreduce(x, "mean").tolist()

    mx.eval(*inputs)
    total, mean = run(2, work)[0]
    wide = inputs[0].astype(mx.float32) + inputs[1].astype(mx.float32)
    np.testing.assert_array_equal(total, wide.astype(mx.bfloat16).tolist())
    np.testing.assert_array_equal(mean, (wide / 2).astype(mx.bfloat16).tolist())


def test_each_rank_gets_its_own_kind(mx: Any) -> None:
    def work(group: Group) -> Any:
        x = mx.ones(3) if group.rank else np.ones(3, np.float32)
        return group.allreduce(x), group.broadcast(x), group.allgather(x)[0]

    first, second = run(2, work)
    assert all(type(value) is np.ndarray for value in first)
    assert all(isinstance(value, mx.array) for value in second)
    assert second[0].tolist() == [2, 2, 2]


# What the ranks must agree on

F4 = np.zeros(3, np.float32)
MISMATCHES: dict[str, tuple[Callable[[Group], Any], Callable[[Group], Any], tuple[str, ...]]] = {
    "shape": (lambda g: g.allreduce(F4), lambda g: g.allreduce(F4.reshape(3, 1)), ("float32 (3,)", "float32 (3, 1)")),
    "dtype": (lambda g: g.allreduce(F4), lambda g: g.allreduce(F4 > 0), ("float32 (3,)", "bool (3,)")),
    "length": (lambda g: g.allreduce(F4), lambda g: g.allreduce(np.ones(99999)), ("float32 (3,)", "float64 (99999,)")),
    "op": (lambda g: g.allreduce(F4), lambda g: g.allreduce(F4, "max"), ("op='sum'", "op='max'")),
    "call": (lambda g: g.allreduce(F4), lambda g: g.barrier(), ("allreduce(", "barrier()")),
    "root": (lambda g: g.broadcast(F4, 0), lambda g: g.broadcast(F4, 1), ("root 0", "root 1")),
    "broadcast": (
        lambda g: g.broadcast(F4, 0),
        lambda g: g.broadcast(F4.astype(int), 0),
        ("float32 (3,)", "int64 (3,)"),
    ),
    "gather": (lambda g: g.gather(F4, 0), lambda g: g.gather(F4[1:], 0), ("float32 (3,)", "float32 (2,)")),
    "allgather": (lambda g: g.allgather(F4), lambda g: g.allgather([1]), ("float32 (3,)", "a Python object")),
    "alltoall": (
        lambda g: g.alltoall([F4] * 3),
        lambda g: g.alltoall([F4 > 0] * 3),
        ("float32 arrays", "bool arrays"),
    ),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_mismatch_fails_everywhere_and_leaves_the_group_usable(case: str) -> None:
    usual, other, sides = MISMATCHES[case]

    def work(group: Group) -> tuple[str, float]:
        with pytest.raises(CollectiveError) as raised:
            (other if group.rank == 1 else usual)(group)
        return str(raised.value), group.allreduce(np.ones(1))[0]

    messages = run(3, work)
    for message, total in messages:
        assert message == messages[0][0]
        assert all(side in message for side in sides)
        assert "rank 1 (actor Member on node thread-1)" in message
        assert total == 3


def endless() -> list[Any]:
    found: list[Any] = [F4]
    found.append(found)
    return found


WRONG: dict[str, tuple[Callable[[Group], Any], type[Exception], str]] = {
    "op": (lambda g: g.allreduce(F4, "avg"), ValueError, "sum, product, min, max, mean"),
    "op of no string": (lambda g: g.allreduce(F4, ["sum"]), ValueError, "unknown op"),
    "mean of integers": (lambda g: g.allreduce(np.ones(3, int), "mean"), ValueError, "int64"),
    "no array": (lambda g: g.allreduce([1.0]), TypeError, "numpy.asarray"),
    "dtype": (lambda g: g.allreduce(np.array(["a"])), TypeError, "<U1"),
    "root": (lambda g: g.broadcast(F4, 3), ValueError, "src=3"),
    "root below": (lambda g: g.gather(F4, -1), ValueError, "dst=-1"),
    "root of no int": (lambda g: g.reduce(F4, 1.0), TypeError, "dst must be a rank"),
    "list": (lambda g: g.alltoall(F4), TypeError, "ndarray"),
    "length": (lambda g: g.alltoall([1]), ValueError, "3 ranks, not 1"),
    "rows": (lambda g: g.reducescatter(np.ones((4, 3))), ValueError, "4 over 3"),
    "axis": (lambda g: g.reducescatter(np.float32(1)), ValueError, "axis 0"),
    "pickle": (lambda g: g.allgather(threading.Lock()), SerializationError, "lock"),
    "order": (lambda g: g.allreduce(F4, deterministic="no"), TypeError, "deterministic must be True or False"),
    "order of a tree": (lambda g: g.allreduce([F4], deterministic=1), TypeError, "deterministic must be True or False"),
    "no end": (lambda g: g.allreduce(endless()), TypeError, "contains itself"),
    "timeout": (lambda g: g.barrier(timeout=0), ValueError, "positive"),
    "timeout of no number": (lambda g: g.barrier(timeout="1"), TypeError, "seconds"),
    "timeout nan": (lambda g: g.barrier(timeout=float("nan")), ValueError, "positive"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_of_one_rank_do_not_keep_the_others(case: str) -> None:
    wrong, kind, words = WRONG[case]

    def work(group: Group) -> Any:
        expected = kind if group.rank == 2 else CollectiveError
        with pytest.raises(expected) as raised:
            wrong(group) if group.rank == 2 else group.allreduce(F4)
        assert words in str(raised.value)
        assert group.rank == 2 or "rank 2 (actor" in str(raised.value)
        return group.allreduce(np.ones(1))[0]

    assert run(3, work) == [3, 3, 3]


def test_what_no_group_and_no_explanation_can_be_had_of() -> None:
    def work(group: Group) -> Any:
        with pytest.raises(TypeError, match=r"keys of the ranks must be integers, not \[1, None, 1\]"):
            group.split(0, None if group.rank == 1 else 1)  # type: ignore[arg-type]
        for nbytes in (-1, "64 MiB", float("nan")):
            with pytest.raises(ValueError, match="nbytes must be a number of bytes, not "):
                group.explain(nbytes)  # type: ignore[arg-type]
        return group.allreduce(np.ones(1))[0]

    assert run(3, work) == [3, 3, 3]


def test_wrong_messages() -> None:
    def work(group: Group) -> None:
        if group.rank == 0:
            for call in (lambda: group.send(1, 0), lambda: group.recv(2), lambda: group.recv(-1)):
                with pytest.raises(ValueError, match="="):
                    call()
            with pytest.raises(TypeError, match="tag"):
                group.send(1, 1, tag=1.5)
            with pytest.raises(CollectiveError, match=r"rank 1 \(actor .* nothing with tag 7"):
                group.recv(1, 7, timeout=0.01)
        group.barrier()
        if group.rank == 1:
            group.send("late", 0, 7)
        else:
            assert group.recv(1, 7) == "late"

    run(2, work)


# Ranks that do not do their part

BIG = np.ones(100, np.float64)
COLLECTIVES: dict[str, Callable[[Group], Any]] = {
    "allreduce": lambda g: g.allreduce(BIG),
    "broadcast": lambda g: g.broadcast(BIG, 1),
    "allgather": lambda g: g.allgather(BIG),
    "gather": lambda g: g.gather(BIG, 0),
    "alltoall": lambda g: g.alltoall([BIG] * 4),
    "reduce": lambda g: g.reduce(BIG, 0),
    "reducescatter": lambda g: g.reducescatter(BIG),
    "scatter": lambda g: g.scatter([BIG] * 4, 2),
    "barrier": lambda g: g.barrier(),
}


def survivors(results: list[Any], victim: int) -> list[Any]:
    return [result for rank, result in enumerate(results) if rank != victim]


@pytest.mark.parametrize("call", COLLECTIVES)
def test_a_rank_killed_anywhere_fails_all(call: str) -> None:
    """Killed before each of its first messages, be it in the offers or in the middle of the algorithm."""
    for after in range(30):
        world = World(4)
        fabrics = [ThreadFabric(world, rank, kill_after=after if rank == 2 else None) for rank in range(4)]

        def work(group: Group) -> None:
            COLLECTIVES[call](group)
            for _ in range(12):  # who was done before the death is told in the next call
                group.barrier()

        start = time.monotonic()
        with using("by ring", chunk=64):
            results = run_ranks(fabrics, work)
        assert time.monotonic() - start < 10
        assert isinstance(results[2], Killed)
        for result in survivors(results, 2):
            assert isinstance(result, CollectiveError), result
            assert "rank 2 (actor Member on node thread-2) died" in str(result)
            assert "make it anew" in str(result).lower()


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_rank_that_stalls_in_the_middle_is_named_on_all(after: int) -> None:
    world = World(4)
    fabrics = [ThreadFabric(world, rank, mute_after=after if rank == 2 else None) for rank in range(4)]

    def work(group: Group) -> None:
        group.allreduce(BIG, timeout=2)
        group.barrier(timeout=2)

    start = time.monotonic()
    with using("by ring", chunk=64):
        results = run_ranks(fabrics, work)
    assert time.monotonic() - start < 4.5
    for result in survivors(results, 2):
        assert isinstance(result, CollectiveError)
        assert "rank 2 (actor Member on node thread-2) sent nothing within 2 s" in str(result)
        assert "rank 1 " not in str(result)


@pytest.mark.parametrize(("size", "seconds"), [(3, 2), (10, 5)])
def test_a_rank_that_never_comes_is_named_on_all(monkeypatch: pytest.MonkeyPatch, size: int, seconds: int) -> None:
    """With few ranks each hears the others itself; with many they find out together."""
    # Half of the time for each of both, and all begin at once: ten threads of a busy machine need it.
    monkeypatch.setattr(group_module, "_grace", lambda seconds: seconds / 2)
    world, start = World(size), threading.Barrier(size)
    named = rf"rank 1 \(actor Member on node thread-1\) sent nothing within {seconds} s"

    def work(group: Group) -> None:
        start.wait(30)
        if group.rank == 1:
            return
        with pytest.raises(CollectiveError, match=named):
            group.barrier(timeout=seconds)
        with pytest.raises(CollectiveError, match=r"is broken since an earlier call: rank 1 .*rebuild\(\)"):
            group.barrier()
        with pytest.raises(CollectiveError, match="is broken"):
            group.send(1, 1)

    assert run_ranks([ThreadFabric(world, rank) for rank in range(size)], work) == [None] * size


def test_who_is_a_call_ahead_names_the_rank_that_stalls_not_one_that_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rank 2 falls silent having sent its part of the second barrier to rank 3 alone, which is in the third then."""
    monkeypatch.setattr(group_module, "_grace", lambda seconds: seconds / 2)
    world = World(4)

    def work(group: Group) -> None:
        for _ in range(3):
            # Rank 3 looks for the culprit between 1 s and 2 s; those that wait for it say so at 1.5 s.
            group.barrier(timeout=2 if group.rank == 3 else 3)

    results = run_ranks([ThreadFabric(world, rank, mute_after=4 if rank == 2 else None) for rank in range(4)], work)
    for result in survivors(results, 2):
        assert isinstance(result, CollectiveError)
        assert "rank 2 (actor Member on node thread-2) sent nothing" in str(result)


def test_work_for_which_there_was_no_thread_is_told_so_and_done_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    group = Group(ThreadFabric(World(1), 0))

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(NoThreadError, match="this process can begin no further thread"):
            group.start("barrier", group.barrier)
    group.barrier()  # it waits for what was started, and nothing was
    assert group.start("allreduce", lambda: group.allreduce(np.ones(1))).wait(timeout=20) == [1.0]
    group.close()


def test_threads_of_one_rank_take_turns() -> None:
    world = World(2)
    first, second = (Group(ThreadFabric(world, rank)) for rank in range(2))
    waiting = threading.Thread(target=first.barrier)
    waiting.start()
    with world.changed:
        assert world.changed.wait_for(lambda: (0, 1, "1/offer") in world.letters, timeout=10)
    with pytest.raises(CollectiveError, match="another thread of this rank"):
        first.barrier(timeout=0.01)
    second.barrier()
    waiting.join(10)
    assert not waiting.is_alive()


def test_an_interrupt_is_told_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(2)
    monkeypatch.setattr(agreement, "INLINE_BYTES", -1)
    fabrics = [ThreadFabric(world, rank) for rank in range(2)]
    monkeypatch.setattr(fabrics[0], "send", _interrupt)

    def work(group: Group) -> None:
        with pytest.raises(KeyboardInterrupt if group.rank == 0 else CollectiveError) as raised:
            group.allreduce(BIG)
        assert group.rank == 0 or "rank 0 (actor Member on node thread-0) left" in str(raised.value)

    assert run_ranks(fabrics, work) == [None, None]


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


# The public functions


def test_functions_work_in_the_current_group() -> None:
    def work(group: Group) -> Any:
        with entered(group):
            size, rank = collective.get_world_size(), collective.get_rank()
            collective.barrier(timeout=5)
            other = (rank + 1) % size
            collective.send(rank, other)
            x = np.full(size, rank)
            return (
                collective.recv((rank - 1) % size),
                collective.allreduce(x)[0],
                collective.reduce(x, 0, "max"),
                collective.broadcast(rank, 2),
                len(collective.allgather(x)),
                collective.gather(rank, 1),
                collective.scatter(["a", "b", "c"], 0),
                collective.reducescatter(x, "min").tolist(),
                collective.alltoall(["x", "y", "z"], group=group),
            )

    results = run(3, work)
    assert results[1] == (0, 3, None, 2, 3, [0, 1, 2], "b", [0], ["y", "y", "y"])
    assert results[0][2].tolist() == [2, 2, 2]


def test_outside_a_group_it_says_what_to_do() -> None:
    with pytest.raises(CollectiveError, match=r"\.group\(n\)"):
        collective.allreduce(np.ones(1))


def test_the_group_of_the_process_is_seen_in_threads_and_that_of_a_call_goes_first() -> None:
    of_process, of_call = (Group(ThreadFabric(World(1, name), 0)) for name in ("process", "call"))
    add_group(of_process)
    try:
        with entered(of_call):
            assert current_group() is of_call
            assert contextvars.copy_context().run(current_group) is of_call
            seen: list[Group] = []
            thread = threading.Thread(target=lambda: seen.append(current_group()))
            thread.start()
            thread.join()
        assert seen == [of_process]
        assert current_group() is of_process
    finally:
        remove_group("process")


def test_importing_the_collectives_loads_neither_numpy_nor_mlx() -> None:
    code = "import sys, actors.collective; print([m for m in ('numpy', 'mlx.core', 'grpc') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_reduce_is_the_function_also_after_the_group_is_loaded() -> None:
    assert callable(collective.reduce)
    assert callable(collective.broadcast)
