"""A thread that waits for an answer reads it itself: nothing is lost where threads, the loop and faults take turns."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clusters import eventually

import actors
from actors.exceptions import ActorDiedError, GetTimeoutError
from actors.handle import line_of

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Counter:
    """Counts, and does as it is told."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def echo(self, value: object) -> object:
        return value

    def later(self, seconds: float) -> str:
        time.sleep(seconds)
        return "late"

    def end(self) -> None:
        os._exit(3)


@actors.remote
class Caller:
    """Calls another."""

    def through(self, other: Any, count: int) -> list[int]:
        return [actors.get(other.add.remote()) for _ in range(count)]


def _link(handle: Any) -> Any:
    peer: Any = line_of(handle).peer
    return peer._conversation.control._link  # to be cut


def test_many_threads_wait_for_one_process() -> None:
    counter = Counter.remote()

    def work(_: int) -> list[int]:
        return [actors.get(counter.add.remote(), timeout=30) for _ in range(60)]

    with ThreadPoolExecutor(8) as pool:
        seen = [number for numbers in pool.map(work, range(8)) for number in numbers]
    assert sorted(seen) == list(range(1, 481))


def test_an_answer_that_comes_for_another_thread_is_handed_over() -> None:
    one, results = Counter.remote(), []
    first = one.later.remote(0.3)
    waiting = threading.Thread(target=lambda: results.append(actors.get(first, timeout=10)))
    waiting.start()
    refs = [one.echo.remote(value) for value in range(300)]
    assert actors.get(refs, timeout=10) == list(range(300))
    waiting.join(10)
    assert results == ["late"]


def test_large_values_and_small_ones_by_turns() -> None:
    one = Counter.remote()
    values = [bytes(1), bytes(200_000), "x", bytes(3 << 20), 7] * 4
    assert [actors.get(one.echo.remote(value), timeout=20) for value in values] == values


def test_cuts_while_somebody_reads() -> None:
    counter, over = Counter.remote(), threading.Event()
    actors.get(counter.add.remote())

    def cut() -> None:
        process = line_of(counter).process
        while not over.is_set():
            link = _link(counter)
            if link is not None:
                process.portal.start(link.close())
            time.sleep(0.02)

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        assert [actors.get(counter.add.remote(), timeout=30) for _ in range(100)] == list(range(2, 102))
    finally:
        over.set()
        cutting.join()


def test_the_death_of_the_process_that_is_read_from() -> None:
    counter = Counter.remote()
    actors.get(counter.add.remote())
    begun = time.monotonic()
    with pytest.raises(ActorDiedError):
        actors.get(counter.end.remote(), timeout=20)
    assert time.monotonic() - begun < 5


def test_a_timeout_is_kept() -> None:
    counter = Counter.remote()
    actors.get(counter.add.remote())
    late, begun = counter.later.remote(1.0), time.monotonic()
    with pytest.raises(GetTimeoutError):
        actors.get(late, timeout=0.02)
    assert time.monotonic() - begun < 0.5
    assert actors.get(late, timeout=10) == "late"


def test_an_interrupt_ends_the_wait_and_nothing_else() -> None:
    counter, caught = Counter.remote(), 0
    numbers: list[int] = []
    actors.get(counter.echo.remote(0))
    for turn in range(60):
        timer = threading.Timer(0.0005 * (turn % 20), os.kill, (os.getpid(), signal.SIGINT))
        pending = counter.echo.remote(turn)
        try:
            try:
                timer.start()
                while timer.is_alive() or not timer.finished.is_set():
                    assert actors.get(counter.echo.remote(turn), timeout=20) == turn
                time.sleep(0.05)  # it comes at the latest here
            finally:
                timer.join()
        except KeyboardInterrupt:
            caught += 1
        assert actors.get(pending, timeout=20) == turn
        numbers.append(actors.get(counter.add.remote(), timeout=20))
    assert caught > 0
    assert numbers == list(range(1, 61))


def test_nested_calls_and_a_busy_actor() -> None:
    counter = Counter.remote()
    callers = [Caller.remote() for _ in range(3)]
    parts = actors.get([caller.through.remote(counter, 50) for caller in callers], timeout=60)
    assert sorted(number for part in parts for number in part) == list(range(1, 151))
    assert all(part == sorted(part) for part in parts)


def test_an_idle_actor_hears_of_others_at_once() -> None:
    counter, caller = Counter.remote(), Caller.remote()
    actors.get(caller.through.remote(counter, 1), timeout=20)
    took = []
    for _ in range(30):  # the actor has just answered the one, and waits at that link
        actors.get(caller.through.remote(counter, 1), timeout=20)
        begun = time.monotonic()
        actors.get(counter.add.remote(), timeout=20)
        took.append(time.monotonic() - begun)
    assert sorted(took)[15] < 0.03


def test_links_are_given_back() -> None:
    before = len(os.listdir("/dev/fd"))
    counter = Counter.remote()
    actors.get(counter.add.remote())
    actors.kill(counter)
    del counter
    eventually(lambda: len(os.listdir("/dev/fd")) <= before)
