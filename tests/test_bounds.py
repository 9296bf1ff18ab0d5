"""Bounds: who calls faster than an actor answers is held up or told so, in bounded memory."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import psutil
import pytest
from clusters import Latch, eventually
from hypothesis import given
from hypothesis import strategies as st

import actors
from actors.exceptions import PendingCallsLimitExceeded
from actors.line import MAX_PENDING, MAX_PENDING_BYTES
from actors.room import Room

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Stuck:
    """Does nothing until the latch opens."""

    def hold(self, latch: Any) -> None:
        actors.get(latch.wait.remote())

    def take(self, value: Any = None) -> int:
        return 0 if value is None else len(value)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=60))
def test_a_room_is_never_overfull(steps: list[tuple[bool, int]]) -> None:
    room = Room(5, 100)
    inside: list[int] = []
    for enters, size in steps:
        if enters:
            fits = not inside or (len(inside) < 5 and sum(inside) + size <= 100)
            assert room.enter(size) == fits
            if fits:
                inside.append(size)
        elif inside:
            room.leave(inside.pop())
        assert room.count == len(inside) <= 5
        assert sum(inside) <= 100 or len(inside) == 1


def _stuck(**options: Any) -> tuple[Any, Any]:
    latch, stuck = Latch.remote(), Stuck.options(**options).remote()
    stuck.hold.remote(latch)
    eventually(lambda: actors.get(latch.waiting.remote()) == 1)
    return latch, stuck


def test_a_limit_of_the_actors_own_is_told_at_once() -> None:
    latch, stuck = _stuck(max_pending_calls=10)
    refs = [stuck.take.remote() for _ in range(9)]
    before = psutil.Process().memory_info().rss
    for _ in range(20_000):
        with pytest.raises(PendingCallsLimitExceeded, match="10"):
            stuck.take.remote()
    assert psutil.Process().memory_info().rss - before < 20 << 20
    actors.get(latch.open.remote())
    assert actors.get(refs) == [0] * 9
    assert actors.get(stuck.take.remote()) == 0


def test_without_one_the_caller_is_held_up() -> None:
    latch, stuck = _stuck()
    made = 0

    def call() -> None:
        nonlocal made
        for _ in range(MAX_PENDING + 500):
            stuck.take.remote()
            made += 1

    caller = threading.Thread(target=call)
    caller.start()
    eventually(lambda: made == MAX_PENDING - 1, 30.0)
    caller.join(0.5)
    assert made == MAX_PENDING - 1
    actors.get(latch.open.remote())
    caller.join(30)
    assert made == MAX_PENDING + 500
    assert actors.get(stuck.take.remote()) == 0


@pytest.mark.slow
def test_bytes_are_bounded_too() -> None:
    latch, stuck = _stuck()
    value = bytes(MAX_PENDING_BYTES // 8)
    made = 0

    def call() -> None:
        nonlocal made
        for _ in range(10):
            stuck.take.remote(value)
            made += 1

    caller = threading.Thread(target=call)
    caller.start()
    eventually(lambda: made >= 7, 30.0)
    caller.join(0.5)
    assert made == 7
    actors.get(latch.open.remote())
    caller.join(60)
    assert made == 10
    assert actors.get(stuck.take.remote(), timeout=60) == 0


def test_an_event_loop_is_never_held_up() -> None:
    latch, stuck = _stuck()

    async def flood() -> float:
        begun = time.monotonic()
        with pytest.raises(PendingCallsLimitExceeded, match="await"):
            for _ in range(MAX_PENDING + 1):
                stuck.take.remote()
        return time.monotonic() - begun

    assert asyncio.run(flood()) < 30
    actors.get(latch.open.remote())
    assert eventually(lambda: actors.get(stuck.take.remote()) == 0 or True, 30.0)
