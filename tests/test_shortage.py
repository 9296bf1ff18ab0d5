"""Where the system gives no more processes or threads: a clear error, all goes on, and works again when it does.

The limit counts what a user runs, and root is not held to it. So the program is run by a user whom nobody else is.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from clusters import failure

import actors
from actors.address import host_key
from actors.exceptions import Verdict
from actors.ids import new_id
from actors.parent import orders_line

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds threads to the limit of processes")

PATIENCE = 60.0
USER = 40_000 + os.getpid() % 20_000
NO_THREAD = "this process can begin no further thread (can't start new thread). It goes on with what it has"

PROGRAM = """
    import json, resource, sys, threading, time
    sys.path.insert(0, TESTS)
    import numpy as np
    import psutil
    import actors
    from actors.exceptions import Verdict
    from relay import Detour

    PATIENCE = 60
    LIMITS = resource.getrlimit(resource.RLIMIT_NPROC)

    def end(limits=(1, LIMITS[1]), pid=0):
        resource.prlimit(pid, resource.RLIMIT_NPROC, limits)

    class Ends:
        def ping(self):
            return "here"
        def end(self, *limits):
            end(*limits)
            return sum(thread.name == "actors-light" for thread in threading.enumerate())
        def echo(self, value):
            return value
        def ask(self, other):
            return actors.get(other.ping.remote(), timeout=PATIENCE)
        @actors.method(concurrency_group="aside")
        def aside(self):
            return "aside"

    class Meeting:
        def __init__(self, count):
            self.all = threading.Barrier(count)
        def meet(self):
            self.all.wait(PATIENCE)
            return "met"
        def end(self, *limits):
            end(*limits)

    class Waiting:
        async def ping(self):
            return "here"

    Ends, Meeting, Waiting = map(actors.remote, (Ends, Meeting, Waiting))

    def told(name, work):
        try:
            value = work()
        except Exception as error:
            verdict = getattr(error, "verdict", None)
            value = f"{type(error).__name__}, {verdict.name if verdict else None}: {error}"
        print(json.dumps([name, value]), flush=True)

    def answer(*refs):
        values = [actors.get(ref, timeout=PATIENCE) for ref in refs]
        return values[0] if len(values) == 1 else values

    def plain(node):
        actor, other = Ends.options(node=node.id).remote(), Ends.remote()
        large = np.arange(3 << 20, dtype=np.float64)
        answer(other.ping.remote(), actor.echo.remote(large[:9]), actor.end.remote())
        told("plain", lambda: answer(actor.ping.remote()))
        told("plain asks", lambda: answer(actor.ask.remote(other)))
        with Detour(actor, "door") as detour:  # its node has had no connection with this process
            end(pid=node.pid)
            told("plain by a door", lambda: answer(detour.call("ping")))
            detour.relay.cut()
            told("plain by a door again", lambda: answer(detour.call("ping")))
            end(LIMITS, node.pid)
        end()
        told("plain large", lambda: bool(np.array_equal(answer(actor.echo.remote(large)), large)))
        end(LIMITS)

    def crew():
        crew = Ends.options(max_concurrency=2, concurrency_groups={"aside": 1}).remote()
        answer(crew.end.remote())
        told("crew", lambda: answer(*(crew.ping.remote() for _ in range(4))))
        told("crew without", lambda: answer(crew.aside.remote()))
        answer(crew.end.remote(LIMITS))
        told("crew again", lambda: answer(crew.aside.remote()))
        meeting = Meeting.options(max_concurrency=3).remote(3)
        answer(meeting.end.remote())
        met = [meeting.meet.remote() for _ in range(3)]
        assert actors.wait(met, timeout=1)[0] == []
        for process in psutil.Process().children(recursive=True):
            end(LIMITS, process.pid)
        told("meeting", lambda: answer(*met))

    def light():
        light = Ends.options(isolation="thread").remote()
        borrowed = answer(light.end.remote())
        (host,) = [p for p in psutil.Process().children(recursive=True) if p.rlimit(resource.RLIMIT_NPROC)[0] == 1]
        there = host.num_threads()
        while host.num_threads() > there - borrowed:  # they end when they have had nothing to do for long enough
            time.sleep(0.1)
        told("light", lambda: answer(light.ping.remote()))
        told("light not made", lambda: answer(Ends.options(isolation="thread").remote().ping.remote()))
        end(LIMITS, host.pid)
        told("light again", lambda: answer(light.ping.remote()))
        many = Meeting.options(isolation="thread", max_concurrency=20).remote(20)
        answer(many.end.remote())
        met = [many.meet.remote() for _ in range(20)]
        assert actors.wait(met, timeout=1)[0] == []
        end(LIMITS, host.pid)
        told("light meeting", lambda: answer(*met))
        answer(light.end.remote())
        told("light and async", lambda: answer(Waiting.options(isolation="thread").remote().ping.remote()))
        end(LIMITS, host.pid)
        told("light and async again", lambda: answer(Waiting.options(isolation="thread").remote().ping.remote()))

    def node(node):
        end(pid=node.pid)
        refs = [Ends.options(node=node.id).remote().ping.remote() for _ in range(3)]
        for number, ref in enumerate(refs[1:]):
            told(f"node {number}", lambda: answer(ref))
        told("nodes", lambda: len(actors.nodes()))
        end(LIMITS, node.pid)
        answer(refs[0])  # by the spare worker
        told("node again", lambda: answer(Ends.options(node=node.id).remote().ping.remote()))

    def program(node):
        actor = Ends.options(node=node.id).remote()
        answer(actor.ping.remote())
        end()
        told("program", lambda: answer(actor.ping.remote()))
        told("program's future", lambda: actor.ping.remote().future().result(PATIENCE))
        end(LIMITS)
        told("program's future again", lambda: actor.ping.remote().future().result(PATIENCE))

    with actors.init(local_nodes=2):
        there = actors.nodes()[1]
        print(json.dumps(["name", there.name]))
        plain(there)
        crew()
        light()
        node(there)
        program(there)
    end()
    told("init", actors.init)
    end(LIMITS)
    with actors.init():
        told("init again", lambda: answer(Ends.remote().ping.remote()))
