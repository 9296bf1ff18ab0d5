"""Who takes part in a call is stopped or killed at each of its steps: the actor, its node, and the caller.

A relay before the actor's socket, or before its node's door, holds what is to be held; a method waits at a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import eventually, failure, slow
from devices import Device
from relay import BACK, THERE, Detour, Relay, relay_to

import actors
from actors.exceptions import ActorDiedError, ActorError, Verdict
from actors.home import arena_dir

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

PATIENCE = 60.0
LANES = ["socket", "door"]
STEPS = ["before it is sent", "sent", "received", "running", "replied", "acknowledged"]
LATER_STEPS = STEPS[3:]  # the method has begun


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

    def large(self, size: int) -> bytes:
        return bytes(size)


def others(step: str) -> list[str]:
    """All steps but one."""
    return [one for one in STEPS if one != step]


class Folder:
    """Where actors write down what they run, and wait."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def latch(self, name: str) -> None:
        """The call of that name is to wait."""
        (self.path / f"stop-{name}").touch()

    def go_on(self) -> None:
        """All calls may end."""
        for latch in self.path.glob("stop-*"):
            latch.unlink()

    def count(self, line: str) -> int:
        log = self.path / "log"
        return log.read_text().splitlines().count(line) if log.exists() else 0


def outcome(ref: Any) -> Any:
    """What a call ended with: its value, or the verdict on it."""
    try:
        return actors.get(ref, timeout=PATIENCE)
    except ActorError as error:
        return error.verdict


def agrees(told: Any, folder: Folder) -> bool:
    """Whether what a caller was told of `it` is what has happened."""
    began, ended = folder.count("began it"), folder.count("ended it")
    possible = {
        "it": began == ended == 1,
        Verdict.NEVER_STARTED: began == 0,
        Verdict.MAY_HAVE_RUN: began <= 1,
    }
    return possible[told]


# -- the actor and its node ---------------------------------------------------------------------------------------


class Scene(Folder):
    """One call of this process, brought to one of its steps."""

    def __init__(self, path: Path, detour: Detour, step: str) -> None:
        super().__init__(path)
        self._detour, self._step = detour, step
        self._relay = relay = detour.relay
        if step == "sent":
            relay.hold(THERE)
            self.ref = self.run("it")
            eventually(lambda: relay.held[THERE] > 0, PATIENCE)
        elif step == "received":
            self.latch("first")
            self.first = self.run("first")
            self.ref = self.run("it")
            eventually(lambda: self.count("began first") and self.session.idle, PATIENCE)
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
            eventually(lambda: self.lane._ack_sent == self.session.received, PATIENCE)

    @property
    def lane(self) -> Any:
        return self._detour.line.peer._conversation.control  # type: ignore[union-attr]

    @property
    def session(self) -> Any:
        return self.lane.session

    def run(self, name: str) -> Any:
        return self._detour.call("run", self.path, name)

    def go_on(self) -> None:
        """Lets the call go on, which is made now where it was not yet."""
        if self._step == STEPS[0]:
            self.ref = self.run("it")
        self._relay.let_go()
        super().go_on()


def there(node: int = 1) -> Any:
    """Makes an actor on another node and waits until it answers."""
    steps = Steps.options(node=actors.nodes()[node].id).remote()
    actors.get(steps.pid.remote(), timeout=30)
    return steps


@contextlib.contextmanager
def scene(steps: Any, folder: Path, lane: str, step: str) -> Iterator[tuple[Scene, int]]:
    pid = actors.get(steps.pid.remote(), timeout=PATIENCE)
    with Detour(steps, lane) as detour:
        eventually(lambda: detour.line.peer is not None and detour.line.peer._conversation.control.linked, PATIENCE)
        yield Scene(folder, detour, step), pid


@pytest.fixture(scope="class")
def two_nodes() -> Iterator[None]:
    with actors.init(local_nodes=2):
        yield


@pytest.fixture(scope="class")
def survivor(two_nodes: None) -> Any:
    """One that is never killed."""
    return there()


