"""Borrowed threads: work is done at once whatever blocks, and a lane keeps order and width."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from clusters import eventually
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.shortage import NoThreadError
from actors.threads import FEW, ThreadLane, Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.job import Job

PATIENCE = 30.0


def test_what_blocks_holds_up_no_other() -> None:
    threads, opened = Threads("test-blocked"), threading.Event()
    arrived = threading.Semaphore(0)

    def block() -> None:
        arrived.release()
        opened.wait(PATIENCE)

    count = 20 * FEW
    for _ in range(count):
        threads.start(block)
    done = threading.Event()
    threads.start(done.set)
    assert done.wait(PATIENCE)
    assert all(arrived.acquire(timeout=PATIENCE) for _ in range(count))
    opened.set()


def test_quick_work_needs_few_threads_and_they_end() -> None:
    threads = Threads("test-quick")
    done = threading.Semaphore(0)
    for _ in range(2000):
        threads.start(done.release)
    assert all(done.acquire(timeout=PATIENCE) for _ in range(2000))

    def alive() -> int:
        return sum(thread.name == "test-quick" for thread in threading.enumerate())

    assert alive() < 20 * FEW
    eventually(lambda: not alive(), PATIENCE)


def test_however_much_waits_one_timer_tries_for_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Callable[[], None]] = []
    threads, opened = Threads("test-short", lambda _, work: asked.append(work)), threading.Event()
    done = threading.Semaphore(0)
    threads.start(opened.wait, PATIENCE)

    def none(*_: object) -> None:
        raise NoThreadError("there is none")

    with monkeypatch.context() as patch:
        patch.setattr("actors.threads.begin", none)
        for _ in range(10):
            threads.start(done.release)
        assert len(asked) == 1
        asked.pop()()
        assert len(asked) == 1
    asked.pop()()
    assert all(done.acquire(timeout=PATIENCE) for _ in range(10))
    assert not asked
    opened.set()


@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 4), count=st.integers(1, 60))
def test_a_lane_starts_in_order_and_never_more_than_its_width(width: int, count: int) -> None:
    lock, started, over = threading.Lock(), [], threading.Semaphore(0)  # type: ignore[var-annotated]
    running = most = 0

    def run(job: Any) -> None:
        nonlocal running, most
        with lock:
            started.append(job)
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        over.release()

    lane = ThreadLane(width, _THREADS, run, lambda _, error: pytest.fail(str(error)))
    for number in range(count):
        lane.add(cast("Job", number))
    assert all(over.acquire(timeout=PATIENCE) for _ in range(count))
    assert most <= width
    assert sorted(started) == list(range(count))
    if width == 1:
        assert started == list(range(count))


_THREADS = Threads("test-lane")
