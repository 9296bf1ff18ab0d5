"""What happens to a call at its actor: groups, returns, deadlines, cancellation, and ends that the actor wants."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Latch, eventually, failure

import actors
from actors import runtime
from actors.demand import Demand
from actors.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError, TaskCancelledError, TaskError
from actors.instance import Ending, Instance
from actors.job import Job, State
from actors.messages import CONSTRUCT, RETIRE, STREAMING, Call, Cancel, Credit, Item, Outcome, Payload, Reply, Terms
from actors.runtime import Incarnation
from actors.sealed import Sealed, Several
from actors.serialize import dumps, dumps_arguments, loads
from actors.spec import ActorSpec, Construction, describe
from actors.transport.portal import Portal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from actors.messages import Message
    from actors.transport.bell import Bell

PATIENCE = 30.0
clustered = pytest.mark.usefixtures("cluster")


# -- concurrency groups -----------------------------------------------------------------------------------------


class Doors:
    """Plain methods that wait until they are let through, one door a group."""

    def __init__(self) -> None:
        self.doors = {name: threading.Event() for name in ("io", "compute", "")}
        self.inside: list[tuple[str, int]] = []
        self.lock = threading.Lock()

    def _pass(self, door: str, number: int) -> str:
        with self.lock:
            self.inside.append((door, number))
        self.doors[door].wait(PATIENCE)
        return threading.current_thread().name

    @actors.method(concurrency_group="io")
    def read(self, number: int) -> str:
        return self._pass("io", number)

    @actors.method(concurrency_group="compute")
    def compute(self, number: int) -> str:
        return self._pass("compute", number)

    @actors.method(concurrency_group="control")
    def seen(self, door: str) -> list[int]:
        with self.lock:
            return [number for at, number in self.inside if at == door]

    @actors.method(concurrency_group="control")
    def open(self, door: str) -> None:
        self.doors[door].set()

    @actors.method(concurrency_group="elsewhere")
    def lost(self) -> None: ...

    def plain(self, number: int) -> str:
        return self._pass("", number)


class AsyncDoors:
    """The same on an event loop."""

    def __init__(self) -> None:
        self.doors = {name: asyncio.Event() for name in ("io", "compute", "")}
        self.inside: list[tuple[str, int]] = []

    async def _pass(self, door: str, number: int) -> str:
        self.inside.append((door, number))
        await self.doors[door].wait()
        return ""

    @actors.method(concurrency_group="io")
    async def read(self, number: int) -> str:
        return await self._pass("io", number)

    @actors.method(concurrency_group="compute")
    async def compute(self, number: int) -> str:
        return await self._pass("compute", number)

    @actors.method(concurrency_group="control")
    def seen(self, door: str) -> list[int]:
        return [number for at, number in self.inside if at == door]

    @actors.method(concurrency_group="control")
    async def open(self, door: str) -> None:
        self.doors[door].set()

    @actors.method(concurrency_group="elsewhere")
    async def lost(self) -> None: ...

    async def plain(self, number: int) -> str:
        return await self._pass("", number)


@clustered
@pytest.mark.parametrize("cls", [Doors, AsyncDoors])
def test_each_group_has_its_own_number_of_calls_at_once(cls: type) -> None:
    groups = {"io": 2, "compute": 1, "control": 1}
    doors = actors.remote(concurrency_groups=groups, max_concurrency=1)(cls).remote()
    reads = [doors.read.remote(number) for number in range(5)]
    computed = [doors.compute.remote(number) for number in range(3)]
    plain = [doors.plain.remote(number) for number in range(3)]

    def seen(door: str) -> list[int]:
        return actors.get(doors.seen.remote(door), timeout=PATIENCE)

    eventually(lambda: [len(seen(door)) for door in ("io", "compute", "")] == [2, 1, 1])
    moved = [doors.plain.options(concurrency_group="io").remote(9)]  # waits for its turn among those
    assert [sorted(seen("io")), seen("compute"), seen("")] == [[0, 1], [0], [0]]
    actors.get(doors.open.remote("compute"), timeout=PATIENCE)
    actors.get(computed, timeout=PATIENCE)
    assert seen("compute") == [0, 1, 2]
    assert len(seen("io")) == 2
    for door in ("io", ""):
        actors.get(doors.open.remote(door), timeout=PATIENCE)
    names = actors.get(reads, timeout=PATIENCE)
    actors.get([*plain, *moved], timeout=PATIENCE)
    assert seen("")[:1] == [0]
    assert [number for number in seen("") if number != 9] == [0, 1, 2]
    if cls is Doors:
        assert all("-io" in name for name in names)


@clustered
@pytest.mark.parametrize("cls", [Doors, AsyncDoors])
def test_a_group_that_is_not_there_is_named_with_those_that_are(cls: type) -> None:
    doors = actors.remote(concurrency_groups={"io": 2, "control": 1})(cls).remote()
    error = failure(doors.seen.options(concurrency_group="oi").remote("io"))
    assert isinstance(error, ValueError)
    for part in ("'oi'", "control", "io", "seen"):
        assert part in str(error)
    assert isinstance(failure(doors.lost.remote()), ValueError)
    assert actors.get(doors.seen.remote("io"), timeout=PATIENCE) == []


# -- returns, deadlines and cancellation through the public names -----------------------------------------------


@actors.remote
class Worker:
    """Does what a test wants of a method."""

    def __init__(self, note: str | None = None) -> None:
        self.done: list[object] = []
        if note is not None:
            atexit.register(lambda: Path(note).write_text("over"))

    def do(self, value: object = None) -> object:
        self.done.append(value)
        return value

    def all(self) -> list[object]:
        return self.done

    def block(self, note: str, seconds: float = PATIENCE) -> object:
        Path(note).write_text("in")
        time.sleep(seconds)
        return "out"

    def wait_for(self, latch: actors.ActorHandle, note: str) -> object:
        Path(note).write_text("in")
        return actors.get(latch.wait.remote("through"), timeout=PATIENCE)

    def left(self) -> float | None:
        return runtime.remaining()

    def leave(self) -> None:
        actors.exit_actor()

    def exit(self, code: object) -> None:
        sys.exit(code)  # type: ignore[arg-type]

    def pid(self) -> int:
        return os.getpid()

    def out_of_memory(self) -> None:
        raise MemoryError("no more")


@clustered
def test_a_call_has_what_is_left_of_its_time() -> None:
    worker = Worker.remote()
    assert actors.get(worker.left.remote(), timeout=PATIENCE) is None
    left = actors.get(worker.left.options(timeout=20.0).remote(), timeout=PATIENCE)
    assert 10 < left <= 20


@clustered
def test_a_cancelled_call_that_waits_is_answered_while_another_blocks_the_actor(tmp_path: Path) -> None:
    worker = Worker.remote()
    blocking = worker.block.remote(str(tmp_path / "in"), 3.0)
    eventually((tmp_path / "in").exists)
    waiting = worker.do.remote("never")
    begun = time.monotonic()
    actors.cancel(waiting)
    assert isinstance(failure(waiting), TaskCancelledError)
    assert time.monotonic() - begun < 2.0
    assert actors.get(blocking, timeout=PATIENCE) == "out"
    assert actors.get(worker.all.remote(), timeout=PATIENCE) == []


@clustered
def test_force_ends_a_plain_method_with_its_process(tmp_path: Path) -> None:
    worker = Worker.remote()
    blocking = worker.block.remote(str(tmp_path / "in"))
    eventually((tmp_path / "in").exists)
    waiting = worker.do.remote("never")
    actors.cancel(blocking, force=True)
    assert isinstance(failure(blocking), TaskCancelledError)
    assert isinstance(failure(waiting), ActorDiedError)
    later = failure(worker.do.remote())
    assert isinstance(later, ActorDiedError)
    assert "its method block was cancelled by force" in str(later)


@clustered
def test_force_makes_an_actor_anew_that_may_be(tmp_path: Path) -> None:
    worker = Worker.options(max_restarts=1).remote()
    before = actors.get(worker.pid.remote(), timeout=PATIENCE)
    blocking = worker.block.remote(str(tmp_path / "in"))
    eventually((tmp_path / "in").exists)
    actors.cancel(blocking, force=True)
    assert isinstance(failure(blocking), TaskCancelledError)
    assert eventually(lambda: _answer(worker.pid.remote()), within=PATIENCE) != before


def _answer(ref: actors.ObjectRef[Any]) -> Any:
    try:
        return actors.get(ref, timeout=PATIENCE)
    except ActorDiedError:
        raise
    except actors.exceptions.ActorsError:
        return None


@clustered
def test_a_cancellation_follows_the_calls_that_were_made(tmp_path: Path) -> None:
    latch, worker = Latch.remote(), Worker.remote()
    outer = worker.wait_for.remote(latch, str(tmp_path / "in"))
    eventually(lambda: actors.get(latch.waiting.remote(), timeout=PATIENCE) == 1)
    actors.cancel(outer)  # it blocks in `get`, which is answered by the cancellation of what it waits for
    assert isinstance(failure(outer), TaskCancelledError)
    assert actors.get(worker.all.remote(), timeout=PATIENCE) == []


@clustered
def test_a_cancellation_may_leave_alone_the_calls_that_were_made(tmp_path: Path) -> None:
    latch, worker = Latch.remote(), Worker.remote()
    outer = worker.wait_for.remote(latch, str(tmp_path / "in"))
    eventually(lambda: actors.get(latch.waiting.remote(), timeout=PATIENCE) == 1)
    actors.cancel(outer, recursive=False)
    actors.get(latch.open.remote(), timeout=PATIENCE)
    assert actors.get(worker.all.remote(), timeout=PATIENCE) == []


@clustered
def test_exit_actor_ends_it_for_good_and_runs_its_exit_handlers(tmp_path: Path) -> None:
    note = tmp_path / "note"
    worker = Worker.options(max_restarts=-1).remote(str(note))
    assert actors.get(worker.do.remote(1), timeout=PATIENCE) == 1
    refs = [worker.leave.remote(), worker.do.remote(2)]
    errors = [failure(ref) for ref in refs]
    assert all(isinstance(error, ActorDiedError) for error in errors)
    assert "exit_actor" in str(errors[0])
    later = failure(worker.do.remote(3))
    assert isinstance(later, ActorDiedError)
    assert "exit_actor" in str(later)
    eventually(note.exists)
    assert note.read_text() == "over"


@clustered
def test_an_async_actor_leaves_from_a_task_of_its_own() -> None:
    @actors.remote
    class Leaving:
        async def leave(self) -> str:
            self.task = asyncio.create_task(self._later())
            await asyncio.wait([self.task], timeout=PATIENCE)
            return "stayed"

        async def _later(self) -> None:
            await asyncio.sleep(0)
            actors.exit_actor()

    leaving = Leaving.remote()
    error = failure(leaving.leave.remote())
    assert isinstance(error, ActorDiedError)
    assert "exit_actor" in str(error)


@clustered
def test_an_actor_may_leave_while_it_is_made() -> None:
    @actors.remote(max_restarts=-1)
    class Unwilling:
        def __init__(self) -> None:
            actors.exit_actor()

        def do(self) -> None: ...

    error = failure(Unwilling.remote().do.remote())
    assert isinstance(error, ActorDiedError)
    assert "exit_actor" in str(error)


def test_exit_actor_is_for_actors() -> None:
    with pytest.raises(TypeError, match="and this is none"):
        actors.exit_actor()


@clustered
def test_status_0_is_a_wish() -> None:
    worker = Worker.options(max_restarts=1, max_task_retries=1).remote()
    assert type(failure(worker.exit.remote(0))) is ActorDiedError
    eventually(lambda: isinstance(failure(worker.pid.remote()), ActorDiedError))


@clustered
@pytest.mark.parametrize("status", [3, None, "words"])
def test_any_other_status_is_a_crash(status: object) -> None:
    worker = Worker.options(max_restarts=1).remote()
    before = actors.get(worker.pid.remote(), timeout=PATIENCE)
    assert type(failure(worker.exit.remote(status))) is ActorUnavailableError
    assert actors.get(worker.pid.remote(), timeout=PATIENCE) != before
    last = failure(worker.exit.remote(status))
    assert type(last) is ActorDiedError
    assert f"SystemExit({status!r})" in str(last)


@clustered
def test_memory_that_runs_out_in_a_method_is_an_error_like_any_other() -> None:
    worker = Worker.remote()
    error = failure(worker.out_of_memory.remote())
    assert isinstance(error, MemoryError)
    assert isinstance(error, TaskError)
    assert actors.get(worker.do.remote(1), timeout=PATIENCE) == 1


# -- an instance in this process --------------------------------------------------------------------------------


class Stage:
    """An instance on a thread of its own, and a caller that remembers what it was told."""

    session = "session"

    def __init__(self, cls: type, **construction: Any) -> None:
        self.portal = Portal()
        self.replies: dict[int, Future[Reply]] = {}
        self.items: list[Any] = []
        self.extra: list[Reply] = []
        self.aborted: Future[Ending] = Future()
        self.ended: Future[Ending] = Future()
        self.instance = Instance("actor-1", "here", self._born, self.aborted.set_result)
        spec = ActorSpec("actor-1", "It(actor-1)", cls.__name__, None, "default", "owner", None, None, Demand({}, {}))
        made = Construction(
            dumps(cls), spec, dumps_arguments((), {}), None, describe(cls).is_async, None, **construction
        )
        self.thread = threading.Thread(target=lambda: self.ended.set_result(self.instance.run()))
        self.thread.start()
        self.made = self.call(CONSTRUCT, made)

    def _born(self, construction: Construction) -> Incarnation:
        return Incarnation(construction.spec, None, "here", self.instance.leave)

    def post(self, message: Message) -> None:
        if isinstance(message, Item):
            assert isinstance(message.payload, Payload)
            self.items.append(loads(message.payload))
            return
        assert isinstance(message, Reply)
        future = self.replies[message.number]
        if future.done():
            self.extra.append(message)
        else:
            future.set_result(message)

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Has no link to read."""

    @property
    def thing(self) -> Any:
        """The actor's object."""
        self.value(self.made)
        return self.thread.thing  # type: ignore[attr-defined]

    def call(self, method: str, *args: Any, **terms: Any) -> int:
        number = len(self.replies) + 1
        self.replies[number] = Future()
        call = Call(number, "actor-1", method, dumps_arguments(args, {}), Terms(**terms))
        self.portal.soon(self.instance.called, call, self)
        return number

    def job(self, number: int) -> Job:
        """An open call, once it has come."""
        job: Job = eventually(lambda: self.instance._mailbox.find((self.session, number)))
        return job

    def cancel(self, number: int, **how: bool) -> None:
        self.portal.soon(self.instance.cancelled, self.session, Cancel(number, **how))

    def credit(self, number: int, upto: int) -> None:
        credit = Credit(number, upto)
        self.portal.soon(self.instance.credited, self.session, credit.number, credit.upto)

    def reply(self, number: int) -> Reply:
        return self.replies[number].result(PATIENCE)

    def value(self, number: int) -> Any:
        reply = self.reply(number)
        assert isinstance(reply.payload, Payload)
        return Sealed(reply.outcome, reply.payload).open()

    def fails(self, number: int, kind: type[BaseException], outcome: Outcome) -> str:
        with pytest.raises(kind) as caught:
            self.value(number)
        assert self.reply(number).outcome is outcome
        return str(caught.value)

    def close(self) -> None:
        if self.reply(self.made).outcome is Outcome.VALUE:
            self.thing.opened.set()
        self.portal.soon(self.instance.leave)
        self.ended.result(PATIENCE)
        self.thread.join(PATIENCE)
        assert all(future.done() for future in self.replies.values())
        self.portal.close()
        assert self.extra == []


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    stage = Stage(*request.param) if isinstance(request.param, tuple) else Stage(request.param)
    yield stage
    stage.close()


