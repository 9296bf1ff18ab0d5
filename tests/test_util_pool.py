"""Pools of actors as Ray documents them, and the executor as the standard library does."""

from __future__ import annotations

import asyncio
import operator
import os
import time
from concurrent import futures
from typing import TYPE_CHECKING

import pytest
from clusters import eventually

import actors
from actors.exceptions import ActorDiedError, SerializationError, TaskError
from actors.util import ActorPool, Executor

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 30.0


class Odd(Exception):
    def __init__(self, value: int, why: str) -> None:
        super().__init__(f"{value} is {why}")
        self.value = value


@actors.remote
class Hand:
    """Does what it is told; ``wait`` is held back until ``let_go``."""

    def __init__(self) -> None:
        self._held = asyncio.Event()

    async def double(self, value: int) -> int:
        return 2 * value

    async def wait(self, value: int) -> int:
        await self._held.wait()
        return value

    async def let_go(self) -> None:
        self._held.set()

    async def fail(self, value: int) -> int:
        if value % 2:
            raise Odd(value, "odd")
        return value

    async def die(self, value: int) -> int:
        if value < 0:
            os._exit(3)
        return value


@pytest.fixture(scope="module")
def hands(cluster: actors.Cluster) -> Iterator[list[actors.ActorHandle]]:
    made = [Hand.remote() for _ in range(3)]
    yield made
    for hand in made:
        actors.kill(hand)


@pytest.fixture
def pool(hands: list[actors.ActorHandle]) -> ActorPool:
    return ActorPool(hands)


def double(hand: actors.ActorHandle, value: int) -> actors.ObjectRef:
    return hand.double.remote(value)


def test_map_gives_results_in_the_order_of_the_values(pool: ActorPool) -> None:
    assert list(pool.map(double, range(20))) == [2 * value for value in range(20)]
    assert list(pool.map(double, [])) == []


def test_map_unordered_gives_each_result_once(pool: ActorPool) -> None:
    assert sorted(pool.map_unordered(double, range(20))) == [2 * value for value in range(20)]


def test_map_submits_before_anybody_iterates(hands: list[actors.ActorHandle]) -> None:
    pool = ActorPool(hands[:1])
    called: list[int] = []

    def note(hand: actors.ActorHandle, value: int) -> actors.ObjectRef:
        called.append(value)
        return hand.double.remote(value)

    results = pool.map(note, range(2))
    assert called == [0]
    assert list(results) == [0, 2]
    assert called == [0, 1]


def test_unordered_results_come_as_they_are_ready_and_ordered_ones_do_not() -> None:
    slow, quick = Hand.remote(), Hand.remote()
    pool = ActorPool([quick, slow])  # the last one is idle first, as in Ray
    pool.submit(lambda hand, value: hand.wait.remote(value), "late")
    pool.submit(double, 4)
    with pytest.raises(TimeoutError):
        pool.get_next(timeout=0.05)
    assert pool.get_next_unordered(timeout=PATIENCE) == 8
    with pytest.raises(TimeoutError):
        pool.get_next_unordered(timeout=0.05)
    with pytest.raises(ValueError, match="get_next_unordered"):
        pool.get_next()
    actors.get(slow.let_go.remote(), timeout=PATIENCE)
    assert pool.get_next_unordered() == "late"
    assert not pool.has_next()


def test_a_result_that_is_late_can_be_given_up() -> None:
    hand = Hand.remote()
    pool = ActorPool([hand])
    pool.submit(lambda hand, value: hand.wait.remote(value), "late")
    pool.submit(double, 1)
    with pytest.raises(TimeoutError, match=r"; <ObjectRef .*> was given up"):
        pool.get_next(timeout=0.05, ignore_if_timedout=True)
    assert pool.get_next(timeout=PATIENCE) == 2
    pool.submit(lambda hand, value: hand.wait.remote(value), "late")
    with pytest.raises(TimeoutError, match=r"; <ObjectRef .*> was given up"):
        pool.get_next_unordered(timeout=0.05, ignore_if_timedout=True)
    assert not pool.has_next()
    assert pool.has_free()


