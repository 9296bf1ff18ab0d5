"""Deadlines: a call has its answer by then, the calls that it makes inherit what is left, and nothing runs in vain."""

from __future__ import annotations

import time
from typing import Any

import pytest
from clusters import Latch, eventually

import actors
from actors.exceptions import GetTimeoutError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Worker:
    """Waits, tells what time it has, and passes calls on."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def left(self) -> float | None:
        return actors.get_runtime_context().remaining()

    def ask(self, other: Any) -> float | None:
        return actors.get(other.left.remote())  # type: ignore[no-any-return]

    def wait_for(self, latch: Any) -> str:
        self.ran.append("wait_for")
        return str(actors.get(latch.wait.remote("opened")))

    def note(self, word: str) -> str:
        self.ran.append(word)
        return word

    def done(self) -> list[str]:
        return self.ran


@actors.remote
class AsyncWorker:
    """Is cancelled when its time is over."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def wait_for(self, latch: Any) -> Any:
        try:
            return await latch.wait.remote()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise

    async def ends(self) -> list[str]:
        return self.ended


def _timed_out(ref: actors.ObjectRef[Any], within: float) -> GetTimeoutError:
    begun = time.monotonic()
    with pytest.raises(GetTimeoutError) as caught:
        actors.get(ref)
    assert time.monotonic() - begun < within
    assert isinstance(caught.value, TimeoutError)
    return caught.value


def test_a_call_without_one_has_no_end() -> None:
    assert actors.get(Worker.remote().left.remote()) is None


def test_what_is_left_is_known_and_inherited() -> None:
    one, two = Worker.remote(), Worker.remote()
    actors.get([one.note.remote("up"), two.note.remote("up")])
    left = actors.get(one.left.options(timeout=50).remote())
    assert 40 < left <= 50
    inherited = actors.get(one.ask.options(timeout=50).remote(two))
    assert 30 < inherited <= 50
    assert actors.get(one.ask.remote(two)) is None


def test_the_caller_has_its_answer_in_time_and_the_actor_goes_on() -> None:
    latch, worker = Latch.remote(), Worker.remote()
    actors.get(worker.note.remote("up"))
    ref = worker.wait_for.options(timeout=0.5).remote(latch)
    assert "wait_for" in str(_timed_out(ref, 5))
    # The call inside inherited the deadline, so that the actor is free again.
    assert actors.get(worker.note.remote("after"), timeout=5) == "after"


def test_a_call_that_waits_too_long_never_starts() -> None:
    latch, worker = Latch.remote(), Worker.remote()
    busy = worker.wait_for.remote(latch)
    eventually(lambda: actors.get(latch.waiting.remote()) == 1)
    late = worker.note.options(timeout=0.3).remote("late")
    _timed_out(late, 5)
    # The worker counts from when it heard of the call: where this one is over here, the first is over there.
    _timed_out(worker.note.options(timeout=0.3).remote("later"), 5)
    actors.get(latch.open.remote())
    actors.get(busy)
    assert "late" not in actors.get(worker.done.remote())


def test_a_call_whose_argument_comes_too_late_never_starts() -> None:
    latch, worker = Latch.remote(), Worker.remote()
    late = worker.note.options(timeout=0.3).remote(latch.wait.remote("late"))
    assert "never started" in str(_timed_out(late, 5))
    actors.get(latch.open.remote())
    assert actors.get(worker.done.remote()) == []


def test_a_coroutine_is_cancelled_when_its_time_is_over() -> None:
    latch, worker = Latch.remote(), AsyncWorker.remote()
    actors.get(worker.ends.remote())
    _timed_out(worker.wait_for.options(timeout=0.5).remote(latch), 5)
    ends = eventually(lambda: actors.get(worker.ends.remote()))
    assert ends[0] in {"CancelledError", "GetTimeoutError"}


def test_a_timeout_inside_is_the_callers_to_catch() -> None:
    @actors.remote
    class Careful:
        def ask(self, other: Any, latch: Any) -> str:
            try:
                return str(actors.get(other.wait_for.options(timeout=0.3).remote(latch)))
            except GetTimeoutError as error:
                return f"gave up: {isinstance(error, TaskError)}"

    assert actors.get(Careful.remote().ask.remote(Worker.remote(), Latch.remote()), timeout=20) == "gave up: False"


def test_a_method_may_have_one_of_its_own() -> None:
    @actors.remote
    class Slow:
        @actors.method(timeout=0.3)
        async def wait(self, latch: Any) -> Any:
            return await latch.wait.remote()

    latch, slow = Latch.remote(), Slow.remote()
    _timed_out(slow.wait.remote(latch), 10)
    patient = slow.wait.options(timeout=60).remote(latch)
    actors.get(latch.open.remote())
    assert actors.get(patient, timeout=10) is None


@pytest.mark.parametrize("wrong", [-1, float("nan"), "1", True])
def test_a_deadline_that_cannot_be_meant(wrong: Any) -> None:
    worker = Worker.remote()
    with pytest.raises((TypeError, ValueError), match="timeout"):
        worker.left.options(timeout=wrong)
