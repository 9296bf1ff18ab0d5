"""Looking at a socket before sleeping at it, and leaving that out where it does not pay."""

from __future__ import annotations

import itertools
import os
import select
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.transport import glance
from actors.transport.cores import change_core
from actors.transport.glance import MOST_LEFT_OUT, MOST_STAYS, Glances

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: nobody answers while this thread looks")


class Poll:
    """A real one that counts how often it is asked."""

    def __init__(self, sock: socket.socket) -> None:
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self.asked = 0

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        self.asked += 1
        return self._poll.poll(timeout)


def looked(glances: Glances, poll: Poll) -> tuple[bool, bool]:
    """Whether something was seen, and whether it looked."""
    before = poll.asked
    seen = glances.at(poll)  # type: ignore[arg-type]
    return seen, poll.asked > before


def test_what_is_there_is_seen_at_once_and_looking_goes_on() -> None:
    here, there = socket.socketpair()
    with here, there:
        poll, glances = Poll(here), Glances()
        there.send(b"x")
        assert [looked(glances, poll) for _ in range(20)] == [(True, True)] * 20
        assert poll.asked == 20


def test_looks_in_vain_become_rare_until_one_pays() -> None:
    here, there = socket.socketpair()
    with here, there:
        poll, glances = Poll(here), Glances()
        looks = [looked(glances, poll)[1] for _ in range(200)]
        at = [number for number, look in enumerate(looks) if look]
        gaps = [later - earlier - 1 for earlier, later in itertools.pairwise(at)]
        assert gaps[:4] == [1, 3, 7, MOST_LEFT_OUT]
        assert set(gaps[4:]) == {MOST_LEFT_OUT}
        there.send(b"x")
        while not looked(glances, poll)[1]:
            pass
        assert looked(glances, poll) == (True, True)


def test_one_look_in_vain_among_others_that_pay_leaves_none_out() -> None:
    here, there = socket.socketpair()
    with here, there:
        poll, glances = Poll(here), Glances()
        for _ in range(5):
            there.send(b"x")
            assert looked(glances, poll) == (True, True)
            here.recv(1)
            assert looked(glances, poll) == (False, True)
        looks = [looked(glances, poll)[1] for _ in range(6)]
        assert looks == [True, False, True, False, False, False]


@pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="threads choose no core here")
def test_a_thread_changes_its_core_and_may_use_all_again() -> None:
    def core() -> int:
        return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])

    def changed() -> bool:  # the system may take it back at once, so not each time
        before = core()
        assert change_core()
        return core() != before

    with ThreadPoolExecutor(1) as thread:
        allowed = thread.submit(os.sched_getaffinity, 0).result()
        assert any(thread.submit(changed).result() for _ in range(100))
        assert thread.submit(os.sched_getaffinity, 0).result() == allowed


@pytest.mark.skipif(sys.platform != "linux", reason="threads choose no core here")
def test_a_thread_that_may_use_one_core_alone_stays_there() -> None:
    def pinned() -> tuple[bool, set[int]]:
        one = {min(os.sched_getaffinity(0))}
        os.sched_setaffinity(0, one)
        return change_core(), os.sched_getaffinity(0) - one

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(pinned).result() == (False, set())


def test_who_looks_in_vain_goes_to_another_core_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()
    with here, there:
        poll, glances, moves = Poll(here), Glances(), list[int]()
        asked = itertools.count()

        def move() -> bool:
            moves.append(len(moves))
            return True

        at = list[int]()
        monkeypatch.setattr(glance, "change_core", move)
        while len(moves) < 8:
            before, number = len(moves), next(asked)
            assert not glances.at(poll, moves=True)  # type: ignore[arg-type]
            if len(moves) > before:
                at.append(number)
        gaps = [later - earlier for earlier, later in itertools.pairwise(at)]
        assert gaps == sorted(gaps)
        assert gaps[-1] <= (MOST_LEFT_OUT + 1) * (MOST_STAYS + 1)
        there.send(b"x")
        while not glances.at(poll, moves=True):  # type: ignore[arg-type]
            pass
        assert len(moves) == 8


def test_what_comes_once_the_core_was_changed_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = socket.socketpair()
    with here, there:
        poll, glances = Poll(here), Glances()
        monkeypatch.setattr(glance, "change_core", lambda: bool(there.send(b"x")))
        assert glances.at(poll, moves=True)  # type: ignore[arg-type]
        assert here.recv(1) == b"x"
        assert not glances.at(poll)  # type: ignore[arg-type]