@pytest.mark.usefixtures("two_nodes")
class TestTheActor:
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("lane", LANES)
    def test_is_killed(self, lane: str, step: str, tmp_path: Path) -> None:
        with scene(there(), tmp_path, lane, step) as (it, pid):
            os.kill(pid, signal.SIGKILL)
            if step == STEPS[0]:
                eventually(lambda: not psutil.pid_exists(pid))
            it.go_on()
            told = outcome(it.ref)
            expected = {
                # A door that has not heard of the death yet takes the call: then it has been sent.
                STEPS[0]: {Verdict.NEVER_STARTED, *([Verdict.MAY_HAVE_RUN] if lane == "door" else [])},
                "sent": {Verdict.NEVER_STARTED, Verdict.MAY_HAVE_RUN},
                "received": {Verdict.NEVER_STARTED, Verdict.MAY_HAVE_RUN},
                "running": {Verdict.MAY_HAVE_RUN},
                "replied": {"it", Verdict.MAY_HAVE_RUN},
                "acknowledged": {"it"},
            }
            assert told in expected[step]
            assert it.count("began it") == (step in LATER_STEPS)
            assert isinstance(failure(it.run("later"), PATIENCE), ActorDiedError)

    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("lane", LANES)
    def test_is_stopped_and_goes_on(self, lane: str, step: str, tmp_path: Path, survivor: Any) -> None:
        with scene(survivor, tmp_path, lane, step) as (it, pid):
            os.kill(pid, signal.SIGSTOP)
            try:
                it.go_on()
                late = it.run("late")
                assert actors.wait([late], timeout=0.2) == ([], [late])
            finally:
                os.kill(pid, signal.SIGCONT)
            assert actors.get([it.ref, late], timeout=PATIENCE) == ["it", "late"]
            assert [it.count(f"began {name}") for name in ("it", "late")] == [1, 1]

    @pytest.mark.slow
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("lane", LANES)
    def test_has_a_node_that_is_stopped(self, lane: str, step: str, tmp_path: Path, survivor: Any) -> None:
        """By the door nothing passes until it goes on; within the host nobody needs it."""
        with scene(survivor, tmp_path, lane, step) as (it, _):
            linked = it.lane
            node = actors.nodes()[1].pid
            os.kill(node, signal.SIGSTOP)
            try:
                it.go_on()
                late = it.run("late")
                if lane == "door":
                    eventually(lambda: not linked.linked, 20, "its caller notices")
                else:
                    assert actors.get([it.ref, late], timeout=PATIENCE) == ["it", "late"]
            finally:
                os.kill(node, signal.SIGCONT)
            assert actors.get([it.ref, late], timeout=PATIENCE) == ["it", "late"]
            assert [it.count(f"began {name}") for name in ("it", "late")] == [1, 1]


class TestTheNode:
    @pytest.mark.parametrize("step", ["running", *slow(*others("running"))])
    @pytest.mark.parametrize("lane", ["socket", *slow("door")])
    def test_is_killed(self, lane: str, step: str, tmp_path: Path) -> None:
        with actors.init(local_nodes=2), scene(there(), tmp_path, lane, step) as (it, pid):
            other = Steps.remote()
            actors.get(other.pid.remote(), timeout=PATIENCE)
            os.kill(actors.nodes()[1].pid, signal.SIGKILL)
            eventually(lambda: not psutil.pid_exists(pid), PATIENCE, "its actor ends with it")
            it.go_on()
            told = outcome(it.ref)
            assert agrees(told, it)
            if step == STEPS[0]:
                assert told is Verdict.NEVER_STARTED
            assert it.count("began it") == (step in LATER_STEPS)
            assert isinstance(failure(it.run("later"), PATIENCE), ActorDiedError)
            assert actors.get(other.pid.remote(), timeout=PATIENCE) > 0


# -- the caller ---------------------------------------------------------------------------------------------------


