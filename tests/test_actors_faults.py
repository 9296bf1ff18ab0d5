"""Actors and nodes that die, are killed or fall silent: every call gets one answer, soon, that says what happened."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import time

import numpy as np
import psutil
import pytest
from clusters import SOON, Counter, Latch, eventually, failure, is_gone, succeed

import actors
from actors.exceptions import ActorDiedError, ActorError, NodeDiedError, PlacementError, TaskError, Verdict

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 30.0


@actors.remote
class Victim:
    """Ends in every way a process can."""

    def pid(self) -> int:
        return os.getpid()

    def end(self, how: str) -> None:
        if how == "SystemExit":
            sys.exit(3)
        if how == "SystemExit with words":
            sys.exit("no more")
        if how == "_exit":
            os._exit(7)
        if how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        if how == "segfault":
            ctypes.string_at(0)
        if how == "abort":
            os.abort()

    def stream(self, how: str) -> object:
        yield 1
        yield 2
        self.end(how)
        yield 3

    def last_words(self) -> None:
        print("the last words", flush=True)
        os._exit(5)

    def ask(self, other: actors.ActorHandle) -> object:
        return actors.get(other.add.remote(), timeout=PATIENCE)

    def wait_for(self, other: actors.ActorHandle) -> object:
        return actors.get(other.wait.remote())

    def kill(self, other: actors.ActorHandle) -> None:
        actors.kill(other)

    def take(self, array: np.ndarray) -> int:
        return array.size


ENDS = {
    "SystemExit": "3",
    "SystemExit with words": "no more",
    "_exit": "7",
    "SIGKILL": "SIGKILL",
    "SIGTERM": "SIGTERM",
    "segfault": "SIGSEGV",
    "abort": "SIGABRT",
}


def get(refs: object, timeout: float = PATIENCE) -> object:
    return actors.get(refs, timeout=timeout)


def pid_of(actor: actors.ActorHandle) -> int:
    return get(actor.pid.remote())


@pytest.mark.parametrize("how", ENDS)
def test_an_actor_that_ends_in_a_call_answers_it_and_all_behind_it(how: str) -> None:
    victim, beside = Victim.remote(), Counter.remote()
    pid = pid_of(victim)
    get(beside.add.remote())
    begun = time.monotonic()
    first = victim.end.remote(how)
    behind = [victim.pid.remote() for _ in range(3)]
    errors = [failure(ref) for ref in (first, *behind)]
    assert time.monotonic() - begun < SOON
    assert all(isinstance(error, ActorDiedError) for error in errors), errors
    assert not any(isinstance(error, NodeDiedError) for error in errors)
    assert ENDS[how] in str(errors[0])
    assert all(word in str(errors[0]) for word in ("Victim", "end"))
    later = failure(victim.pid.remote())
    assert isinstance(later, ActorDiedError)
    assert later.verdict is Verdict.NEVER_STARTED
    assert ENDS[how] in str(later)
    eventually(lambda: is_gone(pid), what="its process is gone and was waited for")
    assert get(beside.add.remote()) == 2


def test_the_error_shows_what_the_actor_printed_last() -> None:
    error = failure(Victim.remote().last_words.remote())
    assert isinstance(error, ActorDiedError)
    assert "the last words" in str(error)


@pytest.mark.parametrize("how", ["SystemExit", "SIGKILL"])
def test_a_stream_ends_with_its_actors_death(how: str) -> None:
    values = list(Victim.remote().stream.remote(how))
    assert isinstance(failure(values[-1]), ActorDiedError)
    assert [get(value) for value in values[:-1]] in ([1, 2], [1], [])


def test_an_actor_killed_from_outside_while_it_waits() -> None:
    victim, latch = Victim.remote(), Latch.remote()
    pid = pid_of(victim)
    ref = victim.wait_for.remote(latch)
    eventually(lambda: get(latch.waiting.remote()) == 1)
    os.kill(pid, signal.SIGKILL)
    error = failure(ref)
    assert isinstance(error, ActorDiedError)
    assert error.verdict is Verdict.MAY_HAVE_RUN
    assert "SIGKILL" in str(error)
    assert get(latch.waiting.remote()) == 1


def test_an_idle_actors_death_is_known_to_the_next_call() -> None:
    victim = Victim.remote()
    pid = pid_of(victim)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: is_gone(pid))
    assert isinstance(failure(victim.pid.remote()), ActorDiedError)


def test_death_is_told_by_every_way_of_waiting() -> None:
    async def awaited() -> None:
        await Victim.remote().end.remote("_exit")

    with pytest.raises(ActorDiedError):
        asyncio.run(awaited())
    with pytest.raises(ActorDiedError):
        Victim.remote().end.remote("_exit").future().result(timeout=SOON)
    ref = Victim.remote().end.remote("_exit")
    assert actors.wait([ref], timeout=SOON) == ([ref], [])


def test_an_actor_is_told_of_anothers_death() -> None:
    asker, counter = Victim.remote(), Counter.remote()
    assert get(asker.ask.remote(counter)) == 1
    actors.kill(counter)
    error = failure(asker.ask.remote(counter))
    assert isinstance(error, ActorDiedError)
    assert isinstance(error, TaskError)
    assert get(asker.ask.remote(Counter.remote())) == 1


def test_a_dead_actors_handle_in_an_argument() -> None:
    counter = Counter.remote()
    get(counter.add.remote())
    actors.kill(counter)
    assert isinstance(failure(Victim.remote().ask.remote(counter)), ActorDiedError)


def test_a_call_with_a_large_argument_to_an_actor_that_dies() -> None:
    victim = Victim.remote()
    refs = [victim.end.remote("_exit"), *(victim.take.remote(np.zeros(2**20)) for _ in range(4))]
    assert all(isinstance(failure(ref), ActorDiedError) for ref in refs)


def test_many_calls_in_flight_all_get_their_answer() -> None:
    counter = Counter.remote()
    pid = get(counter.pid.remote())
    refs = [counter.add.remote() for _ in range(5000)]
    os.kill(pid, signal.SIGKILL)
    ready, waiting = actors.wait(refs, num_returns=len(refs), timeout=10)
    assert waiting == []
    answers = [_answer(ref) for ref in ready]
    done = [answer for answer in answers if isinstance(answer, int)]
    assert done == list(range(1, len(done) + 1))
    assert all(isinstance(answer, ActorDiedError) for answer in answers[len(done) :])


def _answer(ref: actors.ObjectRef) -> object:
    try:
        return actors.get(ref, timeout=0)
    except ActorDiedError as error:
        return error


# -- kill -------------------------------------------------------------------------------------------------------


def test_kill_ends_an_actor_its_open_calls_and_its_process() -> None:
    latch = Latch.remote()
    ref = latch.wait.remote()
    eventually(lambda: get(latch.waiting.remote()) == 1)
    begun = time.monotonic()
    actors.kill(latch)
    for call in (ref, latch.waiting.remote()):
        error = failure(call)
        assert isinstance(error, ActorDiedError)
        assert "kill" in str(error)
    assert time.monotonic() - begun < SOON
    actors.kill(latch)


def test_kill_right_after_remote() -> None:
    counter = Counter.remote()
    actors.kill(counter)
    assert isinstance(failure(counter.add.remote()), ActorDiedError)


def test_an_actor_kills_another_and_even_itself() -> None:
    victim, counter = Victim.remote(), Counter.remote()
    get(victim.kill.remote(counter))
    assert isinstance(failure(counter.add.remote()), ActorDiedError)
    assert isinstance(failure(victim.kill.remote(victim)), ActorDiedError)


def test_killing_a_dead_actor_is_no_error() -> None:
    victim = Victim.remote()
    failure(victim.end.remote("_exit"))
    actors.kill(victim)


# -- silence ----------------------------------------------------------------------------------------------------


def test_a_stopped_actor_is_not_dead() -> None:
    counter = Counter.remote()
    pid = get(counter.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        refs = [counter.add.remote() for _ in range(3)]
        assert actors.wait(refs, timeout=5.5) == ([], refs)
        assert actors.nodes()[0].alive
    finally:
        os.kill(pid, signal.SIGCONT)
    assert get(refs) == [1, 2, 3]


def test_an_actor_busy_with_the_gil_held_is_not_dead() -> None:
    @actors.remote
    class Busy:
        def hold(self) -> int:
            return sum(range(60_000_000))  # one C call: no other thread of the process runs meanwhile

        def ping(self) -> str:
            return "here"

    busy = Busy.remote()
    refs = [busy.hold.remote(), busy.ping.remote()]
    assert get(refs, 60) == [sum(range(60_000_000)), "here"]


# -- nodes ------------------------------------------------------------------------------------------------------

NODE_DIES = """
    import os, signal, time
    import psutil
    import actors
    from actors.exceptions import *

    @actors.remote
    class Counter:
        def __init__(self):
            self.count = 0
        def add(self):
            self.count += 1
            return self.count
        def pid(self):
            return os.getpid()
        def sleep(self):
            time.sleep(600)
        def ask(self, other):
            return actors.get(other.add.remote())

    def failure(ref):
        begun = time.monotonic()
        try:
            value = actors.get(ref, timeout=10)
        except Exception as error:
            assert time.monotonic() - begun < 5, "it took too long"
            return error
        raise AssertionError(f"no error: {value!r}")

    actors.init(local_nodes=3)
    nodes = actors.nodes()
    doomed = nodes[WHICH]
    others = [node for node in nodes if node.id != doomed.id]
    lost = Counter.options(node=doomed.name, name="lost").remote()
    kept = [Counter.options(node=node.name).remote() for node in others]
    worker = actors.get(lost.pid.remote())
    actors.get([actor.add.remote() for actor in kept])
    actors.get(kept[0].ask.remote(lost))
    open_call = lost.sleep.remote()
    os.kill(doomed.pid, signal.SIGKILL)
    errors = [failure(open_call), failure(lost.add.remote()), failure(kept[0].ask.remote(lost))]
    assert all(isinstance(error, NodeDiedError) for error in errors), errors
    print("told")
    assert actors.get([actor.add.remote() for actor in kept], timeout=5) == [2, 2]
    assert actors.get(kept[0].ask.remote(kept[1]), timeout=5) == 3
    print("others live")
    deadline = time.monotonic() + 5
    while {node.name: node.alive for node in actors.nodes()} != {node.name: node is not doomed for node in nodes}:
        assert time.monotonic() < deadline, actors.nodes()
        time.sleep(0.05)
    print("shown")
    for refused in (lambda: actors.get(Counter.options(node=doomed.name).remote().add.remote(), timeout=10),
                    lambda: Counter.options(node=doomed.name, name="new").remote()):
        try:
            refused()
        except (PlacementError, ActorDiedError) as error:
            assert all(node.name in str(error) for node in nodes), str(error)
        else:
            raise AssertionError("placed on a dead node")
    assert actors.get([Counter.remote().add.remote() for _ in range(3)], timeout=10) == [1, 1, 1]
    again = Counter.options(name="lost").remote()
    assert actors.get(again.add.remote(), timeout=10) == 1
    print("new ones come")
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker):
        assert time.monotonic() < deadline, "the worker outlived its node"
        time.sleep(0.05)
    print("no orphan")
    assert all(f"node {doomed.name}" in str(error) for error in errors), errors
    print("named")
