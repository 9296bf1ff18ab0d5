"""The life of a call at its actor: one reply each, order within a group, nothing that starts after it was refused."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.deadlines import Deadlines
from actors.job import Job, State
from actors.mailbox import Lane, Mailbox
from actors.messages import Call, Item, Outcome, Payload, Reply, Terms
from actors.runtime import Running
from actors.serialize import dumps, loads
from actors.transport.bell import Bell
from actors.transport.portal import Portal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.messages import Message

NOTHING = Payload(b"")
GROUPS = {"": 1, "io": 2, "wide": 3}


class Caller:
    """A caller that remembers what it was told."""

    def __init__(self, session: str = "session") -> None:
        self.session = session
        self.replies: list[Reply] = []
        self.items: list[Item] = []

    def post(self, message: Message) -> None:
        if isinstance(message, Item):
            self.items.append(message)
        else:
            assert isinstance(message, Reply)
            self.replies.append(message)

    def job(self, number: int, remaining: float | None = None) -> Job:
        return Job(Call(number, "actor", "method", NOTHING, Terms(remaining)), self, "Actor")


class Lives(RuleBasedStateMachine):
    """A mailbox whose calls run in lanes, against what may ever be seen of it."""

    def __init__(self) -> None:
        super().__init__()
        self.caller = Caller()
        self.emptied = 0
        self.mailbox = Mailbox(self.was_emptied)
        self.jobs: list[Job] = []
        self.group: dict[int, str] = {}
        self.begun: dict[str, list[tuple[Job, Callable[[], None]]]] = {group: [] for group in GROUPS}
        self.running: list[tuple[Job, Callable[[], None]]] = []
        self.started: list[int] = []
        self.closed = self.retired = self.over = False
        self.lanes = {group: Lane(width, self.begins(group)) for group, width in GROUPS.items()}
        self.diverted = False

    def was_emptied(self) -> None:
        assert self.retired
        assert not [job for job in self.jobs if job.state is not State.OVER]
        self.emptied += 1

    def begins(self, group: str) -> Callable[[Job, Callable[[], None]], None]:
        return lambda job, finished: self.begun[group].append((job, finished))

    def sink(self, job: Job | None) -> None:
        if job is None:
            self.over = True
        else:
            self.lanes[self.group[job.call.number]].add(job)

    @rule(group=st.sampled_from(list(GROUPS)))
    def arrive(self, group: str) -> None:
        job = self.caller.job(len(self.jobs))
        self.jobs.append(job)
        self.group[job.call.number] = group
        self.mailbox.arrive(job)
        assert job.over == (self.closed or self.retired)

    @rule()
    @precondition(lambda self: not self.diverted)
    def construct(self) -> None:
        self.mailbox.divert(self.sink)
        self.diverted = True

    @rule(group=st.sampled_from(list(GROUPS)))
    def start(self, group: str) -> None:
        if self.begun[group]:
            job, finished = self.begun[group].pop(0)
            refused = job.over
            assert self.mailbox.start(job) is not refused
            if refused:
                finished()
            else:
                self.started.append(job.call.number)
                self.running.append((job, finished))

    @rule(index=st.integers(0, 5), outcome=st.sampled_from([Outcome.VALUE, Outcome.RAISED, Outcome.MAY_HAVE_RUN]))
    def finish(self, index: int, outcome: Outcome) -> None:
        if self.running:
            job, finished = self.running.pop(index % len(self.running))
            before = self.forced(job)
            assert self.mailbox.answer(job, outcome, NOTHING) is not before
            finished()

    def forced(self, job: Job) -> bool:
        return any(r.number == job.call.number for r in self.caller.replies)

    @rule(index=st.integers(0, 30))
    def cancel_or_deadline(self, index: int) -> None:
        if self.jobs:
            job = self.jobs[index % len(self.jobs)]
            queued = job.state is State.QUEUED
            assert self.mailbox.withdraw(job, TimeoutError("late")) is queued
            if not queued and not job.over:
                job.stop(TimeoutError("late"))

    @rule(index=st.integers(0, 5))
    def force(self, index: int) -> None:
        if self.running:
            job, _ = self.running[index % len(self.running)]
            before = self.forced(job)
            assert self.mailbox.answer(job, Outcome.MAY_HAVE_RUN, NOTHING) is not before

    @rule()
    @precondition(lambda self: not self.closed)
    def retire(self) -> None:
        self.retired = True
        self.mailbox.retire(RuntimeError("retired"))

    @rule()
    @precondition(lambda self: len(self.jobs) > 5)
    def close(self) -> None:
        running = self.mailbox.close(RuntimeError("closed"))
        self.closed = True
        assert set(running) == {job for job, _ in self.running if not job.over}

    @invariant()
    def at_most_one_reply(self) -> None:
        numbers = [reply.number for reply in self.caller.replies]
        assert len(numbers) == len(set(numbers))
        assert set(numbers) == {job.call.number for job in self.jobs if job.over}

    @invariant()
    def order_is_kept_within_a_group(self) -> None:
        for group in GROUPS:
            of_group = [number for number in self.started if self.group[number] == group]
            assert of_group == sorted(of_group)

    @invariant()
    def nothing_starts_that_was_refused(self) -> None:
        refused = {r.number for r in self.caller.replies if r.outcome in {Outcome.NEVER_STARTED, Outcome.ENDED}}
        assert not refused & set(self.started)

    @invariant()
    def groups_keep_to_their_width(self) -> None:
        for group, width in GROUPS.items():
            assert len([job for job, _ in self.running if self.group[job.call.number] == group]) <= width

    def teardown(self) -> None:
        if not self.diverted:
            self.construct()
        while self.running or any(self.begun.values()):
            for group in GROUPS:
                self.start(group)
            self.finish(0, Outcome.VALUE)
        assert all(job.over for job in self.jobs)
        assert self.emptied >= (self.retired and not self.closed)
        self.mailbox.close(RuntimeError("closed"))
        assert self.over
        self.at_most_one_reply()


Lives.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLives = Lives.TestCase


def test_a_closed_mailbox_tells_why() -> None:
    caller = Caller()
    mailbox = Mailbox(lambda: None)
    waiting = caller.job(1)
    mailbox.arrive(waiting)
    assert mailbox.close(ValueError("over")) == []
    mailbox.arrive(caller.job(2))
    assert [reply.outcome for reply in caller.replies] == [Outcome.ENDED] * 2
    assert [str(loads(reply.payload)) for reply in caller.replies if isinstance(reply.payload, Payload)] == ["over"] * 2
    assert [job for job in mailbox if not job.over] == []


def test_calls_that_wait_come_before_those_that_come_while_the_mailbox_is_diverted() -> None:
    caller = Caller()
    mailbox = Mailbox(lambda: None)
    count = 500
    seen: list[int] = []
    mailbox.arrive(caller.job(0))

    def arrive() -> None:
        for number in range(1, count):
            mailbox.arrive(caller.job(number))

    arriving = threading.Thread(target=arrive)
    arriving.start()
    mailbox.divert(lambda job: seen.append(job.call.number) if job is not None else None)
    arriving.join()
    assert seen == list(range(count))


def test_a_call_is_answered_once_however_many_try() -> None:
    """Finish, cancel and the end of the actor at the same time, from three threads."""
    caller = Caller()
    mailbox = Mailbox(lambda: None)
    jobs = [caller.job(number) for number in range(2000)]
    for job in jobs:
        mailbox.arrive(job)
    barrier = threading.Barrier(3)
    started: list[int] = []

    def run() -> None:
        barrier.wait()
        for job in jobs:
            if mailbox.start(job):
                started.append(job.call.number)
                mailbox.answer(job, Outcome.VALUE, NOTHING)

    def cancel() -> None:
        barrier.wait()
        for job in reversed(jobs):
            mailbox.withdraw(job, TimeoutError())

    def close() -> None:
        barrier.wait()
        while len(caller.replies) < len(jobs) // 2:
            time.sleep(0)
        mailbox.close(RuntimeError())

    threads = [threading.Thread(target=target) for target in (run, cancel, close)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(reply.number for reply in caller.replies) == list(range(len(jobs)))
    assert {r.number for r in caller.replies if r.outcome is Outcome.VALUE} == set(started)


# -- deadlines --------------------------------------------------------------------------------------------------


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal()
    yield portal
    portal.close()


def test_deadlines_pass_in_their_order_and_those_of_answered_calls_do_not(portal: Portal) -> None:
    caller = Caller()
    passed: list[int] = []
    done = threading.Event()

    def note(job: Job) -> None:
        passed.append(job.call.number)
        if len(passed) == 3:
            done.set()

    async def fill() -> list[Job]:
        deadlines = Deadlines(note)
        # Each shares its time with others; one is over before its time comes.
        jobs = [caller.job(number, remaining) for number, remaining in enumerate([0.2, 0.02, 3600.0, 0.1, 0.05])]
        jobs[4].over = True
        for job in jobs:
            deadlines.add(job, asyncio.get_running_loop())
        return jobs

    jobs = portal.run(fill())
    assert done.wait(10)
    assert passed == [1, 3, 0]
    assert not jobs[2].over


def test_deadlines_of_calls_that_are_over_take_no_room(portal: Portal) -> None:
    caller = Caller()

    async def fill() -> int:
        deadlines = Deadlines(lambda _: None)
        for number in range(1000):
            job = caller.job(number, 3600.0)
            deadlines.add(job, asyncio.get_running_loop())
            job.over = True
        return len(deadlines._heap)

    assert portal.run(fill()) < 100


# -- what a call has made ---------------------------------------------------------------------------------------


class _Child:
    def __init__(self) -> None:
        self.cancelled: list[dict[str, Any]] = []

    def cancel(self, **how: Any) -> None:
        self.cancelled.append(how)


def test_a_call_cancels_those_of_its_calls_that_somebody_still_waits_for() -> None:
    running = Running(("session", 1), "Actor", "method")
    children = [_Child() for _ in range(3)]
    for child in children:
        running.adopt(child)
    for _ in range(1000):
        running.adopt(_Child())  # forgotten at once
    assert len(running._children or ()) <= 128
    del child
    running.cancel_children(force=True)
    running.cancel_children()
    assert [child.cancelled for child in children] == [[{"force": True, "recursive": True}]] * 3


def test_what_is_left_of_a_call_is_never_less_than_nothing() -> None:
    assert Running(("session", 1), "Actor", "method").remaining() is None
    assert Running(("session", 1), "Actor", "method", time.monotonic() - 1).remaining() == 0.0
    left = Running(("session", 1), "Actor", "method", time.monotonic() + 100).remaining()
    assert left is not None
    assert 90 < left <= 100


def test_a_stream_on_a_thread_goes_on_as_far_as_it_is_credited() -> None:
    caller = Caller()
    job = caller.job(1)
    sent: list[int] = []

    def produce() -> None:
        for index in range(100):
            job.wait_for_room(index)
            if job.reason is not None:
                return
            job.post_item(index, dumps(index))
            sent.append(index)

    producer = threading.Thread(target=produce)
    producer.start()
    job.credited(20)
    job.credited(10)  # an old one
    deadline = time.monotonic() + 10
    while len(sent) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    job.stop(TimeoutError())
    producer.join(10)
    assert not producer.is_alive()
    assert sent == list(range(20)) == [item.index for item in caller.items]


def test_a_bell_that_was_closed_is_not_rung_in_anothers_file() -> None:
    bell = Bell()
    mouth = bell._mouth
    bell.close()
    ear, again = os.pipe()  # takes the numbers that were given back
    try:
        assert mouth in {ear, again}
        bell.ring()
        os.set_blocking(ear, False)
        with pytest.raises(BlockingIOError):
            os.read(ear, 1)
    finally:
        os.close(ear)
        os.close(again)


def test_a_bell_is_rung_by_some_while_another_closes_it() -> None:
    for _ in range(200):
        bell = Bell()
        ringers = [threading.Thread(target=bell.ring) for _ in range(3)]
        for ringer in ringers:
            ringer.start()
        bell.close()
        for ringer in ringers:
            ringer.join()