def test_map_gives_up_what_was_submitted_before() -> None:
    stuck, free = Hand.remote(), Hand.remote()
    pool = ActorPool([free, stuck])
    pool.submit(lambda hand, value: hand.wait.remote(value), "never")
    assert list(pool.map(double, range(6))) == [0, 2, 4, 6, 8, 10]


def test_there_is_nothing_to_take_from_an_idle_pool(pool: ActorPool) -> None:
    assert not pool.has_next()
    assert pool.has_free()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_an_error_is_of_the_users_own_class_and_the_actor_is_used_again(hands: list[actors.ActorHandle]) -> None:
    pool = ActorPool(hands[:1])
    for value in range(4):
        pool.submit(lambda hand, value: hand.fail.remote(value), value)
    assert pool.get_next() == 0
    with pytest.raises(Odd) as caught:
        pool.get_next()
    assert (caught.value.value, isinstance(caught.value, TaskError)) == (1, True)
    assert pool.get_next() == 2
    with pytest.raises(Odd):
        pool.get_next_unordered()
    assert pool.has_free()


def test_an_actor_that_has_died_gets_no_more_work() -> None:
    pool = ActorPool([Hand.remote(), Hand.remote()])
    for value in (-1, 1, 2, 3):
        pool.submit(lambda hand, value: hand.die.remote(value), value)
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert [pool.get_next() for _ in range(3)] == [1, 2, 3]


def test_work_that_no_actor_is_left_for_is_not_lost_in_silence() -> None:
    pool = ActorPool([Hand.remote()])
    for value in (-1, 1, 2):
        pool.submit(lambda hand, value: hand.die.remote(value), value)
    with pytest.raises(ActorDiedError):
        pool.get_next()
    assert pool.has_next()
    with pytest.raises(ActorDiedError, match="2 calls never started"):
        pool.get_next()
    assert not pool.has_next()


def test_pop_idle_and_push(hands: list[actors.ActorHandle]) -> None:
    first, second, third = hands
    pool = ActorPool([first])
    pool.submit(double, 1)
    assert pool.pop_idle() is None
    assert not pool.has_free()
    with pytest.raises(ValueError, match="the actor belongs to this pool already"):
        pool.push(first)
    pool.push(second)
    assert pool.has_free()
    with pytest.raises(ValueError, match="the actor belongs to this pool already"):
        pool.push(second)
    pool.submit(double, 2)
    pool.submit(double, 3)
    assert not pool.has_free()
    pool.push(third)  # and it has the call that waited
    assert not pool.has_free()
    assert [pool.get_next() for _ in range(3)] == [2, 4, 6]
    assert pool.pop_idle() in hands


def test_what_gives_no_reference_is_refused_and_costs_no_actor(hands: list[actors.ActorHandle]) -> None:
    pool = ActorPool(hands[:1])
    with pytest.raises(TypeError, match="must return the reference"):
        pool.submit(lambda _, value: value, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda _, value: value / 0, 1)
    assert pool.has_free()
    pool.submit(lambda hand, value: [hand.double.remote(value), hand.double.remote(value + 1)], 1)
    assert pool.get_next(timeout=PATIENCE) == [2, 4]


# -- the executor -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executor(cluster: actors.Cluster) -> Iterator[Executor]:
    with Executor(2) as executor:
        yield executor


def test_an_executor_runs_functions_in_processes_of_their_own(executor: Executor) -> None:
    pids = {executor.submit(os.getpid).result(PATIENCE) for _ in range(4)}
    assert os.getpid() not in pids
    assert executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)
    assert executor.submit(lambda a, *, b: a + b, 1, b=2).result(PATIENCE) == 3


