"""Groups of actors, and collectives among their members, in processes of their own on three nodes."""

from __future__ import annotations

import os
import signal
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from clusters import Counter, eventually, failure, is_gone

import actors
from actors.exceptions import ActorDiedError, CollectiveError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 30.0
SIZE = 3


@actors.remote
class Member:
    """One of a group."""

    def __init__(self, start: float = 0.0) -> None:
        context = actors.get_runtime_context()
        self.born = (context.rank, context.world_size)
        self.value = start

    def place(self) -> tuple[int, int]:
        assert self.born == (actors.collective.get_rank(), actors.collective.get_world_size())
        return self.born

    def node(self) -> str:
        return actors.get_runtime_context().get_node_id()

    def pid(self) -> int:
        return os.getpid()

    def allreduce(self, x: object, op: str = "sum", timeout: float | None = None) -> object:
        return actors.collective.allreduce(x, op=op, timeout=timeout)

    def allreduce_own(self, count: int, kind: str = "numpy") -> object:
        own = np.full(count, actors.collective.get_rank() + 1, np.float32)
        return actors.collective.allreduce(own if kind == "numpy" else mx.array(own))

    def broadcast(self, x: object, src: int = 0) -> object:
        return actors.collective.broadcast(x, src)

    def barrier(self, timeout: float | None = None) -> None:
        actors.collective.barrier(timeout=timeout)

    def rounds(self, count: int) -> list[int]:
        """Many collectives one after the other: what each must give is known to every rank."""
        rank = actors.collective.get_rank()
        return [int(actors.collective.allreduce(np.array([rank + number]))[0]) for number in range(count)]

    def die_in_barrier(self, how: str) -> None:
        if actors.collective.get_rank() == 1:
            if how == "SystemExit":
                sys.exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        actors.collective.barrier()

    def enter_if(self, rank: int) -> str:
        if actors.collective.get_rank() == rank:
            return "stayed out"
        actors.collective.barrier(timeout=1)
        return "passed"

    def others(self, x: object) -> list[object]:
        """The rest of the table, once each."""
        from actors import collective

        rank = collective.get_rank()
        return [
            collective.reduce(x, 0),
            [int(part[0]) for part in collective.allgather(np.array([rank]))],
            collective.gather(np.array([rank]), 2),
            collective.scatter([10, 11, 12] if rank == 1 else None, 1),
            collective.reducescatter(np.arange(SIZE)),
            collective.alltoall([f"{rank} to {other}" for other in range(SIZE)]),
        ]

    def ring(self) -> int:
        from actors import collective

        rank = collective.get_rank()
        collective.send(rank, (rank + 1) % SIZE)
        return collective.recv((rank - 1) % SIZE)


def get(refs: object, timeout: float = PATIENCE) -> object:
    return actors.get(refs, timeout=timeout)


@pytest.fixture(scope="module")
def members(cluster: actors.Cluster) -> actors.ActorGroup:
    """A group that tests share; what goes wrong in it must leave it usable."""
    return Member.group(SIZE)


@pytest.fixture
def fresh(cluster: actors.Cluster) -> object:
    """A group that a test may ruin."""
    group = Member.options(name="fresh").group(SIZE)
    get(group.barrier.remote())
    yield group
    group.kill()
    eventually(lambda: not actors.list_named_actors(), what="its names are free")


# -- the group --------------------------------------------------------------------------------------------------


def test_each_knows_its_rank_and_the_nodes_share_them(members: actors.ActorGroup) -> None:
    assert get(members.place.remote()) == [(rank, SIZE) for rank in range(SIZE)]
    assert set(get(members.node.remote())) == {node.id for node in actors.nodes()}


def test_a_group_is_a_sequence_of_handles(members: actors.ActorGroup) -> None:
    assert len(members) == SIZE == len(list(members))
    assert get(members[0].place.remote()) == (0, SIZE)
    assert get(members[-1].place.remote()) == (SIZE - 1, SIZE)
    assert [rank for rank, _ in get(members[1:3].place.remote())] == [1, 2]
    with pytest.raises(IndexError):
        members[SIZE]
    with pytest.raises(AttributeError, match="barrier"):
        members.barier.remote()


def test_map_gives_each_an_argument_of_its_own(members: actors.ActorGroup) -> None:
    assert get(members.allreduce.map([np.array([rank]) for rank in range(SIZE)])) == [np.array([3])] * SIZE
    for values in ([], [1], [1] * (SIZE + 1)):
        with pytest.raises(ValueError, match=str(SIZE)):
            members.allreduce.map(values)


def test_a_group_in_an_argument(members: actors.ActorGroup) -> None:
    @actors.remote
    class Boss:
        def places(self, group: actors.ActorGroup) -> list[tuple[int, int]]:
            return actors.get(group.place.remote(), timeout=PATIENCE)

    assert get(Boss.remote().places.remote(members)) == [(rank, SIZE) for rank in range(SIZE)]


