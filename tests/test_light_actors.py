"""Light actors: thousands in one process, with the order, the verdicts and the bounds of the others."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Latch, eventually, failure, succeed

import actors
from actors.cluster import current
from actors.exceptions import (
    ActorAlreadyExistsError,
    ActorDiedError,
    ActorUnavailableError,
    GetTimeoutError,
    TaskCancelledError,
    Verdict,
)
from actors.strategy import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.usefixtures("cluster")

PATIENCE = 30.0


@actors.remote(isolation="thread")
class Light:
    """Does what the tests need of a plain one."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.running = 0

    def add(self, amount: int = 1) -> int:
        self.running += 1
        assert self.running == 1
        self.count += amount
        self.running -= 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def context(self) -> tuple[str | None, str | None, str | None]:
        context = actors.get_runtime_context()
        return context.get_actor_id(), context.get_actor_name(), context.node_name

    def wait(self, latch: actors.ActorHandle, value: object = None) -> object:
        return actors.get(latch.wait.remote(value), timeout=PATIENCE)

    def block(self, note: str, release: str) -> str:
        """Waits on its thread for a file; nothing stops it."""
        Path(note).write_text("in")
        while not Path(release).exists():
            time.sleep(0.01)
        Path(note).write_text("out")
        return "through"

    def numbers(self, count: int) -> Iterator[int]:
        yield from range(count)

    def exit(self, code: object) -> None:
        raise SystemExit(code)

    def leave(self) -> None:
        actors.exit_actor()

    def crash(self) -> None:
        os._exit(7)

    def fail(self) -> None:
        raise KeyError("as ever")

    def make(self) -> actors.ActorHandle:
        self.child = Light.remote()
        actors.get(self.child.add.remote())
        return self.child

    def threads(self) -> int:
        return threading.active_count()


