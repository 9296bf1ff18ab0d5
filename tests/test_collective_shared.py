"""Collectives through shared memory: ranks as threads, with sockets and files as between processes."""

from __future__ import annotations

import functools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thread_fabric import ThreadFabric, World

from actors.collective import agreement, shared, window
from actors.collective.group import Group
from actors.collective.near import NearFabric
from actors.exceptions import CollectiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
UFUNCS = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum, "mean": np.add}


@contextmanager
def small_blocks(block: int) -> Iterator[None]:
    """Everything goes through the window, in many stages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "INLINE_BYTES", -1)
        patch.setattr(shared, "BLOCK_BYTES", block)
        patch.setattr(shared, "SHOWN_BYTES", block - 1)  # what fits a block, in one go
        yield


def run(
    size: int,
    folder: Path,
    work: Callable[[Group], Any],
    keys: list[str] | None = None,
    worlds: list[World] | None = None,
) -> list[Any]:
    """Runs ``work`` on every rank, with a key of its host each; returns what each returned or raised."""
    world = World(size)
    if worlds is not None:
        worlds.append(world)
    fabrics = [
        NearFabric(ThreadFabric(world, rank), folder, (keys or ["here"] * size)[rank], f"r{rank}")
        for rank in range(size)
    ]
    results: list[Any] = [None] * size

    def one(rank: int) -> None:
        try:
            results[rank] = work(Group(fabrics[rank]))
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not list(folder.iterdir()), "files left behind"
    for fabric in fabrics:
        fabric.close()
    return results


def arrays_of(dtype: str, shape: tuple[int, ...], size: int, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [np.asarray(random.integers(0, 5, shape)).astype(dtype) for _ in range(size)]


@quick
@given(
    size=st.integers(1, 8),
    dtype=st.sampled_from(["bool", "int8", "uint64", "float16", "float32", "float64", "complex64", ">f4"]),
    shape=st.sampled_from([(), (0,), (1,), (7,), (13, 5), (300,)]),
    op=st.sampled_from(sorted(UFUNCS)),
    block=st.sampled_from([16, 256, 1 << 21]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_every_op_gives_what_numpy_gives(
    tmp_path: Path,
    size: int,
    dtype: str,
    shape: tuple[int, ...],
    op: str,
    block: int,
    seed: int,
    data: st.DataObject,
) -> None:
    if op == "mean" and np.dtype(dtype).kind not in "fc":
        op = "sum"
    root = data.draw(st.integers(0, size - 1))
    hosts = data.draw(st.lists(st.sampled_from("abc"), min_size=size, max_size=size), label="host of each rank")
    arrays = arrays_of(dtype, shape, size, seed)
    rows = arrays_of(dtype, (2 * size, *shape), size, seed)

    def work(group: Group) -> Any:
        own = arrays[group.rank]
        return (
            group.allreduce(own, op),
            group.reduce(own, root, op),
            group.reducescatter(rows[group.rank], op),
            group.broadcast(own if group.rank == root else None, root),
            group.allgather(own),
            group.barrier(),
        )

    with small_blocks(block):
        results = run(size, tmp_path, work, hosts)

    def expected(values: list[np.ndarray]) -> np.ndarray:
        wide = np.dtype(np.float32) if dtype == "float16" else np.dtype(dtype).newbyteorder("=")
        whole = UFUNCS[op].reduce(np.stack(values).astype(wide), axis=0, dtype=wide)
        return np.asarray(whole / size if op == "mean" else whole).astype(dtype)

    for rank, result in enumerate(results):
        assert not isinstance(result, Exception), result
        everywhere, at_root, part, sent, gathered, _ = result
        for found, wanted in [
            (everywhere, expected(arrays)),
            (part, expected(rows)[2 * rank : 2 * rank + 2]),
            (sent, arrays[root]),
            *zip(gathered, arrays, strict=True),
        ]:
            assert found.dtype == wanted.dtype
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=1e-3 if dtype == "float16" else 1e-6)
        assert everywhere.tobytes() == results[0][0].tobytes()
        assert (at_root is None) == (rank != root)
        if at_root is not None:
            assert at_root.tobytes() == everywhere.tobytes()


def test_arrays_of_many_blocks_and_many_calls(tmp_path: Path) -> None:
    count = 3 * window.BLOCK_BYTES // 4 + 17

    def work(group: Group) -> list[bool]:
        own = np.full(count, group.rank + 1, np.float32)
        return [bool((group.allreduce(own) == 6).all()) and group.shared for _ in range(5)]

    assert run(3, tmp_path, work) == [[True] * 5] * 3


@pytest.mark.parametrize(("size", "mean_bytes"), [(2, 60_000), (3, 60_000), (3, 900), (2, 3_000)])
def test_structures_are_reduced_from_where_their_arrays_are(tmp_path: Path, size: int, mean_bytes: int) -> None:
    """Of large arrays and of small ones, of several blocks; the last are shown before the ranks agree."""
    count = 1_500_000 // mean_bytes * {3_000: 1, 900: 2}.get(mean_bytes, 4)

    def tree(rank: int) -> dict[str, list[np.ndarray]]:
        random = np.random.default_rng(rank)
        lengths = np.random.default_rng(9).integers(0, mean_bytes // 2, count)
        kinds = (np.float32, np.float32, np.int16, np.float16)
        arrays = [random.integers(0, 9, n).astype(kinds[i % 4]) for i, n in enumerate(lengths)]
        return {"flat": arrays, "laid": [np.asfortranarray(random.normal(size=(100, 130))), np.float32(rank)[...]]}

    def work(group: Group) -> list[Any]:
        own = tree(group.rank)
        before = [array.tobytes() for array in own["flat"]]
        results = [group.allreduce(own, op) for op in ("max", "sum", "max")]
        assert [array.tobytes() for array in own["flat"]] == before
        return results

    found = run(size, tmp_path, work)
    for results in found:
        for result, fold in zip(results, (np.maximum, np.add, np.maximum), strict=True):
            for name in ("flat", "laid"):
                for array, *own in zip(result[name], *[tree(rank)[name] for rank in range(size)], strict=True):
                    assert (array.dtype, array.shape) == (own[0].dtype, own[0].shape)
                    assert array.tobytes() == functools.reduce(fold, own).tobytes()


def test_ranks_of_several_hosts_reduce_inside_each_first(tmp_path: Path) -> None:
    count = 3 * window.BLOCK_BYTES // 4 + 17
    worlds: list[World] = []

    def work(group: Group) -> tuple[float, str]:
        own = np.full(count, group.rank + 1, np.float32)
        for _ in range(3):
            total = group.allreduce({"a": own, "b": own.astype(np.float16)[:100_000], "c": own.astype(int)})
            assert (total["a"] == 15).all()
            assert (total["b"] == 15).all()
            assert (total["c"] == 15).all()
        group.barrier()
        return float(group.allreduce(own)[-1]), group.explain(own.nbytes)

    results = run(5, tmp_path, work, ["a", "b", "a", "b", "a"], worlds)
    assert [total for total, _ in results] == [15.0] * 5
    assert all("shared memory and then streams" in how for _, how in results)
    assert all("ranks 0, 2, 4; ranks 1, 3" in how for _, how in results)
    # Over the network goes what two ranks would send each other, not five.
    payload = 4 * count * 4 + 3 * (count * 8 + 100_000 * 4)
    assert worlds[0].bytes_sent < 2 * payload * 1.01


def test_a_host_that_has_no_shared_memory_is_left_out(tmp_path: Path) -> None:
    def work(group: Group) -> tuple[float, str]:
        return float(group.allreduce(np.ones(100_000))[-1]), group.explain(1 << 20)

    results = run(3, tmp_path, work, ["", "here", "here"])
    assert [total for total, _ in results] == [3.0] * 3


def test_large_objects_and_messages_pass_too(tmp_path: Path) -> None:
    def work(group: Group) -> Any:
        said = group.broadcast({"text": "x" * 500_000} if group.rank == 0 else None)
        group.send(np.arange(100_000), 1 - group.rank)
        got = group.recv(1 - group.rank)
        return len(said["text"]), int(got[-1])

    assert run(2, tmp_path, work) == [(500_000, 99_999)] * 2


def test_who_never_comes_is_named_on_every_other_rank(tmp_path: Path) -> None:
    def work(group: Group) -> None:
        group.barrier()
        if group.rank != 1:
            group.allreduce(np.ones(1_000_000), timeout=1)

    first, absent, last = run(3, tmp_path, work)
    assert absent is None
    for error in (first, last):
        assert isinstance(error, CollectiveError)
        assert "rank 1" in str(error)
