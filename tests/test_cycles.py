"""Circles of waits: who would wait for ever is told so, with the chain; who does not wait is left in peace."""

from __future__ import annotations

from typing import Any

import pytest
from clusters import Latch, eventually, failure

import actors
from actors.exceptions import ActorCycleError, GetTimeoutError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")

QUICK = 10.0


@actors.remote
class Link:
    """Calls another one, and waits or not."""

    def __init__(self) -> None:
        self.other: Any = None
        self.told: list[str] = []

    def join(self, other: Any) -> None:
        self.other = other

    def around(self, hops: int) -> str:
        """Passes a call on, and waits for it."""
        return "done" if hops == 0 else str(actors.get(self.other.around.remote(hops - 1)))

    def wait_for_one_of(self, hops: int) -> str:
        ready, _ = actors.wait([self.other.around.remote(hops)])
        return str(actors.get(ready[0]))

    def tell(self, word: str) -> str:
        self.told.append(word)
        return word

    def call_back(self) -> str:
        """Has the other call this one, and does not wait for that."""
        return str(actors.get(self.other.tell_back.remote()))

    def tell_back(self) -> str:
        self.other.tell.remote("called back")
        return "told"

    def patient(self, hops: int) -> str:
        try:
            return str(actors.get(self.other.around.remote(hops), timeout=1))
        except GetTimeoutError:
            return "gave up"

    def said(self) -> list[str]:
        return self.told

    def hold(self, latch: Any) -> str:
        actors.get(latch.wait.remote())
        return "held"

    def stand_behind(self, latch: Any) -> str:
        return str(actors.get(self.other.hold.remote(latch)))


@actors.remote
class AsyncLink(Link.cls):  # type: ignore[misc]
    """The same, but it can be entered again while it waits."""

    async def around(self, hops: int) -> str:  # type: ignore[override]
        return "done" if hops == 0 else str(await self.other.around.remote(hops - 1))


def _ring(*links: Any) -> None:
    for link, other in zip(links, (*links[1:], links[0]), strict=True):
        actors.get(link.join.remote(other))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_circle_is_told_with_its_chain(size: int) -> None:
    links = [Link.remote() for _ in range(size)]
    _ring(*links)
    error = failure(links[0].around.remote(size), QUICK)
    assert isinstance(error, ActorCycleError)
    assert isinstance(error, TaskError)
    for link in links:
        assert repr(link).removeprefix("ActorHandle(").removesuffix(")") in str(error)
    assert actors.get([link.around.remote(0) for link in links], timeout=QUICK) == ["done"] * size


def test_a_wait_for_one_is_a_wait_too() -> None:
    one, two = Link.remote(), Link.remote()
    _ring(one, two)
    assert isinstance(failure(one.wait_for_one_of.remote(1), QUICK), ActorCycleError)


def test_a_callback_that_nobody_waits_for_is_queued() -> None:
    one, two = Link.remote(), Link.remote()
    _ring(one, two)
    assert actors.get(one.call_back.remote(), timeout=QUICK) == "told"
    assert eventually(lambda: actors.get(one.said.remote())) == ["called back"]


def test_a_wait_that_gives_up_by_itself_is_no_circle() -> None:
    one, two = Link.remote(), Link.remote()
    _ring(one, two)
    assert actors.get(one.patient.remote(1), timeout=QUICK) == "gave up"


def test_an_async_actor_is_entered_again() -> None:
    one, two = AsyncLink.remote(), Link.remote()
    _ring(one, two)
    assert actors.get(one.around.remote(2), timeout=QUICK) == "done"
    assert actors.get(two.around.remote(1), timeout=QUICK) == "done"


def test_an_async_call_that_waits_for_who_waits_for_it_is_a_circle() -> None:
    one, two = Link.remote(), AsyncLink.remote()
    _ring(one, two)
    # one waits for two, which awaits one, which is busy waiting.
    assert isinstance(failure(one.around.remote(2), QUICK), ActorCycleError)


def test_more_threads_let_the_call_back_in() -> None:
    one, two = Link.options(max_concurrency=2).remote(), Link.remote()
    _ring(one, two)
    assert actors.get(one.around.remote(2), timeout=QUICK) == "done"


def test_waiting_long_in_a_chain_is_no_circle() -> None:
    latch = Latch.remote()
    links = [Link.remote() for _ in range(3)]
    _ring(*links)
    standing = [links[0].stand_behind.remote(latch), links[2].join.remote(links[0])]
    eventually(lambda: actors.get(latch.waiting.remote()) == 1)
    behind = [links[1].around.remote(0), links[2].around.remote(2)]
    assert actors.wait(behind, timeout=1) == ([], behind)
    actors.get(latch.open.remote())
    assert actors.get([*standing, *behind], timeout=QUICK) == ["held", None, "done", "done"]