def test_a_group_of_one_and_one_larger_than_the_cluster() -> None:
    for size in (1, 5):
        group = Member.group(size)
        assert [float(x) for x in get(group.allreduce.remote(np.float64(2)))] == [2.0 * size] * size
        group.kill()


def test_kill_ends_all_members() -> None:
    group = Member.group(2)
    pids = get(group.pid.remote())
    group.kill()
    assert all(isinstance(failure(ref), ActorDiedError) for ref in group.place.remote())
    eventually(lambda: all(map(is_gone, pids)))


def test_a_constructor_that_fails_on_one_rank_is_told_on_that_rank() -> None:
    @actors.remote
    class Picky:
        def __init__(self) -> None:
            if actors.get_runtime_context().rank == 1:
                raise ValueError("not rank 1")

        def ping(self) -> str:
            return "pong"

        def barrier(self) -> None:
            actors.collective.barrier()

    group = Picky.group(SIZE)
    error = failure(group[1].ping.remote())
    assert isinstance(error, ActorDiedError)
    assert "not rank 1" in str(error)
    assert get([group[0].ping.remote(), group[2].ping.remote()]) == ["pong"] * 2
    assert all(isinstance(failure(ref), CollectiveError) for ref in group[0:3:2].barrier.remote())
    group.kill()


def test_collectives_outside_a_group_say_so() -> None:
    @actors.remote
    class Alone:
        def barrier(self) -> None:
            actors.collective.barrier()

    for error in (failure(Alone.remote().barrier.remote()), _raised(actors.collective.barrier)):
        assert isinstance(error, actors.exceptions.ActorsError)
        assert "group" in str(error)


def _raised(call: object) -> BaseException:
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("no error")


# -- collectives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "mlx"])
@pytest.mark.parametrize("count", [1, 1000, 1_000_000])
def test_allreduce_sums_on_every_rank(members: actors.ActorGroup, kind: str, count: int) -> None:
    for result in get(members.allreduce_own.remote(count, kind)):
        assert isinstance(result, np.ndarray if kind == "numpy" else mx.array)
        assert result.shape == (count,)
        assert str(result.dtype).endswith("float32")
        assert (np.asarray(result) == 6).all()


@pytest.mark.parametrize(("op", "expected"), [("sum", 9), ("product", 24), ("min", 2), ("max", 4), ("mean", 3)])
def test_every_op(members: actors.ActorGroup, op: str, expected: float) -> None:
    refs = [member.allreduce.remote(np.full((2, 2), rank + 2.0), op=op) for rank, member in enumerate(members)]
    for result in get(refs):
        np.testing.assert_array_equal(result, np.full((2, 2), expected))


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16, mx.int32, mx.uint8], ids=str)
def test_mlx_dtypes_come_back_as_they_went(members: actors.ActorGroup, dtype: mx.Dtype) -> None:
    for result in get(members.allreduce.remote(mx.ones((2, 3)).astype(dtype))):
        assert result.dtype == dtype
        assert mx.array_equal(result, mx.full((2, 3), 3).astype(dtype))


@pytest.mark.parametrize("src", range(SIZE))
def test_broadcast_from_every_rank(members: actors.ActorGroup, src: int) -> None:
    for value in (np.arange(10) + src, mx.arange(5), {"any": ["object", src]}, np.ones(500_000)):
        refs = [member.broadcast.remote(value if rank == src else None, src) for rank, member in enumerate(members)]
        for result in get(refs):
            assert type(result) is type(value)
            assert np.array_equal(result, value) if not isinstance(value, dict) else result == value


def test_nobody_passes_a_barrier_before_all_are_there(members: actors.ActorGroup) -> None:
    early = members[1:].barrier.remote()
    assert actors.wait(early, timeout=0.3) == ([], early)
    get([*early, members[0].barrier.remote()])


def test_many_collectives_in_a_row(members: actors.ActorGroup) -> None:
    expected = [3 * number + 3 for number in range(200)]
    assert get(members.rounds.remote(200)) == [expected] * SIZE


def test_the_rest_of_the_table(members: actors.ActorGroup) -> None:
    for rank, result in enumerate(get(members.others.remote(np.array([1, 2])))):
        reduced, everybody, gathered, mine, part, swapped = result
        assert reduced is None if rank else reduced.tolist() == [3, 6]
        assert everybody == [0, 1, 2]
        assert gathered is None if rank != 2 else [int(x[0]) for x in gathered] == [0, 1, 2]
        assert (mine, part.tolist()) == (10 + rank, [3 * rank])
        assert swapped == [f"{other} to {rank}" for other in range(SIZE)]
    assert get(members.ring.remote()) == [2, 0, 1]


