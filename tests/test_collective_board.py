"""The board in shared memory: what is posted, who sleeps and is woken, and what is half written."""

from __future__ import annotations

import mmap
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thread_fabric import ThreadFabric, World

from actors.collective import board
from actors.collective.bell import Bell
from actors.collective.board import BOARD_BYTES, POST_BYTES, Board
from actors.collective.channel import Channel, SilentRankError
from actors.collective.group import Group
from actors.collective.near import NearFabric
from actors.exceptions import CollectiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Boards:
    """The boards of some ranks that are threads."""

    def __init__(self, size: int, folder: Path) -> None:
        self.world = World(size)
        self.maps = [mmap.mmap(-1, BOARD_BYTES) for _ in range(size)]
        self.bells = [Bell(folder / str(rank)) for rank in range(size)]
        for rank, bell in enumerate(self.bells):
            for other in range(size):
                if other != rank:
                    bell.attach(other, folder / str(other))
        self.fabrics = [ThreadFabric(self.world, rank) for rank in range(size)]
        self.boards = [Board(self.maps, 0, rank, self.bells[rank]) for rank in range(size)]

    def channel(self, rank: int, call: int, seconds: float = 30.0) -> Channel:
        return Channel(self.fabrics[rank], call, time.monotonic() + seconds)

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        with ThreadPoolExecutor(len(self.boards)) as pool:
            return list(pool.map(work, range(len(self.boards))))

    def close(self) -> None:
        for bell in self.bells:
            bell.close()


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[Callable[[int], Boards]]:
    made = []

    def make(size: int) -> Boards:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Boards(size, folder))
        return made[-1]

    yield make
    for one in made:
        one.close()


posts = st.one_of(
    st.binary(max_size=100),
    st.sampled_from([0, POST_BYTES - 1, POST_BYTES, POST_BYTES + 1, 3 * POST_BYTES]).map(bytes),
    st.tuples(st.integers(), st.text()),
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), size=st.integers(1, 6), rounds=st.integers(1, 5))
def test_everybody_gets_what_all_have_posted(
    boards: Callable[[int], Boards], data: st.DataObject, size: int, rounds: int
) -> None:
    there = boards(size)
    said = [[data.draw(posts) for _ in range(size)] for _ in range(rounds)]

    def work(rank: int) -> Any:
        return [there.boards[rank].exchange(there.channel(rank, turn), said[turn][rank]) for turn in range(rounds)]

    assert there.run(work) == [said] * size


def test_who_sleeps_is_woken_by_the_last(boards: Callable[[int], Boards], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "FIRST_SLICE", 20.0)  # only a bell ends the sleep in time
    monkeypatch.setattr(board, "LONGEST_SLICE", 20.0)
    there = boards(3)
    asleep = threading.Barrier(3)

    def work(rank: int) -> float:
        start = time.monotonic()
        asleep.wait()
        if rank == 2:
            while not all(part.cast("Q")[0] == 1 for part in map(memoryview, there.maps[:2])):
                time.sleep(0.01)
        there.boards[rank].exchange(there.channel(rank, 1), b"here")
        return time.monotonic() - start

    assert max(there.run(work)) < 15


def test_nobody_looks_for_long_and_nobody_at_all_where_cores_are_short() -> None:
    cores = os.cpu_count() or 1
    assert 0 < board.LOOKING_SECONDS <= 50e-6
    assert board.looking_seconds(cores) == board.LOOKING_SECONDS
    assert board.looking_seconds(cores + 1) == 0


