"""Looking at a socket before sleeping at it, and leaving that out where it does not pay."""

from __future__ import annotations

import itertools
import os
import select
import socket

import pytest

from actors.transport.glance import MOST_LEFT_OUT, Glances

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
