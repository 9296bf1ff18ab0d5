"""The long run: whatever is made, called and ended again and again leaves a cluster as large as it was.

What is counted: processes, file descriptors, threads and memory of the driver and of the nodes, and the tables inside
the driver and inside an actor. The numbers are small in the normal run; ``--run-slow`` makes a thousand actors.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import gc
import os
import time
from collections import deque
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest

import actors
from actors import runtime
from actors.exceptions import ActorDiedError, ActorsError
from actors.messages import Payload, Tensor
from actors.switchboard import Switchboard
from tests.clusters import Counter, eventually, failure

if TYPE_CHECKING:
    from pathlib import Path

    from actors.process import Process
    from actors.transport.acceptor import Visitor

PATIENCE = 30.0
ALIVE = 8  # actors at once
GROWTH = 4 << 20  # bytes that a process may grow by while nothing is kept: what its allocator leaves lying about
SLACK = 4  # descriptors of connections and pipes that are just being opened or closed
TASKS_OF_A_VISITOR = 3


@actors.remote
class Echo:
    """Gives back what it gets, and tells of the tables of its process."""

    def echo(self, value: Any) -> Any:
        return value

    def keep(self, value: Any) -> list[Any]:
        return [actors.put(value)]

    def tables(self) -> dict[str, int]:
        process = runtime.joined()
        assert process is not None
        return sizes(process)


def sizes(process: Process) -> dict[str, int]:
    """Returns how much there is in each table of a process that a long life could fill."""
    gc.collect()
    holdings, keeper = process.holdings, process.keeper
    return {
        "peers": len(process._peers) + len(process._dead),
        "visitors": len(process.acceptor._visitors),
        "holders": len(process._holders),
        "lines": len(keeper.lines),
        "charges": len(keeper.charges),
        "values": len(keeper),
        "holds": len(holdings._ties),
        "pinned": len(holdings._pinned),
        "kept": len(holdings),
        "wanted": len(holdings._wanted),
        "passages": sum(map(len, holdings._passages.values())),
        "watched": len(holdings._watchers),
        "early": len(process.switchboard),
        "waits": len(process.waits._waits),
        "answering": sum(len(target._running) for target in process.targets.values() if hasattr(target, "_running")),
        "tasks": len(asyncio.all_tasks(process.loop)),
    }


@dataclass(frozen=True)
class Measure:
    """How large a process is: its memory without files that it maps, of which it sees more pages as it goes on."""

    files: int
    threads: int
    bytes: int

    @classmethod
    def of(cls, process: psutil.Process) -> Measure:
        if process.pid == os.getpid():
            _give_back()
        memory = process.memory_info()
        return cls(process.num_fds(), process.num_threads(), memory.rss - getattr(memory, "shared", 0))


def _give_back() -> None:
    """Has the C library give back what is free: it keeps a heap for each few threads, as large as that ever was."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


class Scales:
    """Weighs the driver and its nodes."""

    def __init__(self) -> None:
        self.process = runtime.joined()
        assert self.process is not None
        self._driver = psutil.Process()
        self._nodes = [child for child in self._driver.children() if "actors.node" in child.cmdline()]

    def tables(self) -> dict[str, int]:
        assert self.process is not None
        return sizes(self.process)

    def processes(self) -> int:
        return len(self._driver.children(recursive=True))

    def measures(self) -> list[Measure]:
        return [Measure.of(process) for process in (self._driver, *self._nodes)]

    def settled(self, tables: dict[str, int], processes: int) -> list[Measure]:
        """Waits until nothing is left of what was made; returns how large all are then."""
        try:
            eventually(lambda: not self._more(tables) and self.processes() <= processes, PATIENCE)
        except AssertionError:
            raise AssertionError(f"more than before: {self._more(tables)}, {self.processes()} processes") from None
        return self.measures()

    def _more(self, tables: dict[str, int]) -> dict[str, tuple[int, int]]:
        now = self.tables()
        # A node that asks the driver something for the first time stays as a visitor; no more of them come than nodes.
        first = max(0, min(now["visitors"], len(self._nodes)) - tables["visitors"])
        allowed = {"visitors": first, "tasks": first * TASKS_OF_A_VISITOR}
        more = {name: (count, now[name]) for name, count in tables.items()}
        return {name: (was, now) for name, (was, now) in more.items() if now > was + allowed.get(name, 0)}


@pytest.fixture
def scales(cluster: actors.Cluster) -> Scales:
    return Scales()


def _make_and_end(count: int) -> None:
    """Makes actors, calls each once, and lets go of it; a few live at once."""
    alive: deque[Any] = deque(maxlen=ALIVE)
    for number in range(count):
        counter = Counter.remote(number)
        alive.append((counter, counter.add.remote(1)))
        if len(alive) == ALIVE:
            assert actors.get(alive.popleft()[1], timeout=PATIENCE) == number - ALIVE + 2
    while alive:
        actors.get(alive.popleft()[1], timeout=PATIENCE)


