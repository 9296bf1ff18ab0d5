"""Busy, stopped, asleep or gone: what is told apart, and that nothing starts after its caller was told it is lost."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from clusters import eventually
from relay import Detour

import actors
from actors.exceptions import ActorDiedError, ActorUnavailableError, Verdict
from actors.node import vitals
from actors.node.vitals import STOPPED_LOOKS, Vitals
from actors.transport import standstill
from actors.transport.standstill import STANDSTILL_SECONDS, Standstill

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 90.0


def test_a_standstill_is_counted_once_and_a_pause_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(standstill.time, "clock_gettime", lambda _: now)

    async def work() -> None:
        nonlocal now
        own = Standstill(asyncio.get_running_loop())
        now += STANDSTILL_SECONDS
        assert own.age() == 0
        now += 1
        assert [own.age(), own.age()] == [1, 1]
        now += STANDSTILL_SECONDS + 1
        await asyncio.sleep(0.01)
        assert own.age() == 2
        own.close()

    asyncio.run(work())


def test_a_process_that_is_stopped_is_found_and_given_up_if_it_stays_so() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found: list[int] = []
    gone: list[int] = []
    own = Vitals(lambda: [child.pid], found.append, gone.append)

    def looks(count: int) -> None:
        for _ in range(count):
            own.look()

    try:
        looks(3)
        assert found == []
        os.kill(child.pid, signal.SIGSTOP)
        eventually(lambda: vitals.is_stopped(child.pid))
        looks(STOPPED_LOOKS - 1)
        assert (found, gone) == ([child.pid], [])
        os.kill(child.pid, signal.SIGCONT)
        eventually(lambda: not vitals.is_stopped(child.pid))
        looks(1)
        os.kill(child.pid, signal.SIGSTOP)
        eventually(lambda: vitals.is_stopped(child.pid))
        looks(STOPPED_LOOKS + 3)
        assert (found, gone) == ([child.pid] * 2, [child.pid])
    finally:
        child.kill()
        child.communicate()
    assert not vitals.is_stopped(child.pid)


# -- on real clusters: each of these waits for half a minute -----------------------------------------------------


@actors.remote
class Sleeper:
    """Notes which calls began."""

    def __init__(self) -> None:
        self.begun: list[int] = []

    def note(self, number: int) -> int:
        self.begun.append(number)
        return number

    def all(self) -> list[int]:
        return self.begun

    def hold_the_gil(self, seconds: int) -> str:
        ctypes.PyDLL(None).sleep(seconds)
        return "held"

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def two() -> Iterator[actors.Cluster]:
    with actors.init(local_nodes=2) as cluster:
        yield cluster


def _outcome(ref: Any) -> Any:
    try:
        return actors.get(ref, timeout=PATIENCE)
    except (ActorDiedError, ActorUnavailableError) as error:
        return error.verdict, str(error)


@pytest.mark.slow
def test_who_is_busy_stopped_or_cut_off_for_half_a_minute(two: actors.Cluster) -> None:
    """All at once, since each of them takes so long."""
    here, node = actors.nodes()
    busy, stopped, again = (Sleeper.options(node=here.id, max_restarts=count).remote() for count in (0, 0, 1))
    behind = Sleeper.options(node=node.id).remote()
    everybody = [busy, stopped, again, behind]
    pids = actors.get([actor.pid.remote() for actor in everybody], timeout=PATIENCE)
    held = busy.hold_the_gil.remote(45)
    time.sleep(0.5)
    with Detour(busy, "socket") as newcomer, Detour(behind, "door") as far:
        assert actors.get(far.call("note", 0), timeout=PATIENCE) == 0
        began = time.monotonic()
        for pid in (*pids[1:3], node.pid):
            os.kill(pid, signal.SIGSTOP)
        try:
            patient = newcomer.call("note", 1)  # its connection is accepted, and nobody says hello
            lost = stopped.note.remote(1), again.note.remote(1)
            late = [far.call("note", number) for number in range(1, 6)]
            for ref in lost:
                verdict, words = _outcome(ref)
                assert verdict is Verdict.MAY_HAVE_RUN
                assert "stopped, as by SIGSTOP" in words
            print(f"stopped processes were given up after {time.monotonic() - began:.1f} s")
            assert actors.get(again.note.remote(2), timeout=PATIENCE) == 2  # it was made anew
            outcomes = [_outcome(ref) for ref in late]
            assert {outcome[0] for outcome in outcomes} <= {Verdict.MAY_HAVE_RUN, Verdict.NEVER_STARTED}
            print(f"the calls behind a stopped node failed after {time.monotonic() - began:.1f} s")
        finally:
            os.kill(node.pid, signal.SIGCONT)
        # The node has in its sockets what was sent before it stood still; nothing of that may start now.
        assert actors.get(behind.note.remote(99), timeout=PATIENCE) == 99
        assert actors.get(behind.all.remote(), timeout=PATIENCE) == [0, 99]
        assert actors.get(patient, timeout=PATIENCE) == 1
        assert actors.get(held, timeout=PATIENCE) == "held"
