"""Groups made of handles, subgroups, groups rebuilt, structures of arrays, and collectives beside other work."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_fabric import World, run

import actors
from actors import collective
from actors.collective import agreement
from actors.collective.structure import Structure
from actors.exceptions import CollectiveError, SerializationError, TaskError

if TYPE_CHECKING:
    from actors.collective.group import Group

PATIENCE = 30.0


class Pair(NamedTuple):
    left: Any
    right: Any


@actors.remote
class Loner:
    """In no group of its own."""

    def pid(self) -> int:
        return os.getpid()

    def allreduce(self, x: Any, group: Any = None, timeout: float = 20.0) -> Any:
        return actors.collective.allreduce(x, group=group, timeout=timeout)

    def end_of(self, group: Any) -> Any:
        return actors.collective.get_group(group)

    def begin(self, group: Any) -> Any:
        return actors.collective.barrier(group, async_op=True)

    def sizes(self, *groups: Any) -> list[tuple[int, int]]:
        return [(actors.collective.get_rank(group), actors.collective.get_world_size(group)) for group in groups]

    def two_at_once(self, one: Any, other: Any) -> tuple[int, int]:
        """Collectives of two groups, begun in another order on each rank."""
        rank = actors.collective.get_rank(one)
        groups = [one, other] if rank % 2 else [other, one]
        work = {g.id: actors.collective.allreduce(np.array([1]), group=g, async_op=True) for g in groups}
        return int(work[one.id].wait(20)[0]), int(work[other.id].wait(20)[0])

    def explain(self, group: Any = None) -> str:
        actors.collective.barrier(group)
        return actors.collective.get_group(group).explain(1 << 26)

    def survive(self, count: int) -> tuple[int, int, int, float]:
        """Waits in a collective that fails, then goes on with those who are left."""
        x = np.ones(count, np.float32)
        try:
            while True:
                actors.collective.allreduce(x, timeout=5)
        except CollectiveError:
            member = actors.collective.rebuild(timeout=4)
        return member.rank, member.size, member.epoch, float(actors.collective.allreduce(x)[-1])

    def in_passing(self, times: int) -> list[int]:
        """Makes groups of all ranks in the reverse order, and destroys each as soon as its own part is done."""
        sums = []
        for _ in range(times):
            group = actors.collective.split(0, key=-actors.collective.get_rank())
            assert group is not None
            sums.append(int(group.allreduce(np.array([group.rank + 1]))[0]))
            actors.collective.destroy_group(group)
        return sums

    def parts(self) -> list[int] | None:
        from actors import collective

        rank = collective.get_rank()
        part = collective.split(None if rank == 0 else rank % 2, key=-rank)
        if part is None:
            return None
        try:
            return [int(value[0]) for value in part.allgather(np.array([rank]))]
        finally:
            collective.destroy_group(part)


def get(refs: Any, timeout: float = PATIENCE) -> Any:
    return actors.get(refs, timeout=timeout)


@pytest.fixture
def loners(cluster: actors.Cluster) -> Any:
    handles = [Loner.options(num_cpus=0).remote() for _ in range(4)]
    get([handle.pid.remote() for handle in handles])
    yield handles
    for handle in handles:
        actors.kill(handle)


# -- groups of actors that exist ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "shm", "grpc"])
def test_a_group_is_made_of_handles(loners: list[Any], backend: str) -> None:
    group = actors.collective.create_group(loners[:3], backend)
    results = get(group.allreduce.remote(np.arange(200_000.0)))  # no group= needed: it is their only one
    assert all((result == 3 * np.arange(200_000.0)).all() for result in results)
    said = get(group.explain.remote())
    assert all(("shared memory:" in words) == (backend != "grpc") for words in said), said
    actors.collective.destroy_group(group)
    with pytest.raises(TaskError, match="destroyed"):
        get(group[0].allreduce.remote(1.0, group))
    with pytest.raises(TaskError, match="in no group"):
        get(group[0].allreduce.remote(1.0))


def test_an_actor_is_in_several_groups_at_once(loners: list[Any]) -> None:
    create = actors.collective.create_group
    one, other = create(loners), create(loners[::-1])
    assert get(loners[0].sizes.remote(one, other)) == [(0, 4), (3, 4)]
    assert get([handle.two_at_once.remote(one, other) for handle in loners]) == [(4, 4)] * 4


def test_what_is_no_group_is_said_at_once(loners: list[Any]) -> None:
    create = actors.collective.create_group
    with pytest.raises(ValueError, match="at least one"):
        create([])
    with pytest.raises(ValueError, match="twice"):
        create([loners[0], loners[0]])
    with pytest.raises(TypeError, match="int"):
        create([loners[0], 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="takes the handles of all ranks in a list; this is one handle"):
        create(loners[0])
    with pytest.raises(TypeError, match="a group is ended, as create_group or split returned it, not a int"):
        actors.collective.destroy_group(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="group must be what create_group, split or get_group returned, not a str"):
        get(loners[0].sizes.remote("mine"))
    with pytest.raises(IndexError, match="there is no rank 4 in a group of 4: take 0 to 3"):
        create(loners)[4]
    with pytest.raises(ValueError, match="auto, shm, grpc, mlx"):
        create(loners, "nccl")
    with pytest.raises(ValueError, match="'jaccl', RDMA over Thunderbolt, is not there"):
        create(loners, "jaccl")


def test_ends_of_a_group_and_work_under_way_stay_in_their_process(loners: list[Any]) -> None:
    group = actors.collective.create_group(loners[:1])
    with pytest.raises(SerializationError, match="a Group is one rank's end, which stays in its process; send what it"):
        get(loners[0].end_of.remote(group))
    with pytest.raises(SerializationError, match="a Work is under way in its process; send what its wait"):
        get(loners[0].begin.remote(group))


def test_ranks_split_by_color(loners: list[Any]) -> None:
    actors.collective.create_group(loners)
    assert get([handle.parts.remote() for handle in loners]) == [None, [3, 1], [2], [3, 1]]


@pytest.mark.parametrize("backend", ["auto", "grpc"])
def test_who_destroys_its_group_at_once_leaves_the_others_what_it_has_sent(loners: list[Any], backend: str) -> None:
    group = actors.collective.create_group(loners, backend)
    assert get(group.in_passing.remote(15)) == [[10] * 15] * 4


# -- failure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_survivors_go_on(loners: list[Any], how: signal.Signals, count: int) -> None:
    """By the board, whose ranks sleep until all have posted, and through the window."""
    group = actors.collective.create_group(loners)
    pid = get(loners[1].pid.remote())
    get(group.allreduce.remote(np.ones(3)))
    left = [handle.survive.remote(count) for rank, handle in enumerate(loners) if rank != 1]
    os.kill(pid, how)
    try:
        assert get(left) == [(0, 3, 2, 3.0), (1, 3, 2, 3.0), (2, 3, 2, 3.0)]
    finally:
        if how is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
    if how is signal.SIGSTOP:
        with pytest.raises(TaskError, match=r"rebuil|sent nothing|do not call the same"):
            get(loners[1].allreduce.remote(np.ones(3)))


def test_another_takes_the_place_of_one_that_died(loners: list[Any]) -> None:
    first, lost, last, another = loners
    old = actors.collective.create_group([first, lost, last])
    assert get(first.sizes.remote(old)) == [(0, 3)]
    actors.kill(lost)
    for refused in [handle.allreduce.remote(np.ones(3), old, 5.0) for handle in (first, last)]:
        with pytest.raises(TaskError, match="rank 1"):
            get(refused)
    new = actors.collective.create_group([first, another, last])
    x = np.ones(100_000)
    results = get([handle.allreduce.remote(x, new) for handle in (first, another, last)])
    assert all((result == 3 * x).all() for result in results)
    with pytest.raises(TaskError, match="broken since"):
        get(first.allreduce.remote(x, old))


# -- structures --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 5),
    shapes=st.lists(st.sampled_from([(), (0,), (3,), (2, 5)]), max_size=6),
    inline=st.booleans(),
    deterministic=st.booleans(),
)
def test_a_structure_is_reduced_array_by_array(
    size: int, shapes: list[tuple[int, ...]], inline: bool, deterministic: bool
) -> None:
    def tree(rank: int) -> Any:
        names = ["float32", "int16", "float16"]
        arrays = [np.full(shape, rank + 1, names[i % 3]) for i, shape in enumerate(shapes)]
        return {"all": arrays, "pair": Pair(mx.full((2,), rank + 1, mx.bfloat16), (np.float64(rank),))}

    total = size * (size + 1) // 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "INLINE_BYTES", agreement.INLINE_BYTES if inline else -1)
        results = run(size, lambda g: g.allreduce(tree(g.rank), deterministic=deterministic))
    for result in results:
        assert list(result) == ["all", "pair"]
        for got, sent in zip(result["all"], tree(0)["all"], strict=True):
            assert (got.shape, got.dtype, type(got)) == (sent.shape, sent.dtype, np.ndarray)
            np.testing.assert_array_equal(got, np.full(sent.shape, total, sent.dtype))
        assert type(result["pair"]) is Pair
        assert result["pair"].left.dtype == mx.bfloat16
        assert result["pair"].left.tolist() == [total, total]
        assert result["pair"].right == (total - size,)


def test_structures_that_differ_are_told_apart() -> None:
    with pytest.raises(CollectiveError, match="rank 1"):
        run(2, lambda g: g.allreduce({"w": np.ones(3 + g.rank)}))
    with pytest.raises(TypeError, match=r"\['w'\]\[1\] is a str"):
        Structure.of({"w": [np.ones(1), "no array"]})


def test_gradients_are_averaged() -> None:
    results = run(4, lambda g: g.average_gradients([np.full(2, g.rank, np.float32)]))
    assert all(result[0].tolist() == [1.5, 1.5] for result in results)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_deterministic_is_the_order_of_ranks(size: int) -> None:
    arrays = [np.random.default_rng(rank).normal(size=50_000).astype(np.float32) for rank in range(size)]
    expected = arrays[0]
    for array in arrays[1:]:
        expected = expected + array
    for result in run(size, lambda g: g.allreduce(arrays[g.rank], deterministic=True)):
        assert result.tobytes() == expected.tobytes()


# -- beside other work -------------------------------------------------------------------------------------------


def test_started_collectives_keep_the_order_of_calls() -> None:
    def work(group: Any) -> list[Any]:
        started = [group.start("allreduce", lambda n=n: group.allreduce(np.array([n]))) for n in range(5)]
        group.barrier()  # comes after them
        assert all(work.done() for work in started)
        group._queue.close()
        return [int(work.wait()[0]) for work in started]

    assert run(3, work, world=World(3)) == [[0, 3, 6, 9, 12]] * 3


def test_each_function_can_be_started_and_waited_for_later() -> None:
    def work(group: Group) -> list[Any]:
        rank, size = group.rank, group.size
        x = np.arange(2.0 * size) + rank

        def asked(**options: Any) -> list[Any]:
            return [
                collective.allreduce(x, group=group, **options),
                collective.reduce(x, 1, group=group, **options),
                collective.broadcast(x if rank == 2 else None, 2, group=group, **options),
                collective.allgather(x, group=group, **options),
                collective.gather(x, 0, group=group, **options),
                collective.scatter([x] * size if rank == 0 else None, 0, group=group, **options),
                collective.reducescatter(x, group=group, **options),
                collective.alltoall([x] * size, group=group, **options),
                collective.average_gradients({"x": x}, group=group, **options),
                collective.barrier(group=group, **options),
            ]

        # What waits for a message holds up no collective.
        waiting = collective.recv((rank - 1) % size, "late", group=group, async_op=True)
        started = asked(async_op=True)
        later = [one.wait(30) for one in started]
        assert all(one.done() for one in started)
        assert not waiting.done()
        collective.barrier(group=group)
        collective.send(rank, (rank + 1) % size, "late", group=group)
        assert waiting.wait(30) == (rank - 1) % size
        for one, other in zip(later, asked(), strict=True):
            np.testing.assert_equal(one, other)
        group._queue.close()
        return later

    for rank, results in enumerate(run(3, work, world=World(3))):
        assert results[0].tolist() == [3.0 * place + 3 for place in range(6)]
        assert (results[1] is None) == (rank != 1)


def test_who_starts_a_collective_computes_while_a_rank_is_late() -> None:
    ready = threading.Event()

    def work(group: Group) -> bool:
        if group.rank == 1:
            assert ready.wait(30)
        started = collective.allreduce(np.ones(3), group=group, async_op=True)
        if group.rank == 0:
            assert not started.done()
            with pytest.raises(TimeoutError, match="it goes on"):
                started.wait(0.01)
            ready.set()
        value = started.wait(30)[0]
        group._queue.close()
        return bool(value == 2)

    assert run(2, work, world=World(2)) == [True, True]