def test_two_groups_do_not_mix(members: actors.ActorGroup) -> None:
    other = Member.group(2)
    refs = [*members.rounds.remote(50), *other.rounds.remote(50)]
    results = get(refs)
    assert results[:SIZE] == [[3 * number + 3 for number in range(50)]] * SIZE
    assert results[SIZE:] == [[2 * number + 1 for number in range(50)]] * 2
    other.kill()


# -- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [np.ones(2), np.ones(3), np.ones(2)],
        [np.ones(2), np.ones(2, np.float32), np.ones(2)],
        [np.ones(2), np.ones((1, 2)), np.ones(2)],
    ],
    ids=["size", "dtype", "shape"],
)
def test_a_mismatch_is_an_error_on_every_rank_and_the_group_goes_on(
    members: actors.ActorGroup, values: list[np.ndarray]
) -> None:
    for ref in members.allreduce.map(values):
        error = failure(ref)
        assert isinstance(error, CollectiveError)
        assert "rank" in str(error)
    assert get(members.barrier.remote()) == [None] * SIZE


def test_different_ops_and_different_collectives_do_not_meet(members: actors.ActorGroup) -> None:
    x = np.ones(2)
    for refs in (
        [members[0].allreduce.remote(x, op="max"), members[1].allreduce.remote(x), members[2].allreduce.remote(x)],
        [members[0].barrier.remote(), members[1].allreduce.remote(x), members[2].allreduce.remote(x)],
    ):
        assert all(isinstance(failure(ref), CollectiveError) for ref in refs)
        assert get(members.barrier.remote()) == [None] * SIZE


def test_wrong_input_is_refused_before_anything_is_sent(members: actors.ActorGroup) -> None:
    for ref in [*members.allreduce.remote("no array"), *members.allreduce.remote(np.ones(2), op="median")]:
        assert isinstance(failure(ref), TypeError | ValueError)
    for ref in [*members.allreduce.remote(np.ones(2, int), op="mean"), *members.broadcast.remote(1, SIZE)]:
        assert isinstance(failure(ref), ValueError)
    assert get(members.barrier.remote()) == [None] * SIZE


@pytest.mark.parametrize("how", ["SIGKILL", "SystemExit"])
def test_a_rank_that_dies_fails_the_collective_on_the_others(fresh: actors.ActorGroup, how: str) -> None:
    begun = time.monotonic()
    refs = fresh.die_in_barrier.remote(how)
    errors = [failure(ref) for ref in refs]
    assert time.monotonic() - begun < 5
    assert isinstance(errors[1], ActorDiedError)
    for error in (errors[0], errors[2]):
        assert isinstance(error, CollectiveError)
        assert isinstance(error, TaskError)
        assert "[1]" in str(error) or "rank 1" in str(error)
    for ref in fresh[0:3:2].barrier.remote():
        assert isinstance(failure(ref), CollectiveError)
    assert get(fresh[0].place.remote()) == (0, SIZE)


def test_a_rank_killed_from_outside_in_the_middle(fresh: actors.ActorGroup) -> None:
    pid = get(fresh[2].pid.remote())
    refs = fresh.rounds.remote(1_000_000)
    assert actors.wait(refs, timeout=0.3) == ([], refs)
    os.kill(pid, signal.SIGKILL)
    errors = [failure(ref) for ref in refs]
    assert [isinstance(error, CollectiveError) for error in errors] == [True, True, False]
    assert isinstance(errors[2], ActorDiedError)


def test_kill_of_a_rank_whose_siblings_wait(fresh: actors.ActorGroup) -> None:
    refs = fresh[0:2].barrier.remote()
    assert actors.wait(refs, timeout=0.3) == ([], refs)
    actors.kill(fresh[2])
    assert all(isinstance(failure(ref), CollectiveError) for ref in refs)


def test_a_rank_that_does_not_come_is_named_in_time(fresh: actors.ActorGroup) -> None:
    begun = time.monotonic()
    refs = fresh.enter_if.remote(2)
    assert get(refs[2]) == "stayed out"
    for ref in refs[:2]:
        error = failure(ref)
        assert isinstance(error, CollectiveError)
        assert "[2]" in str(error) or "rank 2" in str(error)
    assert time.monotonic() - begun < 4


def test_other_actors_are_untouched() -> None:
    assert get(Counter.remote().add.remote()) == 1


class Told:
    """Counts how often it was pickled here."""

    times = 0

    def __reduce__(self) -> tuple[type, tuple[()]]:
        Told.times += 1
        return (Told, ())


def test_the_class_of_a_group_is_pickled_once_for_all() -> None:
    class Alike:
        told = Told()

        def rank(self) -> int:
            return actors.get_runtime_context().rank or 0

    before = Told.times
    group = actors.remote(Alike).options(num_cpus=0).group(SIZE)
    assert actors.get([member.rank.remote() for member in group]) == [0, 1, 2]
    assert Told.times == before + 1