"""


@pytest.mark.parametrize("which", [2, pytest.param(0, marks=pytest.mark.slow)], ids=["another", "the driver's own"])
def test_a_node_that_dies_is_told_shown_and_survived(which: int) -> None:
    printed = succeed(NODE_DIES.replace("WHICH", str(which)))
    assert printed == ["told", "others live", "shown", "new ones come", "no orphan", "named"]


def test_a_stopped_node_is_not_dead() -> None:
    node = actors.nodes()[-1]
    counter = Counter.options(node=node.name).remote()
    get(counter.add.remote())
    os.kill(node.pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert get(counter.add.remote()) == 2
        assert time.monotonic() - begun < SOON
        assert get(Counter.options(node=actors.nodes()[0].name).remote().add.remote()) == 1
    finally:
        os.kill(node.pid, signal.SIGCONT)
    assert get(Counter.options(node=node.name).remote().add.remote()) == 1
    assert all(node.alive for node in actors.nodes())


def test_what_ended_was_waited_for() -> None:
    def zombies() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if child.is_running() and child.status() == psutil.STATUS_ZOMBIE]

    eventually(lambda: not zombies(), what="a child is waited for")  # one may have ended just now


def test_errors_are_of_one_tree() -> None:
    assert issubclass(NodeDiedError, ActorDiedError)
    assert issubclass(ActorDiedError, ActorError)
    assert issubclass(PlacementError, actors.exceptions.ActorsError)