@actors.remote(isolation="thread")
class LightAsync:
    """One with async methods."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.notes: list[str] = []

    async def wait(self) -> str:
        try:
            await self.opened.wait()
        except asyncio.CancelledError:
            self.notes.append("cancelled")
            raise
        return actors.get_runtime_context().get_actor_id() or ""

    async def open(self) -> list[str]:
        self.opened.set()
        return self.notes

    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    async def leave_behind(self) -> None:
        async def exit() -> None:
            raise SystemExit(3)

        self.task = asyncio.ensure_future(exit())

    async def thread(self) -> tuple[int, int]:
        return os.getpid(), threading.get_ident()


def _died(ref: actors.ObjectRef[Any], verdict: Verdict, words: str) -> None:
    error = failure(ref, PATIENCE)
    assert isinstance(error, ActorDiedError), error
    assert error.verdict is verdict
    assert words in str(error)


def test_to_make_one_wakes_the_loop_once(monkeypatch: pytest.MonkeyPatch) -> None:
    portal, woken = current().portal, []
    actors.get(Light.remote().add.remote())  # so that its host is there

    def soon(callback: Any, *args: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            woken.append(callback)
        type(portal).soon(portal, callback, *args)

    monkeypatch.setattr(portal, "soon", soon)
    light = Light.remote()
    assert len(woken) == 1
    assert actors.get(light.add.remote(), timeout=PATIENCE) == 1


def test_they_share_a_process_and_are_none_the_less_themselves() -> None:
    lights = [Light.remote(start) for start in range(1000)]
    calls = [light.add.remote(amount) for amount in (1, 2) for light in lights]
    assert actors.get(calls, timeout=PATIENCE) == [*range(1, 1001), *range(3, 1003)]
    assert len(set(actors.get([light.pid.remote() for light in lights[::100]]))) == 1
    contexts = actors.get([light.context.remote() for light in lights], timeout=PATIENCE)
    assert len({id for id, _, _ in contexts}) == 1000
    assert actors.get(lights[0].threads.remote()) < 100
    for light in lights:
        actors.kill(light)
    _died(lights[7].add.remote(), Verdict.NEVER_STARTED, "killed by actors.kill")


@pytest.mark.slow
def test_ten_thousand_of_them() -> None:
    lights = [Light.remote(start) for start in range(10_000)]
    assert actors.get([light.add.remote() for light in lights], timeout=150) == list(range(1, 10_001))
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(actors.kill, lights))


def test_calls_of_one_have_their_order_whoever_blocks(tmp_path: Path) -> None:
    blocked = [Light.remote() for _ in range(40)]
    stuck = [light.block.remote(str(tmp_path / f"{n}"), str(tmp_path / "go")) for n, light in enumerate(blocked)]
    light = Light.remote()
    assert actors.get([light.add.remote() for _ in range(500)], timeout=PATIENCE) == list(range(1, 501))
    eventually(lambda: len(list(tmp_path.iterdir())) == 40, PATIENCE)
    (tmp_path / "go").write_text("")
    assert set(actors.get(stuck, timeout=PATIENCE)) == {"through"}


def test_an_error_is_the_callers_and_a_constructors_ends_the_actor() -> None:
    @actors.remote(isolation="thread")
    class Stillborn:
        def __init__(self) -> None:
            raise ValueError("not today")

        def use(self) -> None: ...

    light = Light.remote()
    assert isinstance(failure(light.fail.remote()), KeyError)
    assert actors.get(light.add.remote()) == 1
    for _ in range(20):
        error = failure(Stillborn.remote().use.remote())
        assert isinstance(error, ActorDiedError)
        assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("how", ["exit", "leave"])
def test_one_that_ends_itself_ends_no_other(how: str) -> None:
    light, other = Light.remote(), Light.remote()
    assert actors.get(other.add.remote()) == 1
    ended = light.exit.remote(3) if how == "exit" else light.leave.remote()
    assert isinstance(failure(ended), ActorDiedError)
    eventually(lambda: isinstance(failure(light.add.remote()), ActorDiedError))
    assert actors.get(other.add.remote()) == 2


def test_a_killed_one_is_dead_at_once_and_its_thread_is_abandoned(tmp_path: Path) -> None:
    light, other = Light.remote(), Light.remote()
    running = light.block.remote(str(tmp_path / "note"), str(tmp_path / "go"))
    waiting = light.add.remote()
    eventually((tmp_path / "note").exists, PATIENCE)
    begun = time.monotonic()
    actors.kill(light)
    _died(running, Verdict.MAY_HAVE_RUN, "may have run")
    _died(waiting, Verdict.NEVER_STARTED, "killed")
    _died(light.add.remote(), Verdict.NEVER_STARTED, "killed")
    assert time.monotonic() - begun < 5
    (tmp_path / "go").write_text("")
    eventually(lambda: (tmp_path / "note").read_text() == "out", PATIENCE)  # nobody could stop it
    assert actors.get(other.add.remote()) == 1


def test_force_ends_the_one_that_does_not_listen(tmp_path: Path) -> None:
    light, other = Light.remote(), Light.remote()
    running = light.block.remote(str(tmp_path / "note"), str(tmp_path / "go"))
    waiting = light.add.remote()
    eventually((tmp_path / "note").exists, PATIENCE)
    actors.cancel(waiting)
    assert isinstance(failure(waiting), TaskCancelledError)
    actors.cancel(running, force=True)
    assert isinstance(failure(running), TaskCancelledError)
    _died(light.add.remote(), Verdict.NEVER_STARTED, "by force")
    (tmp_path / "go").write_text("")
    assert actors.get(other.add.remote()) == 1


def test_several_calls_at_once_where_that_is_asked_for() -> None:
    latch = Latch.remote()
    light = Light.options(max_concurrency=3, concurrency_groups={"aside": 1}).remote()
    waiting = [light.wait.remote(latch, number) for number in range(3)]
    eventually(lambda: actors.get(latch.waiting.remote()) == 3, PATIENCE)
    later = light.add.remote()
    assert actors.get(light.pid.options(concurrency_group="aside").remote(), timeout=PATIENCE)
    assert actors.wait([later], timeout=0.1) == ([], [later])
    actors.get(latch.open.remote())
    assert actors.get([*waiting, later], timeout=PATIENCE) == [0, 1, 2, 1]


def test_those_with_async_methods_share_a_loop() -> None:
    lights = [LightAsync.remote() for _ in range(50)]
    waiting = [light.wait.remote() for light in lights for _ in range(2)]
    assert len(set(actors.get([light.thread.remote() for light in lights], timeout=PATIENCE))) == 1
    actors.cancel(waiting[0])
    assert isinstance(failure(waiting[0]), TaskCancelledError)
    assert actors.get(lights[0].open.remote()) == ["cancelled"]
    actors.kill(lights[1])
    _died(waiting[2], Verdict.MAY_HAVE_RUN, "killed")
    actors.get([light.open.remote() for light in lights[2:]], timeout=PATIENCE)
    assert len(set(actors.get(waiting[4:], timeout=PATIENCE))) == 48


def test_a_task_that_a_method_left_behind_may_end_its_actor_alone() -> None:
    light, other = LightAsync.remote(), LightAsync.remote()
    waiting = other.wait.remote()
    actors.get(light.leave_behind.remote(), timeout=PATIENCE)

    def ended() -> bool:
        try:
            actors.get(light.thread.remote(), timeout=PATIENCE)
        except ActorDiedError:
            return True
        return False

    eventually(ended, PATIENCE)
    actors.get(other.open.remote(), timeout=PATIENCE)
    assert actors.get(waiting, timeout=PATIENCE)


def test_streams_and_deadlines(tmp_path: Path) -> None:
    light, other = Light.remote(), LightAsync.remote()
    assert [actors.get(ref) for ref in light.numbers.remote(100)] == list(range(100))
    assert [actors.get(ref) for ref in other.numbers.remote(100)] == list(range(100))
    running = light.block.remote(str(tmp_path / "note"), str(tmp_path / "go"))
    late = light.add.options(timeout=0.2).remote()
    with pytest.raises(GetTimeoutError, match="within"):
        actors.get(late, timeout=PATIENCE)
    (tmp_path / "go").write_text("")
    assert actors.get([running, light.add.remote()], timeout=PATIENCE) == ["through", 1]


def test_a_name_is_one_actors_and_free_when_it_ends() -> None:
    light = Light.options(name="light").remote(5)
    found = actors.get_actor("light")
    assert actors.get(found.add.remote()) == 6
    assert actors.get(found.context.remote())[1] == "light"
    with pytest.raises(ActorAlreadyExistsError):
        Light.options(name="light").remote()
    assert "light" in actors.list_named_actors()
    actors.kill(found)
    with pytest.raises(ValueError, match="light"):
        actors.get_actor("light")
    again = Light.options(name="light", get_if_exists=True).remote()
    assert actors.get(again.add.remote()) == 1
    assert isinstance(failure(light.add.remote()), ActorDiedError)
    actors.kill(again)


def test_handles_travel_and_find_it_again_after_a_restart() -> None:
    @actors.remote
    class User:
        def __init__(self, light: actors.ActorHandle) -> None:
            self.light = light

        def use(self) -> int:
            return int(actors.get(self.light.add.remote(), timeout=PATIENCE))

    light = Light.options(max_restarts=-1, max_task_retries=-1).remote()
    user = User.remote(light)
    assert actors.get([user.use.remote(), user.use.remote()], timeout=PATIENCE) == [1, 2]
    pid = actors.get(light.pid.remote())
    actors.kill(light, no_restart=False)
    assert actors.get(light.add.remote(), timeout=PATIENCE) == 1
    assert actors.get(user.use.remote(), timeout=PATIENCE) == 2
    assert actors.get(light.pid.remote()) == pid
    os.kill(pid, signal.SIGKILL)
    assert actors.get(light.add.remote(), timeout=PATIENCE) >= 1
    assert actors.get(user.use.remote(), timeout=PATIENCE) >= 2
    assert actors.get(light.pid.remote()) != pid


def test_a_crash_takes_all_of_the_process_with_their_verdicts(tmp_path: Path) -> None:
    lights = [Light.remote() for _ in range(10)]
    phoenix = Light.options(max_restarts=1).remote()
    assert actors.get([light.add.remote() for light in lights], timeout=PATIENCE) == [1] * 10
    assert actors.get(phoenix.add.remote()) == 1
    running = lights[0].block.remote(str(tmp_path / "note"), str(tmp_path / "go"))
    eventually((tmp_path / "note").exists, PATIENCE)
    _died(lights[1].crash.remote(), Verdict.MAY_HAVE_RUN, "exit code 7")
    _died(running, Verdict.MAY_HAVE_RUN, "light actors")
    for light in lights:
        _died(light.add.remote(), Verdict.NEVER_STARTED, "light actors")

    def again() -> int:
        with contextlib.suppress(ActorUnavailableError):
            return int(actors.get(phoenix.add.remote(), timeout=PATIENCE))
        return 0

    assert eventually(again, PATIENCE) == 1
    assert actors.get(Light.remote().add.remote(), timeout=PATIENCE) == 1


def test_what_a_light_actor_has_made_ends_with_it() -> None:
    parent = Light.remote()
    child = actors.get(parent.make.remote(), timeout=PATIENCE)
    assert actors.get(child.add.remote(), timeout=PATIENCE) == 2
    actors.kill(parent)
    _died(child.add.remote(), Verdict.NEVER_STARTED, "kill")


def test_they_go_where_they_are_wanted() -> None:
    nodes = actors.nodes()
    spread = [Light.options(scheduling_strategy="SPREAD").remote() for _ in range(6)]
    assert len({node for _, _, node in actors.get([light.context.remote() for light in spread])}) == len(nodes)
    assert len(set(actors.get([light.pid.remote() for light in spread]))) == len(nodes)
    for node in nodes:
        named = Light.options(node=node.name).remote()
        bound = Light.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id)).remote()
        assert actors.get(named.context.remote())[2] == node.name
        assert actors.get(named.pid.remote()) == actors.get(bound.pid.remote())
    actors.kill(spread[0])


def test_what_cannot_be_is_refused() -> None:
    for options in ({"num_gpus": 1}, {"num_cpus": 2}, {"memory": 1 << 20}, {"resources": {"x": 1}}):
        with pytest.raises(ValueError, match="light actor"):
            Light.options(**options)
    with pytest.raises(ValueError, match="not for groups"):
        Light.group(2)
    with pytest.raises(ValueError, match="'process' or 'thread'"):
        Light.options(isolation="fibre")


def test_what_they_print_is_shown_with_their_process() -> None:
    printed = succeed("""
        import os, actors

        @actors.remote(isolation="thread")
        class Speaker:
            def say(self, what):
                print(what, flush=True)
                return os.getpid()

        with actors.init():
            pid = actors.get(Speaker.remote().say.remote("from a light actor"))
            print("pid", pid)
    """)
    pid = "\n".join(printed).partition("pid ")[2].split()[0]  # two threads print: lines may share a row
    assert any("from a light actor" in line and f"pid={pid}" in line for line in printed)


def test_the_process_ends_when_nobody_is_left_or_with_its_owner() -> None:
    printed = succeed("""
        import os, time, actors

        @actors.remote(isolation="thread")
        class Light:
            def pid(self):
                return os.getpid()

        @actors.remote
        class Owner:
            def __init__(self):
                self.light = Light.remote()
            def pid(self):
                return actors.get(self.light.pid.remote())

        def gone(pid):
            for _ in range(3000):
                try:
                    os.kill(pid, 0)
                except ProcessLookupError:
                    return True
                time.sleep(0.01)
            return False

        with actors.init():
            light, owner = Light.remote(), Owner.remote()
            detached = Light.options(lifetime="detached", name="d").remote()
            pids = actors.get([light.pid.remote(), owner.pid.remote(), detached.pid.remote()])
            assert len(set(pids)) == 3
            actors.kill(owner)
            print(gone(pids[1]))
            actors.kill(light)
            print(gone(pids[0]))
            print(actors.get(actors.get_actor("d").pid.remote()) == pids[2])
    """)
    assert printed == ["True", "True", "True"]


def test_an_ended_one_gives_its_memory_back() -> None:
    @actors.remote(isolation="thread")
    class Big:
        alive = 0

        def __init__(self) -> None:
            type(self).alive += 1

        def __del__(self) -> None:
            type(self).alive -= 1

        def count(self) -> int:
            gc.collect()
            return type(self).alive

    keeper, others = Big.remote(), [Big.remote() for _ in range(20)]
    assert actors.get([other.count.remote() for other in others], timeout=PATIENCE)
    assert actors.get(keeper.count.remote()) == 21
    for other in others[:10]:
        actors.kill(other)
    eventually(lambda: actors.get(keeper.count.remote()) == 11)
    del other, others  # whom nobody can call any more
    eventually(lambda: actors.get(keeper.count.remote()) == 1)
