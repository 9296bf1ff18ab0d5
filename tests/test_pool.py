"""A pool runs what it is given in order, so many at once, whatever becomes of it; the portal's is one of a thread."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import pytest

from actors.pool import Pool
from actors.shortage import NoThreadError
from actors.transport.portal import Portal

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0


def later(seconds: float, work: Callable[[], None]) -> None:
    raise AssertionError("no thread was lacking")


def test_a_pool_begins_as_many_threads_as_are_needed_at_once() -> None:
    pool = Pool(3, "test-pool", later)
    done: list[int] = []
    for number in range(5):
        over = threading.Event()
        pool.start(lambda number=number, over=over: (done.append(number), over.set()))
        assert over.wait(PATIENCE)
    assert done == list(range(5))
    all_here, go_on = threading.Barrier(4), threading.Event()
    for _ in range(3):
        pool.start(all_here.wait, PATIENCE)
    all_here.wait(PATIENCE)  # three at once
    blocked = [threading.Event() for _ in range(4)]
    for event in blocked:
        pool.start(lambda event=event: (event.set(), go_on.wait(PATIENCE)))
    assert all(event.wait(PATIENCE) for event in blocked[:3])
    assert not blocked[3].is_set()
    assert sum(thread.name.startswith("test-pool") for thread in threading.enumerate()) == 3
    go_on.set()
    pool.close()  # after what has been started
    assert blocked[3].is_set()
    assert not any(thread.name.startswith("test-pool") for thread in threading.enumerate())
    with pytest.raises(NoThreadError, match="test-pool"):
        pool.start(go_on.set)


def test_a_piece_of_work_that_fails_ends_no_thread_of_a_pool(capfd: pytest.CaptureFixture[str]) -> None:
    pool, done = Pool(1, "test-failing", later), threading.Event()
    pool.start(int, "none")
    pool.start(done.set)
    assert done.wait(PATIENCE)
    pool.close()
    assert "invalid literal for int" in capfd.readouterr().err


@pytest.mark.parametrize("begun", [True, False])
def test_what_comes_when_the_portal_is_closed_is_done_all_the_same(begun: bool) -> None:
    """Somebody may wait for it, such as for the future of a reference."""
    portal = Portal()
    if begun:
        portal.expect_aside()
    portal.close()
    done = threading.Event()
    portal.aside(done.set)
    assert done.is_set()


def test_a_portal_that_is_closed_lets_what_runs_aside_end() -> None:
    portal, begun, go_on, done = Portal(), threading.Event(), threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        go_on.wait(PATIENCE)
        done.set()

    portal.aside(run)
    assert begun.wait(PATIENCE)
    threading.Timer(0.1, go_on.set).start()
    portal.close()
    assert done.is_set()


def test_a_portal_is_closed_by_what_runs_aside_and_in_spite_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, done = Portal(), threading.Event()
    first.aside(lambda: (first.close(), done.set()))
    assert done.wait(PATIENCE)
    monkeypatch.setattr("actors.transport.portal.STOP_SECONDS", 0.1)
    second, go_on = Portal(), threading.Event()
    second.aside(go_on.wait, PATIENCE)
    second.close()
    assert not go_on.is_set()
    go_on.set()


def test_what_fails_aside_is_told_and_the_next_is_done(caplog: pytest.LogCaptureFixture) -> None:
    portal, done = Portal(), threading.Event()
    portal.aside(int, "none")
    portal.aside(sys.exit)
    portal.aside(done.set)
    assert done.wait(PATIENCE)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError]
    portal.close()
