"""`handle.method.map`: many calls in few messages, and each of them a call like any other."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from clusters import Counter, Latch, eventually, failure, is_gone

import actors
from actors.batch import MOST_BYTES_EACH, MOST_CALLS
from actors.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    PendingCallsLimitExceeded,
    SerializationError,
    TaskCancelledError,
    Verdict,
)
from actors.line import MAX_PENDING
from actors.transport.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("cluster")


class Plain:
    """Says what it is given, and remembers it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def echo(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def all(self) -> list[Any]:
        return self.seen

    def grow(self, values: list[int]) -> list[int]:
        values.append(1)
        return values

    def inverse(self, value: float) -> float:
        self.seen.append(value)
        return 1 / value

    def many(self, count: int) -> Iterator[int]:
        yield from range(count)

    @actors.method(num_returns=2)
    def both(self, value: int) -> tuple[int, int]:
        return value, -value

    def hold(self, latch: Any) -> None:
        actors.get(latch.wait.remote())

    def keep(self, latch: Any) -> None:
        self.latch = latch

    def hold_at_seven(self, value: int) -> int:
        if value == 7:
            actors.get(self.latch.wait.remote())
        return value

    def die(self, value: int) -> int:
        import os

        if value == 3:
            os._exit(7)
        return value

    def unsendable(self, value: int) -> Any:
        return threading.Lock() if value == 1 else value


class Async:
    """The same on an event loop."""

    async def echo(self, value: Any) -> Any:
        await asyncio.sleep(0)
        return value


class Saved:
    """Adds up, and can be made anew."""

    def __init__(self) -> None:
        self.sum = 0

    def add(self, value: int) -> int:
        self.sum += value
        return self.sum

    def die(self) -> None:
        import os

        os._exit(7)

    def __actor_save__(self) -> int:
        return self.sum

    def __actor_load__(self, state: int) -> None:
        self.sum = state


plain = actors.remote(Plain)
WAYS = {
    "plain": plain.remote,
    "threads": lambda: plain.options(max_concurrency=3).remote(),
    "async": lambda: actors.remote(Async).remote(),
    "light": lambda: plain.options(isolation="thread").remote(),
    "light async": lambda: actors.remote(Async).options(isolation="thread").remote(),
}
MIXED = [
    1,
    "two",
    b"3",
    None,
    4.5,
    True,
    [6],
    {"seven": 7},
    8,
    1 << 100,
    "x" * MOST_BYTES_EACH,
    "y" * (3 << 20),
    10,
    11,
]


@pytest.mark.parametrize("way", WAYS)
def test_every_value_has_its_answer(way: str) -> None:
    actor = WAYS[way]()
    assert actors.get(actor.echo.map(range(1500))) == list(range(1500))
    assert actors.get(actor.echo.map(MIXED)) == MIXED
    assert actors.get([*actor.echo.map(iter("abc")), *actor.echo.map([])]) == ["a", "b", "c"]


def test_calls_run_in_the_order_of_the_values() -> None:
    actor = plain.remote()
    waiting = actor.echo.map(MIXED)  # the actor may not even live yet
    between = actor.echo.remote("between")
    after = actor.echo.map([[n] for n in range(700)])
    actors.get([*waiting, between, *after])
    assert actors.get(actor.all.remote()) == [*MIXED, "between", *([n] for n in range(700))]


def test_they_go_in_few_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    actor = plain.remote()
    actors.get(actor.all.remote())
    sent: list[int] = []
    send = Peer.call_together

    def counted(peer: Peer, numbers: tuple[int, ...], *rest: Any) -> None:
        sent.append(len(numbers))
        send(peer, numbers, *rest)

    monkeypatch.setattr(Peer, "call_together", counted)
    assert actors.get(actor.echo.map(range(2 * MOST_CALLS))) == list(range(2 * MOST_CALLS))
    assert sent == [MOST_CALLS, MOST_CALLS]


def test_each_call_has_values_of_its_own() -> None:
    actor, shared = plain.remote(), [0]
    actors.get(actor.all.remote())
    refs = actor.grow.map([shared, shared, shared])
    shared.append(9)
    assert actors.get(refs) == [[0, 1]] * 3


def test_references_arrays_and_handles_among_the_values() -> None:
    actor = plain.remote()
    array, counter = np.arange(5), Counter.remote()
    got = actors.get(actor.echo.map([actors.put(7), [actors.put(8)], array, 9, counter, 10]))
    assert got[0] == 7
    assert actors.get(got[1][0]) == 8
    assert (got[2] == array).all()
    assert not got[2].flags.writeable
    assert actors.get(got[4].add.remote()) == 1
    assert (got[3], got[5]) == (9, 10)


def test_one_that_fails_fails_alone() -> None:
    actor = plain.remote()
    actors.get(actor.all.remote())
    refs = actor.inverse.map([1, 0, 2])
    assert actors.get([refs[0], refs[2]]) == [1, 0.5]
    assert isinstance(failure(refs[1]), ZeroDivisionError)
    refs = actor.unsendable.map(range(3))
    assert actors.get([refs[0], refs[2]]) == [0, 2]
    assert isinstance(failure(refs[1]), SerializationError)


def test_what_raises_is_tried_again_where_that_is_wished_for() -> None:
    actor = plain.remote()
    actors.get(actor.all.remote())
    refs = actor.inverse.options(max_task_retries=2, retry_exceptions=True).map([1, 0, 2])
    assert isinstance(failure(refs[1]), ZeroDivisionError)
    assert actors.get([refs[0], refs[2]]) == [1, 0.5]
    assert sorted(actors.get(actor.all.remote())) == [0, 0, 0, 1, 2]


def test_nothing_is_sent_where_a_value_cannot_be() -> None:
    actor = plain.remote()
    with pytest.raises(SerializationError, match="lock"):
        actor.echo.map([1, [2], threading.Lock(), 3])
    with pytest.raises(TypeError, match="missing"):
        Pair.remote().take.map([1])
    assert actors.get(actor.all.remote()) == []


@actors.remote
class Pair:
    """Takes two."""

    def take(self, one: int, other: int) -> int:
        return one + other


def test_streams_and_several_values_are_given_for_each() -> None:
    actor = plain.remote()
    assert [actors.get(list(refs)) for refs in actor.many.map([2, 0, 3])] == [[0, 1], [], [0, 1, 2]]
    assert [actors.get(pair) for pair in actor.both.map([1, 2])] == [[1, -1], [2, -2]]


def _held(**options: Any) -> tuple[Any, Any]:
    latch, actor = Latch.remote(), plain.options(**options).remote()
    actor.hold.remote(latch)
    eventually(lambda: actors.get(latch.waiting.remote()) == 1)
    return latch, actor


def test_one_in_the_middle_is_cancelled() -> None:
    latch, actor = _held()
    refs = actor.echo.map(range(5))
    refs[2].cancel()
    error = failure(refs[2])
    assert isinstance(error, TaskCancelledError)
    assert error.verdict is Verdict.NEVER_STARTED
    latch.open.remote()
    assert actors.get([ref for ref in refs if ref is not refs[2]]) == [0, 1, 3, 4]
    assert actors.get(actor.all.remote()) == [0, 1, 3, 4]


def test_one_that_takes_long_keeps_no_answer_back() -> None:
    latch, actor = Latch.remote(), plain.remote()
    actors.get(actor.keep.remote(latch))
    refs = actor.hold_at_seven.map(range(20))
    assert actors.get(refs[:7], timeout=60) == list(range(7))
    assert actors.wait([refs[7]], timeout=0.1) == ([], [refs[7]])
    latch.open.remote()
    assert actors.get(refs, timeout=60) == list(range(20))


def test_a_plain_value_that_came_with_others_is_passed_on() -> None:
    actor, other = plain.remote(), plain.remote()
    refs = actor.echo.map(range(3))
    assert actors.get(refs) == [0, 1, 2]
    assert actors.get(other.echo.remote(refs[1])) == 1
    (inside,) = actors.get(other.echo.remote([refs[2]]))
    assert inside == refs[2]
    assert actors.get(inside) == 2
    assert len({*refs, inside}) == 3


def test_the_state_is_saved_after_each_of_calls_that_came_together() -> None:
    saved = actors.remote(Saved).options(checkpoint="call", max_restarts=1).remote()
    assert actors.get(saved.add.map([1, 2, 3, 4]), timeout=60) == [1, 3, 6, 10]
    assert isinstance(failure(saved.die.remote()), ActorUnavailableError)
    assert actors.get(saved.add.remote(5), timeout=60) == 15


def test_a_deadline_is_each_calls_own() -> None:
    latch, actor = _held()
    refs = actor.echo.options(timeout=0.2).map(range(3))
    for ref in refs:
        with pytest.raises(GetTimeoutError, match=r"not start|timeout"):
            actors.get(ref)
    # What is left of a deadline is counted from its arrival, so the actor's own comes a little later: one of a second
    # has passed here when those of a fifth have passed there.
    with pytest.raises(GetTimeoutError):
        actors.get(actor.echo.options(timeout=1.0).remote(9))
    latch.open.remote()
    assert set(actors.get(actor.all.remote())) <= {9}


def test_a_death_in_the_middle_has_a_verdict_for_each() -> None:
    actor = plain.remote()
    actors.get(actor.all.remote())
    refs = actor.die.map(range(6))
    for ref in refs[3:]:
        error = failure(ref)
        assert isinstance(error, ActorDiedError)
        assert error.verdict is Verdict.MAY_HAVE_RUN
    later = actor.die.map(range(2))
    assert {failure(ref).verdict for ref in later} == {Verdict.NEVER_STARTED}  # type: ignore[attr-defined]


def test_an_actor_that_is_made_anew_may_run_again_what_was_cut_off() -> None:
    actor = plain.options(max_restarts=1).remote()
    actors.get(actor.all.remote())
    refs = actor.die.map([3, 4])
    assert all(isinstance(failure(ref), ActorUnavailableError) for ref in refs)
    latch, actor = _held(max_restarts=1, max_task_retries=1)
    refs = actor.echo.map([1, [2], "3"])
    numbers = actor.echo.map(range(5))
    actors.kill(actor, no_restart=False)
    eventually(lambda: actors.get(latch.waiting.remote()) == 2)
    latch.open.remote()
    assert actors.get([*refs, *numbers]) == [1, [2], "3", 0, 1, 2, 3, 4]
    assert actors.get(actor.all.remote()) == [1, [2], "3", 0, 1, 2, 3, 4]


def test_more_values_than_there_is_room_wait_for_room() -> None:
    actor = plain.remote()
    count = MAX_PENDING + 3 * MOST_CALLS
    assert actors.get(actor.echo.map(range(count))) == list(range(count))


def test_a_limit_of_the_actors_own_takes_all_or_none() -> None:
    latch, actor = _held(max_pending_calls=10)
    with pytest.raises(PendingCallsLimitExceeded, match="max_pending_calls=10"):
        actor.echo.map(range(10))
    refs = actor.echo.map([1, [2], np.arange(3), 4, 5, 6, 7, 8, 9])
    with pytest.raises(PendingCallsLimitExceeded):
        actor.echo.map([10])
    latch.open.remote()
    assert actors.get(refs[-1]) == 9
    assert len(actors.get(actor.all.remote())) == 9
    assert actors.get(actor.echo.map(range(9))) == list(range(9))


def test_on_an_event_loop_nothing_waits() -> None:
    actor = plain.remote()

    async def main() -> None:
        with pytest.raises(PendingCallsLimitExceeded):
            actor.echo.map(range(MAX_PENDING + 1))
        refs = actor.echo.map(range(1000))
        assert [await ref for ref in refs] == list(range(1000))

    asyncio.run(main())


def test_an_actor_maps_over_another() -> None:
    assert actors.get(actors.remote(Caller).remote().total.remote(plain.remote(), 600)) == sum(range(600))


class Caller:
    """Calls another actor."""

    def total(self, other: Any, count: int) -> int:
        return sum(actors.get(other.echo.map(range(count))))


def test_an_actor_lives_until_it_has_answered_and_no_longer() -> None:
    counter = Counter.remote()
    pid = actors.get(counter.pid.remote())
    refs = counter.add.map([1] * 600)
    del counter
    assert actors.get(refs)[-1] == 600
    eventually(lambda: is_gone(pid))