class Plain:
    """Plain methods."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.closed: list[str] = []
        self.ran: list[object] = []
        threading.current_thread().thing = self  # type: ignore[attr-defined]  # for the test, whose thread it is

    def give(self, value: object) -> object:
        self.ran.append(value)
        return value

    def everything(self) -> list[object]:
        return self.ran

    def endless(self) -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            self.closed.append("endless")

    def wait(self) -> tuple[bool, bool]:
        was = runtime.cancelled()
        self.opened.wait(PATIENCE)
        return was, runtime.cancelled()

    def left(self) -> tuple[float | None, str]:
        running = runtime.running()
        actor = runtime.myself()
        assert running is not None
        assert actor is not None
        return running.remaining(), actor.spec.id


class Async(Plain):
    """The same with a loop."""

    async def wait(self) -> tuple[bool, bool]:  # type: ignore[override]
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            self.closed.append("wait")
        return False, False

    async def endless(self) -> AsyncIterator[int]:  # type: ignore[override]
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            self.closed.append("endless")

    async def give(self, value: object) -> object:
        await asyncio.sleep(0)
        self.ran.append(value)
        return value

    async def stubborn(self) -> str:
        while not self.opened.is_set():
            try:
                await asyncio.sleep(0.02)  # short: its loop may end, and cancel it once more, just before it is let go
            except asyncio.CancelledError:
                self.closed.append("felt")
        return "done"

    def blocks(self) -> str:
        self.opened.wait(PATIENCE)
        return "let through"


both = pytest.mark.parametrize("stage", [Plain, Async], indirect=True)
plain = pytest.mark.parametrize("stage", [Plain], indirect=True)
loops = pytest.mark.parametrize("stage", [Async], indirect=True)


@both
def test_several_values_are_sealed_each_by_itself(stage: Stage) -> None:
    several = stage.value(stage.call("give", [1, "two"], returns=2))
    assert isinstance(several, Several)
    assert [loads(payload) for payload in several.values] == [1, "two"]
    assert [loads(p) for p in stage.value(stage.call("give", {3: 0, 4: 0}, returns=2)).values] == [3, 4]
    assert stage.value(stage.call("give", object, returns=0)) is None


@both
@pytest.mark.parametrize(
    ("value", "got"), [([1], "got 1"), ([1, 2, 3, 4], "got 4"), (5, "one int"), (None, "NoneType")]
)
def test_another_number_of_values_is_an_error_that_counts(stage: Stage, value: object, got: str) -> None:
    kind = ValueError if isinstance(value, tuple | list | str) else TypeError
    text = stage.fails(stage.call("give", value, returns=2), kind, Outcome.RAISED)
    assert "expected 2 returned values" in text
    assert got in text


@both
def test_a_generator_may_give_several_values_and_not_too_many(stage: Stage) -> None:
    text = stage.fails(stage.call("endless", returns=3), ValueError, Outcome.RAISED)
    assert "expected 3 returned values, got" in text
    assert "4" in text.partition("got")[2]
    assert stage.value(stage.call("give", 1)) == 1


@both
def test_whatever_can_be_iterated_can_be_a_stream(stage: Stage) -> None:
    assert stage.value(stage.call("give", [1, 2, 3], returns=STREAMING)) is None
    assert stage.items == [1, 2, 3]
    text = stage.fails(stage.call("give", 7, returns=STREAMING), TypeError, Outcome.RAISED)
    assert "int" in text


@both
def test_a_cancelled_stream_stops_and_its_finally_clauses_run(stage: Stage) -> None:
    number = stage.call("endless", returns=STREAMING)
    stage.credit(number, 40)
    eventually(lambda: len(stage.items) == 40)
    stage.cancel(number)
    stage.fails(number, TaskCancelledError, Outcome.MAY_HAVE_RUN)
    assert len(stage.items) == 40
    assert stage.thing.closed == ["endless"]


@both
def test_a_streams_deadline_stops_it(stage: Stage) -> None:
    number = stage.call("endless", returns=STREAMING, remaining=0.3)
    assert "0.3 s" in stage.fails(number, GetTimeoutError, Outcome.MAY_HAVE_RUN)


@both
def test_a_call_whose_time_is_over_is_not_started(stage: Stage) -> None:
    stage.value(stage.made)
    text = stage.fails(stage.call("give", 1, remaining=0.0), GetTimeoutError, Outcome.NEVER_STARTED)
    assert "had not started" in text
    assert stage.value(stage.call("everything")) == []


@plain
def test_a_deadline_passes_while_a_call_waits(stage: Stage) -> None:
    blocking = stage.call("wait")
    late = stage.call("give", 1, remaining=0.2)
    assert "0.2 s" in stage.fails(late, GetTimeoutError, Outcome.NEVER_STARTED)
    assert not stage.replies[blocking].done()
    stage.thing.opened.set()
    assert stage.value(blocking) == (False, False)
    assert stage.value(stage.call("everything")) == []


@loops
def test_a_deadline_cancels_a_coroutine(stage: Stage) -> None:
    number = stage.call("wait", remaining=0.2)
    assert "0.2 s" in stage.fails(number, GetTimeoutError, Outcome.MAY_HAVE_RUN)
    assert stage.thing.closed == ["wait"]


@plain
def test_a_plain_method_goes_on_after_its_deadline_and_its_answer_is_sent(stage: Stage) -> None:
    class Child:
        cancelled = threading.Event()

        def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
            assert (force, recursive) == (False, True)
            self.cancelled.set()

    child = Child()
    number = stage.call("wait", remaining=0.2)
    stage.job(number).adopt(child)
    assert child.cancelled.wait(PATIENCE)
    stage.thing.opened.set()
    assert stage.value(number) == (False, False)


@both
def test_a_method_knows_its_call(stage: Stage) -> None:
    assert stage.value(stage.call("left")) == (None, "actor-1")
    left, _ = stage.value(stage.call("left", remaining=50.0))
    assert 10 < left <= 50
    assert runtime.running() is None
    assert runtime.remaining() is None
    assert not runtime.cancelled()


@plain
def test_a_plain_method_can_see_that_it_was_cancelled(stage: Stage) -> None:
    number = stage.call("wait")
    eventually(lambda: stage.job(number).state is State.RUNNING)
    stage.cancel(number)
    stage.cancel(number)
    eventually(lambda: stage.job(number).cancelled)
    stage.thing.opened.set()
    stage.fails(number, TaskCancelledError, Outcome.MAY_HAVE_RUN)  # what it saw is thrown away


@plain
def test_a_waiting_call_is_answered_as_soon_as_it_is_cancelled(stage: Stage) -> None:
    blocking, waiting = stage.call("wait"), stage.call("give", 1)
    stage.cancel(waiting, force=True)
    stage.fails(waiting, TaskCancelledError, Outcome.NEVER_STARTED)
    assert not stage.replies[blocking].done()
    stage.thing.opened.set()
    stage.value(blocking)
    assert stage.value(stage.call("everything")) == []


@plain
def test_force_asks_for_the_end_of_the_process(stage: Stage) -> None:
    number = stage.call("wait")
    eventually(lambda: stage.job(number).state is State.RUNNING)
    waiting = stage.call("give", 1)
    stage.cancel(number, force=True)
    assert "while it ran" in stage.fails(number, TaskCancelledError, Outcome.MAY_HAVE_RUN)
    stage.fails(waiting, ActorDiedError, Outcome.ENDED)
    assert stage.aborted.result(PATIENCE) == Ending(1, "its method wait was cancelled by force", False)
    stage.thing.opened.set()


@loops
def test_force_lets_a_coroutine_end_by_itself_and_waits_only_so_long(stage: Stage) -> None:
    number = stage.call("wait")
    eventually(lambda: stage.job(number).awaiting)
    stage.cancel(number, force=True)
    stage.fails(number, TaskCancelledError, Outcome.MAY_HAVE_RUN)
    stubborn = stage.call("stubborn")
    eventually(lambda: stage.job(stubborn).awaiting)
    assert not stage.aborted.done()
    stage.cancel(stubborn, force=True)
    stage.fails(stubborn, TaskCancelledError, Outcome.MAY_HAVE_RUN)
    assert "stubborn" in stage.aborted.result(PATIENCE).epitaph
    assert stage.thing.closed[:2] == ["wait", "felt"]
    stage.thing.opened.set()


@loops
def test_force_ends_a_loop_that_is_blocked(stage: Stage) -> None:
    number = stage.call("blocks")
    eventually(lambda: stage.job(number).state is State.RUNNING)
    stage.cancel(number)  # which alone changes nothing
    stage.cancel(number, force=True)
    stage.fails(number, TaskCancelledError, Outcome.MAY_HAVE_RUN)
    assert stage.aborted.result(PATIENCE).code == 1
    stage.thing.opened.set()


@both
def test_an_actor_retires_when_all_is_answered(stage: Stage) -> None:
    stage.value(stage.made)
    asked = [stage.call("give", number) for number in range(20)]
    blocking = stage.call("wait", remaining=0.5)
    retiring = stage.call(RETIRE)
    late = stage.call("give", "late")
    stage.fails(late, ActorDiedError, Outcome.ENDED)
    stage.thing.opened.set()
    assert [stage.value(number) for number in asked] == list(range(20))
    assert stage.reply(blocking).outcome in {Outcome.VALUE, Outcome.MAY_HAVE_RUN}
    assert stage.value(retiring) is None
    assert stage.ended.result(PATIENCE) == Ending(0, "its last handle is gone", True)
    assert stage.value(stage.call(RETIRE)) is None  # again, and too late


def test_an_actor_can_retire_before_it_is_made() -> None:
    stage = Stage(Plain)
    retiring = stage.call(RETIRE)
    assert stage.value(stage.made) is None
    assert stage.value(retiring) is None
    assert stage.ended.result(PATIENCE).intended
    stage.close()


@both
def test_cancellations_deadlines_and_answers_at_once_give_one_reply_each(stage: Stage) -> None:
    numbers = []
    for number in range(300):
        numbers.append(stage.call("give", number, remaining=0.05 if number % 3 == 0 else None))
        if number % 2:
            stage.cancel(numbers[-1])
    outcomes = [stage.reply(number).outcome for number in numbers]
    assert set(outcomes) <= {Outcome.VALUE, Outcome.NEVER_STARTED, Outcome.MAY_HAVE_RUN}
    ran = stage.value(stage.call("everything"))
    assert ran == sorted(ran)
    refused = {n for n, outcome in enumerate(outcomes) if outcome is Outcome.NEVER_STARTED}
    assert not refused & set(ran)
    assert {n for n, outcome in enumerate(outcomes) if outcome is Outcome.VALUE} <= set(ran)
