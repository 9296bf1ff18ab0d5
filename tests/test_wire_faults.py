"""Real faults on real processes: relays that cut, hold, lose and throttle, processes stopped and killed at each step.

The calls go by a relay to the Unix socket of an actor's process, or to the TLS door of its node.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import eventually, failure
from relay import BACK, THERE, Detour

import actors
from actors.exceptions import ActorDiedError, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 60.0
LANES = ["socket", "door"]


@actors.remote
class Ledger:
    """Takes numbers, which must come as 0, 1, 2, …"""

    def __init__(self) -> None:
        self.next = 0
        self.wrong: list[tuple[int, int]] = []

    def add(self, number: int) -> int:
        if number != self.next:
            self.wrong.append((number, self.next))
        self.next += 1
        return number

    def add_large(self, number: int, data: bytes) -> bytes:
        self.add(number)
        return data

    def state(self) -> tuple[int, list[tuple[int, int]]]:
        return self.next, self.wrong

    def rss(self) -> int:
        gc.collect()
        return psutil.Process().memory_info().rss


@actors.remote
class Steps:
    """Writes into a file what begins and ends, and waits at a second one while that is there."""

    def pid(self) -> int:
        return os.getpid()

    def run(self, folder: Path, name: str) -> str:
        with (folder / "log").open("a") as log:
            log.write(f"began {name}\n")
        while (folder / f"stop-{name}").exists():
            time.sleep(0.005)
        with (folder / "log").open("a") as log:
            log.write(f"ended {name}\n")
        return name


@actors.remote
class Asker:
    """Calls another actor."""

    def pid(self) -> int:
        return os.getpid()

    def ask(self, steps: Any, folder: Path, name: str) -> Any:
        return actors.get(steps.run.remote(folder, name))


@pytest.fixture(scope="module")
def cluster() -> Iterator[actors.Cluster]:
    with actors.init(local_nodes=2) as cluster:
        yield cluster


def there(cls: Any) -> Any:
    """Makes an actor on the other node and waits until it answers."""
    actor = cls.options(node=actors.nodes()[1].id).remote()
    actors.get(getattr(actor, FIRST[cls]).remote(), timeout=30)
    return actor


FIRST: dict[Any, str] = {Ledger: "state", Steps: "pid", Asker: "pid"}


@pytest.fixture(scope="module")
def survivor(cluster: actors.Cluster) -> Any:
    """One that is never killed."""
    return there(Steps)


def acknowledged(detour: Detour) -> bool:
    """Whether the other side has taken in all that was sent."""
    return bool(detour.line.peer is not None and detour.line.peer._conversation.control.session.idle)


# -- cuts -------------------------------------------------------------------------------------------------------


def _count_through_cuts(detour: Detour, count: int, cuts: int, weigh: Callable[[int], None] = lambda _: None) -> None:
    """Sends numbers and checks the answers, while another thread cuts all connections again and again."""
    done = 0
    over = threading.Event()

    def cut() -> None:
        for number in range(cuts):
            while done < count * (number + 1) // (cuts + 1) and not over.is_set():
                time.sleep(0.0005)
            detour.relay.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        refs: deque[Any] = deque()
        for number in range(count):
            refs.append(detour.call("add", number))
            while len(refs) > 500 or (refs and number == count - 1):
                assert actors.get(refs.popleft(), timeout=PATIENCE) == done
                done += 1
                if done % (count // 10) == 0:
                    weigh(done)
    finally:
        over.set()
        cutter.join()


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("count", "cuts"), [(5_000, 20), pytest.param(100_000, 200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_each_number_counts_once_and_in_order_through_cuts(lane: str, count: int, cuts: int) -> None:
    ledger = there(Ledger)
    here = psutil.Process()
    sizes: list[tuple[int, int]] = []
    with Detour(ledger, lane) as detour:

        def weigh(_: int) -> None:
            sizes.append((here.memory_info().rss, actors.get(ledger.rss.remote(), timeout=PATIENCE)))

        began = time.monotonic()
        _count_through_cuts(detour, count, cuts, weigh)
        took = time.monotonic() - began
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (count, [])
    print(f"{lane}: {count} numbers through {cuts} cuts in {took:.1f} s; MiB: {[(a >> 20, b >> 20) for a, b in sizes]}")
    for before, after in zip(sizes[len(sizes) // 3], sizes[-1], strict=True):
        assert after <= before + (16 << 20), sizes


@pytest.mark.parametrize("lane", LANES)
def test_large_values_pass_once_through_cuts(lane: str) -> None:
    ledger = there(Ledger)
    data = os.urandom(3 << 20)
    with Detour(ledger, lane) as detour:
        detour.line.peer or eventually(lambda: detour.line.peer is not None)
        refs = []
        for number in range(6):
            refs.append(detour.call("add_large", number, data))
            passed = detour.relay.passed[BACK]
            eventually(lambda passed=passed: detour.relay.passed[BACK] > passed, PATIENCE)
            detour.relay.cut()
        assert all(actors.get(ref, timeout=PATIENCE) == data for ref in refs)
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (6, [])


@pytest.mark.parametrize("way", [THERE, BACK])
@pytest.mark.parametrize("lane", LANES)
def test_one_direction_that_is_closed(lane: str, way: int) -> None:
    ledger = there(Ledger)
    with Detour(ledger, lane) as detour:
        for number in range(20):
            ref = detour.call("add", number)
            if number % 5 == 2:
                detour.relay.half_close(way)
            assert actors.get(ref, timeout=PATIENCE) == number
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (20, [])


@pytest.mark.parametrize("lane", LANES)
def test_a_slow_network_only_takes_longer(lane: str) -> None:
    ledger = there(Ledger)
    with Detour(ledger, lane) as detour:
        detour.relay.delay(0.02)
        assert [actors.get(detour.call("add", number), timeout=PATIENCE) for number in range(5)] == list(range(5))
        detour.relay.delay(0)
        detour.relay.throttle(4 << 20)
        data = bytes(2 << 20)
        large = detour.call("add_large", 5, data)
        refs = [detour.call("add", number) for number in range(6, 50)]
        assert actors.get(large, timeout=PATIENCE) == data
        assert actors.get(refs, timeout=PATIENCE) == list(range(6, 50))
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (50, [])


# -- cables that are pulled -------------------------------------------------------------------------------------


def test_a_pulled_cable_is_noticed_and_used_again_when_healed() -> None:
    ledger = there(Ledger)
    with Detour(ledger, "door") as detour:
        assert actors.get(detour.call("add", 0), timeout=PATIENCE) == 0
        lane = detour.line.peer._conversation.control  # type: ignore[union-attr]
        detour.relay.lose()
        began = time.monotonic()
        refs = [detour.call("add", number) for number in range(1, 4)]
        eventually(lambda: not lane.linked, 15, "the caller notices")
        noticed = time.monotonic() - began
        assert actors.wait(refs, timeout=1) == ([], refs)
        detour.relay.lose(False)
        healed = time.monotonic()
        assert actors.get(refs, timeout=PATIENCE) == [1, 2, 3]
        again = time.monotonic() - healed
    print(f"noticed after {noticed:.1f} s (goal 5), in use again {again:.1f} s after it was healed (goal 2)")
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (4, [])


def test_one_callers_trouble_does_not_hold_up_another() -> None:
    ledger = there(Ledger)
    asker = there(Asker)
    steps = there(Steps)
    with Detour(ledger, "socket") as detour:
        detour.relay.hold(THERE, BACK)
        data = bytes(3 << 20)
        held = [detour.call("add_large", number, data) for number in range(3)]
        eventually(lambda: detour.relay.held[THERE] > 0, PATIENCE)
        # The same actor and another one of its node, by others that have no trouble.
        assert actors.get(steps.pid.remote(), timeout=PATIENCE) > 0
        assert actors.get(asker.pid.remote(), timeout=PATIENCE) > 0
        assert actors.wait(held, timeout=0.1)[0] == []
        detour.relay.let_go()
        assert [len(value) for value in actors.get(held, timeout=PATIENCE)] == [len(data)] * 3


# -- stopped and killed at each step ----------------------------------------------------------------------------

STEPS = ["before it is sent", "sent", "received", "running", "replied", "acknowledged"]


class Scene:
    """One call, brought to one of its steps."""

    def __init__(self, folder: Path, detour: Detour, step: str) -> None:
        self.folder = folder
        self.detour = detour
        relay = detour.relay
        self.first = None
        if step == "sent":
            relay.hold(THERE)
            self.ref = self.run("it")
            eventually(lambda: relay.held[THERE] > 0, PATIENCE)
        elif step == "received":
            self.latch("first")
            self.first = self.run("first")
            self.ref = self.run("it")
            eventually(lambda: self.count("began first") and acknowledged(detour), PATIENCE)
        elif step == "running":
            self.latch("it")
            self.ref = self.run("it")
            eventually(lambda: self.count("began it"), PATIENCE)
        elif step == "replied":
            relay.hold(BACK)
            self.ref = self.run("it")
            eventually(lambda: self.count("ended it") and relay.held[BACK] > 0, PATIENCE)
        elif step == "acknowledged":
            self.ref = self.run("it")
            assert actors.get(self.ref, timeout=PATIENCE) == "it"

    def run(self, name: str) -> Any:
        return self.detour.call("run", self.folder, name)

    def latch(self, name: str) -> None:
        (self.folder / f"stop-{name}").touch()

    def count(self, line: str) -> int:
        log = self.folder / "log"
        return log.read_text().splitlines().count(line) if log.exists() else 0

    def go_on(self) -> None:
        self.detour.relay.let_go()
        for latch in self.folder.glob("stop-*"):
            latch.unlink()


@contextmanager
def scene(steps: Any, folder: Path, lane: str, step: str) -> Iterator[tuple[Scene, int]]:
    pid = actors.get(steps.pid.remote(), timeout=PATIENCE)
    with Detour(steps, lane) as detour:
        eventually(lambda: detour.line.peer is not None and detour.line.peer._conversation.control.linked, PATIENCE)
        yield Scene(folder, detour, step), pid


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lane", LANES)
def test_an_actor_that_is_killed_at_each_step_of_a_call(lane: str, step: str, tmp_path: Path) -> None:
    with scene(there(Steps), tmp_path, lane, step) as (it, pid):
        os.kill(pid, signal.SIGKILL)
        if step == STEPS[0]:
            eventually(lambda: not psutil.pid_exists(pid))
            it.ref = it.run("it")
        it.go_on()
        try:
            outcome: Any = actors.get(it.ref, timeout=PATIENCE)
        except ActorDiedError as error:
            outcome = error.verdict
        expected = {
            # A door that has not heard of the death yet takes the call: then it has been sent.
            STEPS[0]: {Verdict.NEVER_STARTED, *([Verdict.MAY_HAVE_RUN] if lane == "door" else [])},
            "sent": {Verdict.NEVER_STARTED, Verdict.MAY_HAVE_RUN},
            "received": {Verdict.NEVER_STARTED, Verdict.MAY_HAVE_RUN},
            "running": {Verdict.MAY_HAVE_RUN},
            "replied": {"it", Verdict.MAY_HAVE_RUN},
            "acknowledged": {"it"},
        }
        assert outcome in expected[step]
        assert it.count("began it") == (1 if step in STEPS[3:] else 0)
        assert isinstance(failure(it.run("later"), PATIENCE), ActorDiedError)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("lane", LANES)
def test_an_actor_that_is_stopped_at_each_step_of_a_call_goes_on(
    lane: str, step: str, tmp_path: Path, survivor: Any
) -> None:
    with scene(survivor, tmp_path, lane, step) as (it, pid):
        os.kill(pid, signal.SIGSTOP)
        try:
            if step == STEPS[0]:
                it.ref = it.run("it")
            it.go_on()
            late = it.run("late")
            assert actors.wait([late], timeout=0.2) == ([], [late])
        finally:
            os.kill(pid, signal.SIGCONT)
        assert actors.get([it.ref, late], timeout=PATIENCE) == ["it", "late"]
        assert [it.count(f"began {name}") for name in ("it", "late")] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_node_that_is_stopped_until_its_connections_break(step: str, tmp_path: Path, survivor: Any) -> None:
    with scene(survivor, tmp_path, "door", step) as (it, _):
        lane = it.detour.line.peer._conversation.control  # type: ignore[union-attr]
        node = actors.nodes()[1].pid
        os.kill(node, signal.SIGSTOP)
        try:
            if step == STEPS[0]:
                it.ref = it.run("it")
            it.go_on()
            late = it.run("late")
            eventually(lambda: not lane.linked, 20, "its caller notices")
        finally:
            os.kill(node, signal.SIGCONT)
        assert actors.get([it.ref, late], timeout=PATIENCE) == ["it", "late"]
        assert [it.count(f"began {name}") for name in ("it", "late")] == [1, 1]


@pytest.mark.parametrize("step", ["received", "running"])
def test_a_caller_that_is_killed_at_a_step_of_its_call(step: str, tmp_path: Path) -> None:
    steps, asker = there(Steps), there(Asker)
    pid = actors.get(asker.pid.remote(), timeout=PATIENCE)
    with Detour(steps, "socket") as detour:
        it = Scene(tmp_path, detour, "nothing")
        name = "it" if step == "running" else "first"
        it.latch(name)
        if step == "received":
            first = it.run("first")
            eventually(lambda: it.count("began first"), PATIENCE)
        asked = asker.ask.remote(steps, tmp_path, "it")
        if step == "running":
            eventually(lambda: it.count("began it"), PATIENCE)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(failure(asked, PATIENCE), ActorDiedError)
        it.go_on()
        if step == "received":
            assert actors.get(first, timeout=PATIENCE) == "first"
        assert actors.get(it.run("later"), timeout=PATIENCE) == "later"
        assert it.count("began it") <= 1