def test_a_post_that_is_half_written_is_read_again(boards: Callable[[int], Boards]) -> None:
    there = boards(2)
    start = 64 + board._SLOT_BYTES  # of the first post
    words = memoryview(there.maps[1]).cast("Q")
    body = start + 64
    # The number and the length show before the elements do, as another processor may order them.
    words[start // 8 + board._LENGTH] = 4
    words[start // 8 + board._SUM] = board.crc32(b"done", 1)
    words[start // 8 + board._NUMBER] = 1
    there.maps[1][body : body + 4] = b"do\0\0"
    threading.Timer(0.2, there.maps[1].__setitem__, (slice(body, body + 4), b"done")).start()
    assert there.boards[0].exchange(there.channel(0, 1), b"mine") == [b"mine", b"done"]


def test_who_posts_nothing_or_dies_is_named(boards: Callable[[int], Boards]) -> None:
    there = boards(3)

    def work(rank: int) -> Any:
        if rank == 1:
            return None
        with pytest.raises(SilentRankError) as caught:
            there.boards[rank].exchange(there.channel(rank, 1, seconds=0.3), b"x")
        return caught.value.rank

    assert there.run(work) == [1, None, 1]
    there.world.kill(1)
    with pytest.raises(CollectiveError, match="rank 1"):
        there.boards[0].exchange(there.channel(0, 2), b"x")


def test_arrays_that_are_shown_before_the_ranks_agree(tmp_path: Path) -> None:
    """Of one shape, one after the other and beside other calls, by plan and at length, and where ranks disagree."""
    world, count = World(3), 70_000
    fabrics = [NearFabric(ThreadFabric(world, rank), tmp_path, "here", f"r{rank}") for rank in range(3)]

    def work(rank: int) -> None:
        group = Group(fabrics[rank])
        for turn in range(12):
            x = np.full((count // 10, 10), rank + turn, np.float32, order="F" if turn % 2 else "C")
            assert (group.allreduce(x) == 3 * turn + 3).all()
            assert group.allreduce(x if rank else x.reshape(count // 10, 10)[:].copy(), "max")[0, 0] == turn + 2
            if turn % 3 == 0:
                assert group.allgather(x)[2][0, 0] == turn + 2
            if turn % 4 == 0:
                with pytest.raises(CollectiveError, match="do not call the same"):
                    group.allreduce(x, "sum" if rank else "min")
            # One rank's array is of another kind and takes the long way; nobody else knows.
            mixed = x[0, :1].repeat(count).astype(">f4" if rank == 1 else "<f4")
            assert (group.allreduce(mixed, "min") == turn).all()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    for fabric in fabrics:
        fabric.close()


@pytest.mark.parametrize("size", [2, 5])
def test_plans_give_what_the_long_way_gives(tmp_path: Path, size: int) -> None:
    """The first call of a group goes at length, later ones by a plan; those that do not go together are told apart."""
    world = World(size)
    fabrics = [NearFabric(ThreadFabric(world, rank), tmp_path, "here", f"r{rank}") for rank in range(size)]
    ops = [(op, dtype) for op in ("sum", "product", "min", "max", "mean") for dtype in ("float16", "float32", "c8")]
    ops += [("sum", "int8"), ("max", "bool"), ("product", "uint64"), ("sum", ">f4")]

    def work(rank: int) -> list[Any]:
        group = Group(fabrics[rank])
        results: list[Any] = []
        for _ in range(2):
            for op, dtype in ops:
                x = np.asarray(np.asfortranarray(np.arange(6).reshape(2, 3) % 5 + rank), dtype)
                results.append(group.allreduce(x, op))
        group.barrier()
        for wrong in (lambda: group.allreduce(np.ones(rank + 1)), lambda: group.allreduce(np.ones(2), "no such")):
            with pytest.raises((CollectiveError, ValueError)):
                wrong()
            group.barrier()
        with pytest.raises(CollectiveError, match="do not call the same"):
            group.barrier() if rank == 0 else group.allreduce(np.ones(1))
        results.append(group.allreduce(np.float32(1.5)))
        results.append(group.allreduce(np.ones(2), deterministic=True))
        return results

    with ThreadPoolExecutor(size) as pool:
        found = list(pool.map(work, range(size)))
    for fabric in fabrics:
        fabric.close()
    for results in found:
        assert len(results) == len(found[0])
        for index, (one, other) in enumerate(zip(results, found[0], strict=True)):
            assert one.dtype == other.dtype, index
            assert one.shape == other.shape, index
            assert one.tobytes() == other.tobytes(), index
    half = len(ops)
    for index, (op, dtype) in enumerate(ops):
        assert found[0][index].tobytes() == found[0][index + half].tobytes()
        values = [np.asarray(np.arange(6).reshape(2, 3) % 5 + rank, dtype) for rank in range(size)]
        ufunc = {"sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum, "mean": np.add}[op]
        wide = np.float32 if dtype == "float16" else np.dtype(dtype).newbyteorder("=")
        whole = ufunc.reduce(np.stack(values).astype(wide), axis=0, dtype=wide)
        np.testing.assert_allclose(found[0][index], (whole / size if op == "mean" else whole).astype(dtype), rtol=1e-3)
