"""What is done between two calls, where no thread can be begun for it: calls go on, it is tried again or refused."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from actors import pause
from actors.departure import Departure
from actors.failure import Place, unpack
from actors.gathering import Gathering
from actors.mailbox import Mailbox
from actors.messages import Outcome
from actors.pause import Pause
from actors.shortage import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from actors.job import Job

PATIENCE = 30.0


class Threads:
    """Of which there is none at first."""

    def __init__(self) -> None:
        self.tries = 0

    def start(self, work: Callable[[], None]) -> None:
        self.tries += 1
        if self.tries == 1:
            raise NoThreadError("there is none")
        work()


def test_a_pause_lets_calls_go_on_and_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pause, "LATER_SECONDS", 0.01)
    mailbox, threads = Mailbox(lambda: None), Threads()

    async def work() -> None:
        over = asyncio.Event()
        Pause(mailbox, threads.start, over.set).begin(asyncio.get_running_loop())
        assert threads.tries == 1
        assert not mailbox.is_held
        await asyncio.wait_for(over.wait(), PATIENCE)

    asyncio.run(work())
    assert threads.tries == 2
    assert not mailbox.is_held


def test_a_state_that_calls_wait_for_is_taken_later() -> None:
    later: list[Callable[[], None]] = []
    mailbox = SimpleNamespace(conclude=lambda *_: False, outlasted=lambda: None, resume=lambda _: None)
    gathering = Gathering(cast("Mailbox", mailbox), Threads().start, lambda _, work: later.append(work))
    safe: Future[None] = Future()
    safe.set_result(None)
    gathering.take = lambda: safe
    done = gathering.ended(cast("Job", None))
    assert done is not None
    later.pop()()
    assert not done.done()
    later.pop()()
    assert done.done()
    assert not later


def test_an_actor_stays_that_cannot_give_its_state_away(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[tuple[Outcome, Any]] = []
    mailbox = Mailbox(lambda: None)
    job = SimpleNamespace(over=False)

    def answer(_: Job, outcome: Outcome, payload: Any) -> bool:
        answers.append((outcome, payload))
        return True

    monkeypatch.setattr(mailbox, "answer", answer)

    async def work() -> None:
        departure = Departure(cast("Job", job), mailbox, Place("n1", "Worker#1", "__actor_save__", 42), "worker-1")
        departure.begin(object(), Threads().start, asyncio.get_running_loop())

    asyncio.run(work())
    ((outcome, payload),) = answers
    assert outcome is Outcome.RAISED
    assert isinstance(unpack(payload), NoThreadError)
    assert not mailbox.is_held