CALLER = """
    import os, sys, time
    sys.path.insert(0, TESTS)
    import actors
    from actors import runtime
    from pathlib import Path
    from relay import Byway

    def me():
        return os.getpid(), runtime.joined().address.process

    @actors.remote
    class Own:
        def me(self):
            return me()

    def until(condition):
        while not condition():
            time.sleep(0.005)

    with actors.init(log_to_driver=False):
        own = Own.remote()
        print(*actors.get(own.me.remote(), timeout=60), me()[1], flush=True)
        byway = Byway(actors.get_actor("steps"), RELAY)
        lane = lambda: byway.line.peer._conversation.control
        for line in sys.stdin:
            word, *rest = line.split()
            said = "done"
            if word == "connect":
                actors.get(byway.call("pid"), timeout=60)
            elif word == "run":
                ref = byway.call("run", Path(rest[0]), rest[1])
            elif word == "large":
                many = [byway.call("large", int(rest[0])) for _ in range(5)]
            elif word == "heard":
                until(lambda: lane().session.idle and lane()._ack_sent == lane().session.received)
            elif word == "value":
                try:
                    said = actors.get(ref, timeout=60)
                except actors.exceptions.ActorError as error:
                    said = error.verdict.name
            elif word == "sizes":
                said = sum(map(len, actors.get(many, timeout=60)))
            print(said, flush=True)
"""


