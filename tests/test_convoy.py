"""Calls that came together: each has one reply, in whatever way it ends, and none starts after it was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.convoy import Convoy
from actors.job import Job, State
from actors.mailbox import Held, Mailbox
from actors.messages import Calls, Outcome, Payload, Reply
from actors.sealed import open_arguments
from actors.serialize import dumps

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Message
    from actors.transport.bell import Bell

NOTHING = dumps(None)


class Together:
    """A caller that remembers which of its calls were answered."""

    session = "session"

    def __init__(self) -> None:
        self.answers: list[int] = []

    def post(self, message: Message) -> None:
        assert isinstance(message, Reply)
        self.answers.append(message.number)

    def answered(self, number: int, value: Any) -> None:
        self.answers.append(number)

    def flush(self) -> None:
        """Nothing waits."""

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Nothing comes."""


class Lives(RuleBasedStateMachine):
    """A mailbox whose calls come together, against what may ever be seen of it."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = Together()
        self.emptied = 0
        self.mailbox = Mailbox(self._was_emptied)
        self.convoys: list[Convoy] = []
        self.running: Job | None = None
        self.sent = 0
        self.started: list[int] = []
        self.refused: set[int] = set()
        self.held = False
        self.closed = False

    def _was_emptied(self) -> None:
        self.emptied += 1

    @rule(count=st.integers(2, 5))
    def arrive(self, count: int) -> None:
        numbers = tuple(range(self.sent, self.sent + count))
        self.sent += count
        convoy = Convoy(Calls(numbers, "actor", "method", Payload(b"")), [*numbers], self.caller, "Actor")
        assert self.mailbox.arrive_together(convoy)
        if self.closed:
            self.refused.update(numbers)
        else:
            self.convoys.append(convoy)

    @precondition(lambda self: self.convoys and self.running is None)
    @rule()
    def start(self) -> None:
        try:
            self.running = self.mailbox.next_of(self.convoys[0])
        except Held:
            assert self.held
            return
        assert not self.held
        if self.running is None:
            del self.convoys[0]
        else:
            assert open_arguments(self.running.call.payload) == ((self.running.key[1],), {})  # type: ignore[arg-type]
            self.started.append(self.running.key[1])

    @precondition(lambda self: self.running is not None)
    @rule(plain=st.booleans())
    def end(self, plain: bool) -> None:
        job, self.running = self.running, None
        assert job is not None
        if not plain:
            self.mailbox.answer(job, Outcome.VALUE, NOTHING)
        elif self.mailbox.finish(job):
            self.caller.answered(job.key[1], None)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, self.sent - 1))
        job = self.mailbox.find(("session", number))
        if job is None:
            assert number in self.caller.answers
        elif self.mailbox.withdraw(job, ValueError("not wanted")):
            self.refused.add(number)
        else:
            assert job is self.running

    @rule()
    def look(self) -> None:
        jobs = self.mailbox.open()
        numbers = [job.key[1] for job in jobs]
        assert sorted(numbers) == [number for number in range(self.sent) if number not in self.caller.answers]
        assert [job for job in self.mailbox.open() if job.state is State.RUNNING] == (
            [self.running] if self.running else []
        )

    @rule()
    def hold(self) -> None:
        self.held = True
        self.mailbox.hold(lambda: None)

    @rule()
    def resume(self) -> None:
        self.held = False
        self.mailbox.resume()

    @precondition(lambda self: self.convoys and self.running is None)
    @rule()
    def disband(self) -> None:
        for job in self.mailbox.disband(self.convoys.pop(0)):
            self.mailbox.withdraw(job, ValueError("not wanted"))
            self.refused.add(job.key[1])

    @precondition(lambda self: not self.closed)
    @rule()
    def close(self) -> None:
        waiting = {number for number in range(self.sent) if number not in self.caller.answers}
        running = self.mailbox.close(ValueError("closed"))
        assert running == ([self.running] if self.running else [])
        self.refused |= waiting - {job.key[1] for job in running}
        self.closed, self.held = True, False

    @invariant()
    def each_has_one_reply(self) -> None:
        answers = self.caller.answers
        assert len(answers) == len(set(answers))
        assert self.started == sorted(set(self.started))
        assert not self.refused & set(self.started)

    def teardown(self) -> None:
        self.resume()
        if self.running is not None:
            self.end(plain=True)
        self.mailbox.retire(ValueError("retired"))
        while self.convoys:
            self.start()
            if self.running is not None:
                self.end(plain=True)
        assert sorted(self.caller.answers) == list(range(self.sent))
        assert self.emptied >= 1


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_a_diverted_mailbox_takes_each_by_itself() -> None:
    caller, mailbox = Together(), Mailbox(lambda: None)
    taken: list[int] = []
    first = Convoy(Calls((1, 2), "actor", "method", Payload(b"")), [1, 2], caller, "Actor")
    assert mailbox.arrive_together(first)
    mailbox.divert(lambda job: taken.append(job.key[1] if job is not None else 0))
    assert taken == [1, 2]
    late = Convoy(Calls((3, 4), "actor", "method", Payload(b"")), [3, 4], caller, "Actor")
    assert not mailbox.arrive_together(late)


def test_arguments_that_are_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="3 calls of method came with 2 arguments"):
        Convoy(Calls((1, 2, 3), "actor", "method", Payload(b"")), [1, 2], Together(), "Actor")
