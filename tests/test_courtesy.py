"""What takes long gives its core up where messages come, and keeps a share of the time."""

from __future__ import annotations

import pytest

from actors import courtesy
from actors.courtesy import BUSTLE_SECONDS, MOST_TIMES, Courtesy, bustle


class _Clock:
    """Time as the tests have it; to give the core up takes ``lost`` seconds of it."""

    def __init__(self, lost: float) -> None:
        self.now = 100.0
        self.lost = lost
        self.times = 0

    def monotonic(self) -> float:
        return self.now

    def give_up_core(self) -> None:
        self.times += 1
        self.now += self.lost


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock(lost=0.0)
    monkeypatch.setattr(courtesy, "time", made)
    monkeypatch.setattr(courtesy, "_give_up_core", made.give_up_core)
    return made


def test_nothing_is_given_away_where_nothing_comes(clock: _Clock) -> None:
    courteous = Courtesy()
    for _ in range(10):
        clock.now += 0.001
        courteous.give_way()
    assert clock.times == 0


def test_each_piece_gives_way_to_what_has_come_meanwhile(clock: _Clock) -> None:
    courteous = Courtesy()
    for _ in range(10):
        clock.now += 0.001
        bustle.messages += 1
        courteous.give_way()
    assert clock.times == 10


def test_the_next_message_is_expected_for_a_while_since_it_may_wait_for_this_core(clock: _Clock) -> None:
    courteous = Courtesy()
    bustle.messages += 1
    for _ in range(1000):
        courteous.give_way()
        clock.now += 0.001
    assert clock.times == pytest.approx(1000 * BUSTLE_SECONDS, abs=1)


def test_where_others_take_the_core_for_long_it_keeps_its_share_of_the_time(clock: _Clock) -> None:
    clock.lost = 0.004
    courteous = Courtesy()
    for _ in range(1000):
        clock.now += 0.00025
        bustle.messages += 1
        courteous.give_way()
    worked, given = 1000 * 0.00025, clock.times * clock.lost
    assert 0.8 * MOST_TIMES <= (worked + given) / worked <= 1.1 * MOST_TIMES


def test_a_system_that_cannot_give_a_core_up(clock: _Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "_give_up_core", None)
    courteous = Courtesy()
    bustle.messages += 1
    courteous.give_way()
    assert clock.times == 0