class Caller:
    """A program of its own that calls by a relay, and has an actor of its own."""

    def __init__(self, device: Device, relay: Relay) -> None:
        setting = f"TESTS, RELAY = {str(Path(__file__).parent)!r}, {relay.address!r}\n"
        self.process: subprocess.Popen[str] = device.program(setting + textwrap.dedent(CALLER))
        own, *processes = self._said().split()
        self.own = int(own)
        self._processes = tuple(processes)  # its own and its actor's

    def tell(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def does(self, *words: object) -> str:
        """Has it do something; returns what it says then."""
        self.tell(*words)
        return self._said()

    def _said(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=30)[1]
        return line.strip()

    def come_to(self, step: str, folder: Folder, relay: Relay) -> None:
        """Brings a call to that step."""
        if step == STEPS[0]:
            relay.hold()  # so that there is no connection yet
            self.does("run", folder.path, "it")
            eventually(lambda: relay.held[THERE] > 0, PATIENCE)
        elif step == "sent":
            relay.hold(THERE)
            self.does("run", folder.path, "it")
            eventually(lambda: relay.held[THERE] > 0, PATIENCE)
        elif step == "received":
            self.does("run", folder.path, "it")  # behind one that waits
            self.does("heard")
            assert folder.count("began it") == 0
        elif step == "running":
            folder.latch("it")
            self.does("run", folder.path, "it")
            eventually(lambda: folder.count("began it"), PATIENCE)
        elif step == "replied":
            relay.hold(BACK)
            self.does("run", folder.path, "it")
            eventually(lambda: folder.count("ended it") and relay.held[BACK] > 0, PATIENCE)
        elif step == "acknowledged":
            self.does("run", folder.path, "it")
            assert self.does("value") == "it"
            self.does("heard")

    def leavings(self, device: Device) -> list[Path]:
        """The sockets, folders and shared memory that are there of it."""
        folders = [*(device.home / "run").iterdir()]
        folders += filter(None, map(arena_dir, folders))
        found = [path for folder in folders for path in folder.rglob("*")]
        return [path for path in found if any(process in path.name for process in self._processes)]

    def end(self) -> None:
        """Lets it end by itself, if it lives."""
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate(timeout=60)


@pytest.fixture(scope="class")
def device() -> Iterator[Device]:
    """A paired one, whose node this program and others use."""
    # Not under TMPDIR: macOS gives a long one, and a socket's path has room for 103 bytes.
    with tempfile.TemporaryDirectory(prefix="steps-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        device, other = (Device(Path(folder) / name) for name in ("one", "other"))
        patch.setenv("ACTORS_HOME", str(device.home))
        device.start()
        try:
            device.admit(other)
            other.run("stop")
            with actors.init():
                yield device
        finally:
            device.does("stop")


@pytest.fixture(scope="class")
def steps(device: Device) -> Any:
    """The one that all call, which outlives them all."""
    steps = Steps.options(name="steps", node=actors.get_runtime_context().get_node_id()).remote()
    actors.get(steps.pid.remote(), timeout=30)
    return steps


@contextlib.contextmanager
def called(
    device: Device, steps: Any, lane: str, step: str, path: Path
) -> Iterator[tuple[Caller, Folder, Relay, list[Any]]]:
    """A caller whose call is at that step, and calls of this process."""
    folder = Folder(path)
    mine: list[Any] = []
    with relay_to(steps, lane) as relay:
        caller = Caller(device, relay)
        try:
            if step != STEPS[0]:
                caller.does("connect")
                caller.does("heard")
            if step == "received":
                folder.latch("first")
                mine.append(steps.run.remote(path, "first"))
                eventually(lambda: folder.count("began first"), PATIENCE)
            caller.come_to(step, folder, relay)
            yield caller, folder, relay, mine
        finally:
            folder.go_on()
            relay.let_go()
            caller.end()


class TestTheCaller:
    @pytest.mark.parametrize("step", ["running", *slow(*others("running"))])
    @pytest.mark.parametrize("lane", ["socket", *slow("door")])
    def test_is_killed(self, device: Device, steps: Any, lane: str, step: str, tmp_path: Path) -> None:
        with called(device, steps, lane, step, tmp_path) as (caller, folder, relay, mine):
            assert caller.leavings(device)
            caller.process.kill()
            caller.process.wait(10)
            mine.append(steps.run.remote(tmp_path, "other"))
            folder.go_on()
            relay.let_go()
            assert actors.get(mine, timeout=PATIENCE) == [*(["first"] if step == "received" else []), "other"]
            eventually(lambda: not psutil.pid_exists(caller.own), PATIENCE, "what it owned ends")
            last = steps.run.remote(tmp_path, "last")  # behind whatever of its calls may have come
            assert actors.get(last, timeout=PATIENCE) == "last"
            began = {STEPS[0]: {0}, "sent": {0, 1}, "received": {0, 1}}.get(step, {1})
            assert folder.count("began it") in began
            assert folder.count("ended it") == folder.count("began it")
            eventually(lambda: not caller.leavings(device), PATIENCE, "nothing is left of it")

    @pytest.mark.slow
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("lane", LANES)
    def test_is_stopped_and_goes_on(self, device: Device, steps: Any, lane: str, step: str, tmp_path: Path) -> None:
        with called(device, steps, lane, step, tmp_path) as (caller, folder, relay, mine):
            caller.process.send_signal(signal.SIGSTOP)
            try:
                mine.append(steps.run.remote(tmp_path, "other"))
                folder.go_on()
                relay.let_go()
                assert actors.get(mine, timeout=PATIENCE)[-1] == "other"
            finally:
                caller.process.send_signal(signal.SIGCONT)
            assert caller.does("value") == "it"
            assert [folder.count(f"{what} it") for what in ("began", "ended")] == [1, 1]
            assert psutil.pid_exists(caller.own)
            caller.end()
            eventually(lambda: not psutil.pid_exists(caller.own), PATIENCE, "what it owned ends with it")

    @pytest.mark.parametrize("lane", ["socket", *slow("door")])
    def test_is_stopped_with_large_answers_under_way_and_others_are_answered(
        self, device: Device, steps: Any, lane: str
    ) -> None:
        size = 8 << 20
        with relay_to(steps, lane) as relay:
            caller = Caller(device, relay)
            try:
                caller.does("connect")
                relay.hold(BACK)
                caller.does("large", size)
                eventually(lambda: relay.held[BACK] > 0, PATIENCE)
                caller.process.send_signal(signal.SIGSTOP)
                try:
                    assert len(actors.get([steps.pid.remote() for _ in range(300)], timeout=PATIENCE)) == 300
                    assert len(actors.get(steps.large.remote(size), timeout=PATIENCE)) == size
                finally:
                    caller.process.send_signal(signal.SIGCONT)
                relay.let_go()
                assert caller.does("sizes") == str(5 * size)
            finally:
                relay.let_go()
                caller.end()