def _same(before: list[Measure], after: list[Measure]) -> None:
    for was, now in zip(before, after, strict=True):
        assert now.files <= was.files + SLACK, (was, now)
        assert now.threads <= was.threads + 1, (was, now)
        assert now.bytes <= was.bytes + GROWTH, (was, now)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_actors_that_are_made_called_and_ended_leave_nothing(scales: Scales, count: int) -> None:
    tables, processes = scales.tables(), scales.processes()
    _make_and_end(count // 2)  # connections, pools and caches come to be
    before = scales.settled(tables, processes)
    began = time.monotonic()
    _make_and_end(count - count // 2)
    each = (time.monotonic() - began) / (count - count // 2)
    after = scales.settled(tables, processes)
    print(f"{count} actors, {each * 1e3:.0f} ms each; {before} -> {after}")
    _same(before, after)


def test_many_calls_on_one_actor_leave_nothing(scales: Scales) -> None:
    echo = Echo.remote()
    inside = actors.get(echo.tables.remote(), timeout=PATIENCE)
    tables, processes = scales.tables(), scales.processes()

    def call(count: int) -> None:
        for start in range(0, count, 500):
            refs = [echo.echo.remote(number) for number in range(start, start + 500)]
            assert actors.get(refs, timeout=PATIENCE) == list(range(start, start + 500))

    call(10_000)
    before = scales.settled(tables, processes)
    call(10_000)
    _same(before, scales.settled(tables, processes))
    eventually(lambda: _no_more(actors.get(echo.tables.remote(), timeout=PATIENCE), inside))


def test_references_sent_to_and_fro_leave_nothing(scales: Scales) -> None:
    echo = Echo.remote()
    (own,) = actors.get(echo.keep.remote(0), timeout=PATIENCE)  # from now on they know each other both ways
    actors.get(echo.echo.remote([actors.put(0)]), timeout=PATIENCE)
    # What each tells the other of its holds comes after the answers that made them.
    eventually(lambda: scales.tables()["holders"] >= 1 and scales.tables()["passages"] >= 2, PATIENCE)
    inside = actors.get(echo.tables.remote(), timeout=PATIENCE)
    while not (inside["holders"] and inside["passages"]):
        inside = actors.get(echo.tables.remote(), timeout=PATIENCE)
    tables, processes = scales.tables(), scales.processes()
    for start in range(0, 1000, 100):
        sent = [actors.put(number) for number in range(start, start + 100)]
        back = actors.get([echo.echo.remote([ref]) for ref in sent], timeout=PATIENCE)
        assert [ref for (ref,) in back] == sent
        theirs = actors.get([echo.keep.remote(number) for number in range(100)], timeout=PATIENCE)
        assert actors.get([ref for (ref,) in theirs], timeout=PATIENCE) == list(range(100))
    del sent, back, theirs, own
    scales.settled(tables, processes)
    now: dict[str, int] = {}

    def is_settled() -> bool:
        now.update(actors.get(echo.tables.remote(), timeout=PATIENCE))
        return all(now[name] <= inside[name] for name in inside)

    with contextlib.suppress(AssertionError):
        eventually(is_settled, PATIENCE)
    assert {name: now[name] for name in now if now[name] > inside[name]} == {}


def _no_more(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[name] <= before[name] for name in before)


def test_tasks_leave_nothing(scales: Scales) -> None:
    tables, processes = scales.tables(), scales.processes()

    @actors.remote
    def double(number: int) -> int:
        return 2 * number

    assert actors.get([double.remote(n) for n in range(200)], timeout=PATIENCE) == [2 * n for n in range(200)]
    scales.settled(tables, processes)


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_names_leave_nothing(scales: Scales, count: int) -> None:
    tables, processes = scales.tables(), scales.processes()
    for start in range(0, count, 5):
        named = [Counter.options(name=f"soak-{number}").remote() for number in range(start, start + 5)]
        assert actors.get([counter.add.remote() for counter in named], timeout=PATIENCE) == [1] * 5
        for number, counter in enumerate(named, start):
            actors.kill(actors.get_actor(f"soak-{number}") if number % 2 else counter)
            assert isinstance(failure(counter.add.remote()), ActorDiedError)
    del named, counter
    scales.settled(tables, processes)


def test_an_actor_that_died_is_forgotten_when_its_last_handle_has_gone(scales: Scales) -> None:
    tables, processes = scales.tables(), scales.processes()
    counters = [Counter.options(max_restarts=number % 2).remote() for number in range(4)]
    echo = Echo.remote()
    assert actors.get(echo.echo.remote(counters), timeout=PATIENCE) == counters
    for counter in counters:
        assert actors.get(counter.add.remote(), timeout=PATIENCE) == 1
        actors.kill(counter)
    for _ in range(2):  # and again, when its process is long forgotten
        for counter in counters:
            error = failure(counter.add.remote())
            assert isinstance(error, ActorDiedError)
            assert "it was killed by actors.kill" in str(error)
        assert scales.tables()["charges"] == len(counters) + 1 + tables["charges"]
    del counters, counter, echo, error  # whose traceback has seen a reference
    scales.settled(tables, processes)


def test_a_process_that_ended_is_asked_for_anew_and_still_gone(cluster: actors.Cluster) -> None:
    counter = Counter.remote()
    actors.get(counter.add.remote(), timeout=PATIENCE)
    process = cluster.process
    address = process.keeper.charges[next(iter(process.keeper.charges))]._address  # type: ignore[attr-defined]
    actors.kill(counter)
    assert isinstance(failure(counter.add.remote()), ActorDiedError)
    del counter
    eventually(lambda: gc.collect() >= 0 and address.process not in process._dead)
    with pytest.raises(ActorsError, match=r"is gone: it was killed by actors\.kill"):
        process.portal.run(process.ask(address, "keeper", "holds", "anything"))
    eventually(lambda: address.process not in process._peers)


def test_an_actor_that_nothing_needs_any_more_is_not_made(scales: Scales, tmp_path: Path) -> None:
    tables, processes = scales.tables(), scales.processes()
    process = scales.process
    assert process is not None

    @actors.remote(resources={"nowhere": 1})
    class Leaves:
        def __init__(self) -> None:
            (tmp_path / "made").touch()

        def wave(self) -> None: ...

    def waiting() -> int:
        return len(process.portal.run(process.ask_home("pending")))

    leaves = Leaves.remote()
    group = Leaves.group(3)
    eventually(lambda: waiting() == 4)
    first = group[0]
    del group
    call = leaves.wave.remote()
    del leaves
    gc.collect()
    eventually(lambda: waiting() == 4)  # one has a call to answer, and one of the group may be called yet
    del first
    eventually(lambda: waiting() == 1)
    actors.cancel(call)
    assert isinstance(failure(call), actors.exceptions.TaskCancelledError)
    del call
    eventually(lambda: waiting() == 0)
    scales.settled(tables, processes)
    assert not (tmp_path / "made").exists()


class Members:
    """A group that takes what comes for it."""

    group = "group-1"
    anywhere = False

    def __init__(self) -> None:
        self.taken: list[Tensor] = []

    async def open(self) -> None: ...

    def take(self, message: Tensor, _: object) -> None:
        self.taken.append(message)


def test_a_value_waits_for_its_group_no_longer_than_its_sender_lives() -> None:
    switchboard, members = Switchboard(), Members()
    early = [Tensor(group, rank, "tag", Payload(b"")) for group in ("group-1", "group-2") for rank in range(2)]
    for message in early:
        switchboard.arrived(message, cast("Visitor", SimpleNamespace(process=f"worker-{message.source}")))
    switchboard.gone("worker-0")
    assert len(switchboard) == 2
    asyncio.run(switchboard.add(members))
    assert members.taken == [early[1]]
    switchboard.gone("worker-1")
    assert len(switchboard) == 0


@actors.remote
class Teller:
    """Calls somebody, does not wait for it, and is gone."""

    def tell(self, notes: Any, count: int, size: int) -> None:
        for number in range(count):
            notes.take.remote(number, b"x" * size)

    def tell_at_exit(self, notes: Any, count: int, size: int) -> None:
        atexit.register(self.tell, notes, count, size)

    def tell_and_go(self, notes: Any, count: int, size: int) -> None:
        self.tell(notes, count, size)
        actors.exit_actor()


@actors.remote
class Notes:
    """Takes notes, once it may."""

    def __init__(self) -> None:
        self._taken: list[int] = []

    def take(self, number: int, _: bytes) -> None:
        self._taken.append(number)

    def taken(self) -> list[int]:
        return self._taken


@pytest.mark.parametrize("size", [1, 2 << 20])
def test_what_an_actor_called_before_it_ended_is_still_done(cluster: actors.Cluster, size: int) -> None:
    notes = Notes.remote()
    count = 200 if size == 1 else 8
    assert isinstance(failure(Teller.remote().tell_and_go.remote(notes, count, size), PATIENCE), ActorDiedError)
    eventually(lambda: _has_taken(notes, list(range(count))), PATIENCE)
    for rounds, method in enumerate(["tell", "tell_at_exit"], 2):
        tell = getattr(Teller.remote(), method)
        assert actors.get(tell.remote(notes, count, size), timeout=PATIENCE) is None
        del tell  # its last handle
        wanted = rounds * list(range(count))
        eventually(partial(_has_taken, notes, wanted), PATIENCE)


def _has_taken(notes: Any, wanted: list[int]) -> bool:
    return bool(actors.get(notes.taken.remote(), timeout=PATIENCE) == wanted)
