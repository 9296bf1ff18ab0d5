"""The queue: Ray's documented interface, and what must not get lost in it."""

from __future__ import annotations

import asyncio
import queue as local
import threading
from typing import TYPE_CHECKING

import pytest
from clusters import Program, eventually

import actors
from actors.exceptions import ActorDiedError, SerializationError
from actors.util import Queue
from actors.util.queue import Empty, Full

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 30.0


@actors.remote
class Worker:
    def __init__(self, queue: Queue) -> None:
        self.queue = queue

    def put(self, *items: object) -> int:
        for item in items:
            self.queue.put(item, timeout=PATIENCE)
        return len(self.queue)

    def get(self, count: int) -> list[object]:
        return [self.queue.get(timeout=PATIENCE) for _ in range(count)]

    async def get_async(self) -> object:
        return await self.queue.get_async(timeout=PATIENCE)


@pytest.fixture(scope="module")
def shared(cluster: actors.Cluster) -> Iterator[Queue]:
    queue = Queue()
    yield queue
    queue.shutdown()


@pytest.fixture(scope="module")
def narrow(cluster: actors.Cluster) -> Iterator[Queue]:
    queue = Queue(2)
    yield queue
    queue.shutdown(force=True)


@pytest.fixture(autouse=True)
def _are_empty(shared: Queue, narrow: Queue) -> Iterator[None]:
    yield
    assert (shared.size(), narrow.size()) == (0, 0)


def test_what_is_put_first_is_got_first(shared: Queue) -> None:
    assert shared.empty()
    for item in (1, "two", None, [3]):
        shared.put(item)
    assert (len(shared), shared.size(), shared.qsize()) == (4, 4, 4)
    assert not shared.empty()
    assert not shared.full()
    assert [shared.get() for _ in range(4)] == [1, "two", None, [3]]


def test_an_empty_queue_says_so_at_once_or_in_time(shared: Queue) -> None:
    with pytest.raises(Empty):
        shared.get(block=False)
    with pytest.raises(Empty):
        shared.get_nowait()
    with pytest.raises(Empty):
        shared.get(timeout=0.05)
    with pytest.raises(Empty):
        shared.get(timeout=0)
    with pytest.raises(local.Empty):
        shared.get_nowait()
    with pytest.raises(ValueError, match="negative"):
        shared.get(timeout=-1)


def test_a_full_queue_says_so_at_once_or_in_time(narrow: Queue) -> None:
    narrow.put(1)
    narrow.put_nowait(2)
    assert narrow.full()
    assert narrow.maxsize == 2
    with pytest.raises(Full):
        narrow.put(3, block=False)
    with pytest.raises(Full):
        narrow.put_nowait(3)
    with pytest.raises(local.Full):
        narrow.put(3, timeout=0.05)
    with pytest.raises(ValueError, match="negative"):
        narrow.put(3, timeout=-0.1)
    assert narrow.get_nowait_batch(2) == [1, 2]


def test_a_put_waits_for_room_and_a_get_for_an_item(narrow: Queue) -> None:
    narrow.put_nowait_batch([1, 2])
    putter = threading.Thread(target=narrow.put, args=(3,), kwargs={"timeout": PATIENCE})
    putter.start()
    assert [narrow.get(timeout=PATIENCE) for _ in range(3)] == [1, 2, 3]
    putter.join()