"""


def as_nobody_else(*argv: str) -> list[str]:
    """Returns how a program is run by a user of its own, who may read what root may."""
    if os.geteuid():
        return [*argv]
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed, and root is held to no limit of processes")
    may = "-all,+dac_override"
    return [
        "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", f"--inh-caps={may}", f"--ambient-caps={may}",
        f"--bounding-set={may}", *argv,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def said() -> dict[str, object]:
    """What the program says of each thing that it tries."""
    code = f"TESTS = {str(Path(__file__).parent)!r}\n" + textwrap.dedent(PROGRAM)
    with tempfile.TemporaryDirectory(prefix="short-", dir="/tmp") as home:
        (program := Path(home) / "program.py").write_text(code)
        os.chmod(home, 0o777)
        done = subprocess.run(
            as_nobody_else(sys.executable, str(program)), capture_output=True, text=True, timeout=280, check=False,
            env={**os.environ, "HOME": home, "ACTORS_HOME": f"{home}/actors"},
        )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr)
    return dict(json.loads(line) for line in done.stdout.splitlines() if line.startswith("["))


@pytest.mark.timeout(300)
def test_what_needs_no_thread_goes_on(said: dict[str, object]) -> None:
    for name in ("plain", "plain asks", "plain by a door", "plain by a door again", "program"):
        assert said[name] == "here", name
    assert said["plain large"] is True
    assert said["crew"] == ["here"] * 4
    assert said["nodes"] == 2


def test_a_call_for_which_there_is_no_thread_never_starts(said: dict[str, object]) -> None:
    for name, what in (("crew without", "aside"), ("light", "ping")):
        text = str(said[name])
        assert text.startswith("ActorUnavailableError, NEVER_STARTED: Ends(actor-")
        assert f".{what} on node {str(said['name']).removesuffix('-2')}" in text
        assert f"never started: {NO_THREAD}" in text
        assert "raise what bounds them: `ulimit -u`" in text


def test_a_light_actor_for_which_there_is_no_thread_is_not_made(said: dict[str, object]) -> None:
    for name, what in (("light not made", "Ends"), ("light and async", "Waiting")):
        text = str(said[name])
        assert text.startswith(f"ActorDiedError, NEVER_STARTED: {what}(actor-")
        assert NO_THREAD in text
    assert "it never came to life on node" in str(said["light not made"])
    assert "its methods cannot run on node" in str(said["light and async"])


def test_a_node_says_that_it_can_start_no_process(said: dict[str, object]) -> None:
    for name in ("node 0", "node 1"):
        text = str(said[name])
        assert text.startswith("ActorDiedError, NEVER_STARTED: Ends(actor-")
        assert f"node {said['name']} cannot start a process: Resource temporarily unavailable" in text
        assert "start it with a higher `ulimit -u`" in text


def test_a_program_is_told_what_it_has_no_thread_for(said: dict[str, object]) -> None:
    assert str(said["program's future"]).startswith(f"NoThreadError, None: {NO_THREAD}")
    text = str(said["init"])
    assert text.startswith("ActorsError, None: node ")
    assert "cannot start a process: Resource temporarily unavailable" in text


def test_all_works_again_when_there_is_more(said: dict[str, object]) -> None:
    assert said["crew again"] == "aside"
    assert said["meeting"] == ["met"] * 3
    assert said["light meeting"] == ["met"] * 20
    for name in ("light again", "light and async again", "node again", "program's future again", "init again"):
        assert said[name] == "here", name


def ended(module: str, orders: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Runs a process of a cluster that can begin no thread, to its end."""
    argv = ["prlimit", "--nproc=1", sys.executable, "-P", "-m", module]
    return subprocess.run(
        as_nobody_else(*argv), input=orders_line(orders).decode(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="short-", dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        yield folder


def test_a_worker_without_a_thread_says_so_in_one_line(folder: str) -> None:
    home = {"process": new_id("node"), "host": host_key(), "socket": f"{folder}/node.sock", "node": "n", "doors": []}
    orders = {
        "id": new_id("worker"), "folder": folder, "home": home, "node_name": "here", "loads_ahead": False,
        "identity": None, "path": [],
    }  # fmt: skip
    done = ended("actors.worker", orders)
    assert done.returncode == 1
    assert done.stderr.startswith(NO_THREAD)
    assert len(done.stderr.splitlines()) == 1


def test_a_node_without_a_thread_says_so_to_who_starts_it(folder: str) -> None:
    done = ended(
        "actors.node", {"id": "n", "process": new_id("node"), "name": "here", "folder": folder, "identity": None}
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"].startswith(NO_THREAD)


STARTING = """
    import asyncio, resource, sys
    import psutil
    from actors.node.starting import start
    from actors.shortage import NoThreadError

    async def main():
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (4 << 20), limits[1]))
        try:
            await start(sys.executable)
        except NoThreadError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        (begun,) = psutil.Process().children()
        print("ended by signal", -begun.wait(20))

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio needs no thread there to wait for a process")
def test_a_process_whose_end_nothing_can_wait_for_is_ended() -> None:
    """No address is left for a thread's stack; a process needs none of this one's."""
    argv = [sys.executable, "-c", textwrap.dedent(STARTING)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    first, *_, last = done.stdout.splitlines() or [done.stderr]
    assert first.startswith(NO_THREAD), done
    assert last == f"ended by signal {signal.SIGKILL.value}"


@actors.remote(max_concurrency=1, concurrency_groups={"aside": 1})
class Cramped:
    """Takes itself the memory that a further thread's stack would need."""

    def cramp(self) -> None:
        self.limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (4 << 20), self.limits[1]))

    def relieve(self) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self.limits)

    @actors.method(concurrency_group="aside")
    def aside(self) -> str:
        return "aside"


def test_an_actor_without_memory_for_a_stack_says_so_and_goes_on(cluster: actors.Cluster) -> None:
    cramped = Cramped.remote()
    actors.get(cramped.cramp.remote(), timeout=PATIENCE)
    error = failure(cramped.aside.remote(), PATIENCE)
    assert isinstance(error, actors.exceptions.ActorUnavailableError)
    assert error.verdict is Verdict.NEVER_STARTED
    assert f"never started: {NO_THREAD}" in str(error)
    assert "`ulimit -v`, of which each takes its stack" in str(error)
    actors.get(cramped.relieve.remote(), timeout=PATIENCE)
    assert actors.get(cramped.aside.remote(), timeout=PATIENCE) == "aside"