def test_an_executor_maps_in_order(executor: Executor) -> None:
    assert list(executor.map(operator.mul, range(10), range(10))) == [n * n for n in range(10)]
    assert list(executor.map(operator.mul, range(10), range(12), chunksize=4)) == [n * n for n in range(10)]
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(str, [1], chunksize=0)


def test_as_completed_and_run_in_executor_take_its_futures(executor: Executor) -> None:
    made = [executor.submit(pow, 2, n) for n in range(5)]
    assert sorted(future.result() for future in futures.as_completed(made, PATIENCE)) == [1, 2, 4, 8, 16]

    async def both() -> list[int]:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, pow, 3, n) for n in range(2)))

    assert asyncio.run(both()) == [1, 3]


def test_errors_of_an_executors_functions_are_the_users_own(executor: Executor) -> None:
    def fail() -> None:
        raise Odd(3, "odd")

    with pytest.raises(Odd) as caught:
        executor.submit(fail).result(PATIENCE)
    assert caught.value.value == 3
    with pytest.raises(RuntimeError, match="SystemExit"):
        executor.submit(lambda: (_ for _ in ()).throw(SystemExit(2))).result(PATIENCE)
    with pytest.raises(SerializationError):
        executor.submit(len, (n for n in range(3))).result(PATIENCE)


def test_a_function_that_kills_its_process_costs_its_own_result_alone(executor: Executor) -> None:
    broken = [executor.submit(os._exit, 4) for _ in range(3)]
    whole = [executor.submit(abs, -n) for n in range(4)]
    for future in broken:
        with pytest.raises(ActorDiedError, match="exit code 4"):
            future.result(PATIENCE)
    assert [future.result(PATIENCE) for future in whole] == [0, 1, 2, 3]


def test_a_call_that_waits_can_be_cancelled_and_one_that_runs_cannot() -> None:
    with Executor(1) as executor:
        gate = Hand.remote()
        running = executor.submit(lambda gate: actors.get(gate.wait.remote("through")), gate)
        waiting = [executor.submit(abs, -1) for _ in range(3)]
        eventually(running.running)
        assert not running.cancel()
        assert waiting[0].cancel()
        executor.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in waiting)
        with pytest.raises(RuntimeError, match="the executor was shut down: make another one"):
            executor.submit(abs, 1)
        actors.get(gate.let_go.remote(), timeout=PATIENCE)
        assert running.result(PATIENCE) == "through"


def test_the_end_of_an_executor_waits_for_its_calls_and_ends_its_actors() -> None:
    with Executor(1) as executor:
        slow = executor.submit(time.sleep, 0.2)
        late = executor.submit(os.getpid)
    assert slow.done()
    pid = late.result(0)
    eventually(lambda: not _lives(pid))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@actors.remote
class Room:
    """Counts who is inside; a guest stays until it is opened."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._inside = self._most = 0

    async def visit(self) -> None:
        self._inside += 1
        self._most = max(self._most, self._inside)
        await self._opened.wait()
        self._inside -= 1

    async def inside(self) -> int:
        return self._inside

    async def open(self) -> None:
        self._opened.set()

    async def most(self) -> int:
        return self._most


def test_max_workers_is_how_many_calls_are_under_way_at_once() -> None:
    room = Room.remote()
    with Executor(max_workers=2) as executor:
        visits = [executor.submit(lambda room: actors.get(room.visit.remote()), room) for _ in range(7)]
        eventually(lambda: actors.get(room.inside.remote(), timeout=PATIENCE) == 2)
        assert [visit.running() for visit in visits] == [True] * 2 + [False] * 5
        actors.get(room.open.remote(), timeout=PATIENCE)
        assert [visit.result(PATIENCE) for visit in visits] == [None] * 7
    assert actors.get(room.most.remote(), timeout=PATIENCE) == 2


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, "2"])
def test_a_number_of_workers_that_cannot_be_is_refused(workers: object) -> None:
    with pytest.raises(ValueError, match="max_workers must be a whole number from 1"):
        Executor(workers)  # type: ignore[arg-type]