def test_batches_are_all_or_nothing(narrow: Queue) -> None:
    with pytest.raises(Full, match="3 items do not fit"):
        narrow.put_nowait_batch([1, 2, 3])
    narrow.put_nowait_batch(iter([1, 2]))
    with pytest.raises(Empty, match="holds 2"):
        narrow.get_nowait_batch(3)
    assert narrow.get_nowait_batch(0) == []
    assert narrow.get_nowait_batch(2) == [1, 2]
    with pytest.raises(TypeError):
        narrow.put_nowait_batch(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        narrow.get_nowait_batch(1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        narrow.get_nowait_batch(-1)


def test_actors_share_a_queue_that_they_are_given(shared: Queue) -> None:
    giver, taker = Worker.remote(shared), Worker.remote(shared)
    taken = taker.get.remote(5)
    actors.get(giver.put.remote(1, 2, 3), timeout=PATIENCE)
    shared.put_nowait_batch([4, 5])
    assert actors.get(taken, timeout=PATIENCE) == [1, 2, 3, 4, 5]
    waiting = taker.get.remote(1)
    shared.put("awaited")
    assert actors.get(waiting, timeout=PATIENCE) == ["awaited"]


def test_the_async_methods_do_as_the_others(shared: Queue, narrow: Queue) -> None:
    async def work() -> list[object]:
        with pytest.raises(Empty):
            await shared.get_async(block=False)
        with pytest.raises(Empty):
            await shared.get_async(timeout=0.05)
        with pytest.raises(ValueError, match="negative"):
            await shared.put_async(1, timeout=-1)
        await narrow.put_async(1)
        await narrow.put_async(2)
        with pytest.raises(Full):
            await narrow.put_async(3, block=False)
        with pytest.raises(Full):
            await narrow.put_async(3, timeout=0.05)
        getting = asyncio.gather(*(shared.get_async() for _ in range(3)))
        for item in range(3):
            await shared.put_async(item)
        return [*sorted(await getting), *[await narrow.get_async() for _ in range(2)]]

    assert asyncio.run(work()) == [0, 1, 2, 1, 2]


def test_a_get_that_was_given_up_takes_no_item(shared: Queue) -> None:
    async def give_up() -> None:
        getting = asyncio.ensure_future(shared.get_async())
        await asyncio.sleep(0.1)
        getting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await getting

    asyncio.run(give_up())
    shared.put("kept")
    assert shared.get(timeout=PATIENCE) == "kept"


def test_a_put_that_was_interrupted_puts_nothing() -> None:
    with Program(
        """
        import actors
        from actors.util import Queue

        actors.init()
        queue = Queue(1)
        queue.put(1)
        try:
            print("full", flush=True)
            queue.put(2)
        except KeyboardInterrupt:
            pass
        print(queue.get(timeout=30), queue.get_nowait_batch(0), queue.empty(), flush=True)
        """
    ) as program:
        program.line("full")
        program.interrupt()
        assert program.ends() == 0, program.report()
        assert program.printed[-1] == "1 [] True"


def test_more_gets_wait_than_an_async_actor_runs_calls_otherwise(shared: Queue) -> None:
    async def work() -> int:
        getting = asyncio.gather(*(shared.get_async() for _ in range(1500)))
        await asyncio.sleep(0)
        for start in range(0, 1500, 500):
            await asyncio.to_thread(shared.put_nowait_batch, list(range(start, start + 500)))
        return sum(await getting)

    assert asyncio.run(work()) == sum(range(1500))


def test_what_cannot_be_pickled_is_refused_where_it_is_put(shared: Queue) -> None:
    with pytest.raises(SerializationError):
        shared.put(n for n in range(3))


def test_the_queues_actor_takes_options() -> None:
    queue = Queue(actor_options={"name": "jobs"})
    assert actors.get_actor("jobs") == queue.actor
    queue.shutdown()
    with pytest.raises(TypeError):
        Queue(actor_options={"no_such_option": 1})
    with pytest.raises(TypeError, match="maxsize"):
        Queue("3")  # type: ignore[arg-type]


@pytest.mark.parametrize("force", [True, False])
def test_a_queue_that_was_shut_down_is_gone_for_all(force: bool) -> None:
    queue = Queue()
    worker = Worker.remote(queue)
    assert actors.get(worker.put.remote(1), timeout=PATIENCE) == 1
    waiting = worker.get.remote(2)
    eventually(queue.empty)
    queue.shutdown(force=force)
    queue.shutdown()
    assert queue.actor is None
    with pytest.raises(ActorDiedError, match="shut down"):
        queue.get()
    for ref in (waiting, worker.get.remote(1)):
        with pytest.raises(ActorDiedError):
            actors.get(ref, timeout=PATIENCE)
