"""Restarts: an actor that dies is made anew as often as it may be; calls are tried again where that is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clusters import eventually, failure, succeed

import actors
from actors.exceptions import ActorDiedError, ActorUnavailableError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Phoenix:
    """Counts its calls, and how often it was made, in a file."""

    def __init__(self, log: str = "") -> None:
        self.count = 0
        self.log = log
        self.note("born")

    def note(self, what: str) -> None:
        if self.log:
            with Path(self.log).open("a", encoding="utf-8") as file:
                file.write(f"{what}\n")

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        self.note("die")
        os._exit(3)

    def die_first(self, times: int) -> str:
        """Dies until it has been called so often, then answers."""
        self.note("try")
        if Path(self.log).read_text(encoding="utf-8").count("try") <= times:
            os._exit(3)
        return "survived"

    def fail_first(self, times: int) -> str:
        self.note("try")
        if Path(self.log).read_text(encoding="utf-8").count("try") <= times:
            raise ConnectionError("not yet")
        return "done"

    def fail_with_a_trap(self) -> None:
        raise ConnectionError(Trap())


class Trap:
    """Ends whoever unpickles it in another process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _spring, (os.getpid(),)


def _spring(pid: int) -> Trap:
    if os.getpid() != pid:
        raise SystemExit(3)
    return Trap()


def _again(handle: actors.ActorHandle) -> int:
    """Waits until the actor answers."""

    def answer() -> Any:
        try:
            return actors.get(handle.add.remote(), timeout=5)
        except ActorUnavailableError:
            return 0

    return int(eventually(answer, 15.0))


def _if_died(error: BaseException) -> BaseException | None:
    return error if isinstance(error, ActorDiedError) else None


def test_it_comes_back_with_fresh_state_until_it_may_not() -> None:
    phoenix = Phoenix.options(max_restarts=2).remote()
    assert actors.get([phoenix.add.remote() for _ in range(3)]) == [1, 2, 3]
    for _ in range(2):
        first = actors.get(phoenix.pid.remote())
        assert isinstance(failure(phoenix.die.remote()), ActorUnavailableError)
        assert _again(phoenix) == 1
        assert actors.get(phoenix.pid.remote()) != first
    error = failure(phoenix.die.remote())
    assert isinstance(error, ActorDiedError)
    assert "exit code 3" in str(error)
    error = failure(phoenix.add.remote())
    assert isinstance(error, ActorDiedError)
    assert "2 times" in str(error)


def test_without_max_restarts_it_stays_dead() -> None:
    phoenix = Phoenix.remote()
    assert isinstance(failure(phoenix.die.remote()), ActorDiedError)
    assert isinstance(failure(phoenix.add.remote()), ActorDiedError)


def test_other_holders_of_the_handle_find_it_again() -> None:
    @actors.remote
    class User:
        def __init__(self, phoenix: actors.ActorHandle) -> None:
            self.phoenix = phoenix

        def use(self) -> int:
            return int(actors.get(self.phoenix.add.remote(), timeout=10))

    phoenix = Phoenix.options(max_restarts=-1).remote()
    user = User.remote(phoenix)
    assert actors.get([user.use.remote(), user.use.remote()]) == [1, 2]
    os.kill(actors.get(phoenix.pid.remote()), signal.SIGKILL)
    _again(phoenix)
    assert actors.get(user.use.remote(), timeout=10) >= 2


def test_a_call_that_was_cut_off_is_tried_again_where_that_is_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    phoenix = Phoenix.options(max_restarts=-1, max_task_retries=2).remote(str(log))
    calls = [phoenix.die_first.remote(2), phoenix.add.remote(), phoenix.add.remote()]
    assert actors.get(calls[0], timeout=30) == "survived"
    assert sorted(actors.get(calls[1:], timeout=10)) == [1, 2]
    assert log.read_text().split() == ["born", "try", "born", "try", "born", "try"]


def test_a_call_is_tried_no_more_often_than_it_may_be(tmp_path: Path) -> None:
    log = tmp_path / "log"
    phoenix = Phoenix.options(max_restarts=-1, max_task_retries=1).remote(str(log))
    assert isinstance(failure(phoenix.die_first.remote(100), 30), ActorUnavailableError)
    assert log.read_text().count("try") == 2
    _again(phoenix)


@pytest.mark.parametrize(
    ("actor", "method", "times", "wanted"),
    [
        ({"max_task_retries": 2}, {"retry_exceptions": True}, 2, "done"),
        ({"max_task_retries": 2}, {"retry_exceptions": [OSError]}, 2, "done"),
        ({}, {"max_task_retries": -1, "retry_exceptions": [ConnectionError, KeyError]}, 4, "done"),
        ({"max_task_retries": 1}, {"retry_exceptions": True}, 2, ConnectionError),
        ({"max_task_retries": 5}, {"retry_exceptions": [KeyError]}, 1, ConnectionError),
        ({"max_task_retries": 5}, {}, 1, ConnectionError),
        ({}, {"retry_exceptions": True}, 1, ConnectionError),
    ],
    ids=str,
)
def test_a_call_that_raised_is_tried_again_for_the_exceptions_named(
    tmp_path: Path, actor: dict[str, Any], method: dict[str, Any], times: int, wanted: Any
) -> None:
    phoenix = Phoenix.options(**actor).remote(str(tmp_path / "log"))
    ref = phoenix.fail_first.options(**method).remote(times)
    if wanted == "done":
        assert actors.get(ref, timeout=10) == "done"
    else:
        error = failure(ref)
        assert isinstance(error, wanted)
        assert isinstance(error, TaskError)


def test_kill_may_leave_it_its_restarts() -> None:
    phoenix = Phoenix.options(max_restarts=1).remote()
    assert actors.get(phoenix.add.remote()) == 1
    actors.kill(phoenix, no_restart=False)
    assert _again(phoenix) == 1
    actors.kill(phoenix)
    assert isinstance(failure(phoenix.add.remote()), ActorDiedError)


def test_kill_for_good_is_for_good() -> None:
    phoenix = Phoenix.options(max_restarts=-1).remote()
    actors.get(phoenix.add.remote())
    actors.kill(phoenix)
    assert isinstance(failure(phoenix.add.remote()), ActorDiedError)
    actors.kill(phoenix)


def test_a_constructor_that_raises_is_not_tried_again(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @actors.remote(max_restarts=3)
    class Stillborn:
        def __init__(self) -> None:
            with log.open("a") as file:
                file.write("x")
            raise RuntimeError("no")

        def hello(self) -> None: ...

    error = failure(Stillborn.remote().hello.remote())
    assert isinstance(error, ActorDiedError)
    assert "RuntimeError: no" in str(error)
    assert log.read_text() == "x"


def test_a_crash_loop_ends_with_the_last_cause(tmp_path: Path) -> None:
    log = tmp_path / "log"

    @actors.remote(max_restarts=2)
    class Looping:
        def __init__(self) -> None:
            with log.open("a") as file:
                file.write("x")
            os._exit(7)

        def hello(self) -> None: ...

    looping = Looping.remote()
    error = eventually(lambda: _if_died(failure(looping.hello.remote(), 30)), 30.0)
    assert "exit code 7" in str(error)
    assert log.read_text() == "xxx"


def test_a_name_is_kept_for_the_next_life() -> None:
    phoenix = Phoenix.options(max_restarts=-1, name="phoenix").remote()
    os.kill(actors.get(phoenix.pid.remote()), signal.SIGKILL)
    assert "phoenix" in actors.list_named_actors()
    assert _again(actors.get_actor("phoenix")) == 1
    with pytest.raises(ValueError, match="phoenix"):
        Phoenix.options(name="phoenix").remote()
    actors.kill(phoenix)
    eventually(lambda: "phoenix" not in actors.list_named_actors())
    other = Phoenix.options(name="phoenix").remote()
    assert actors.get(other.add.remote()) == 1
    actors.kill(other)


def test_a_detached_actor_outlives_its_maker() -> None:
    @actors.remote
    class Maker:
        def make(self) -> int:
            made = Phoenix.options(name="orphan", lifetime="detached", max_restarts=1).remote()
            return int(actors.get(made.pid.remote()))

    maker = Maker.remote()
    pid = actors.get(maker.make.remote())
    actors.kill(maker)
    orphan = actors.get_actor("orphan")
    assert actors.get(orphan.pid.remote(), timeout=10) == pid
    os.kill(pid, signal.SIGKILL)
    assert _again(orphan) == 1
    actors.kill(orphan)
    eventually(lambda: "orphan" not in actors.list_named_actors())


def test_a_detached_actor_of_a_cluster_that_ends_with_its_program_warns_once() -> None:
    program = """import actors
@actors.remote
class Staying:
    pass

with actors.init("local", num_cpus=1):
    kept = [Staying.options(lifetime="detached", num_cpus=0).remote() for _ in range(2)]
"""
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    ).stderr
    assert told.count("is detached, and yet ends with this program") == 1
    assert told.startswith("ActorHandle(Staying(")


def test_a_detached_actor_that_cannot_be_made_says_why() -> None:
    @actors.remote
    class Stillborn:
        def __init__(self) -> None:
            raise RuntimeError("no")

        def hello(self) -> None: ...

    error = failure(Stillborn.options(lifetime="detached").remote().hello.remote())
    assert isinstance(error, ActorDiedError)
    assert "RuntimeError: no" in str(error)
    with pytest.raises(ValueError, match="twice"):
        for _ in range(2):
            Phoenix.options(name="twice", lifetime="detached").remote()
    actors.kill(actors.get_actor("twice"))


def test_groups_are_not_restarted_one_by_one() -> None:
    with pytest.raises(ValueError, match="group"):
        Phoenix.options(max_restarts=1).group(2)


def test_a_node_that_dies_is_left_for_another() -> None:
    printed = succeed("""
        import os, signal, actors, actors.strategy
        from actors.exceptions import ActorUnavailableError

        @actors.remote(max_restarts=1)
        class Phoenix:
            def node(self):
                return actors.get_runtime_context().node_name

        with actors.init(local_nodes=2):
            here, there = actors.nodes()
            strategy = actors.strategy.NodeAffinitySchedulingStrategy(there.id, soft=True)
            phoenix = Phoenix.options(scheduling_strategy=strategy).remote()
            assert actors.get(phoenix.node.remote()) == there.name
            os.kill(there.pid, signal.SIGKILL)
            while True:
                try:
                    # Its old process may answer once more before it knows that its node is gone.
                    if actors.get(phoenix.node.remote(), timeout=20) == here.name:
                        print("there")
                        break
                except ActorUnavailableError:
                    pass
    """)
    assert printed == ["there"]


@pytest.mark.parametrize("wanted", [[OSError], True])
def test_an_error_that_ends_who_unpickles_it_is_an_answer_all_the_same(wanted: Any) -> None:
    phoenix = Phoenix.options(max_task_retries=1).remote()
    error = failure(phoenix.fail_with_a_trap.options(retry_exceptions=wanted).remote())
    assert isinstance(error, TaskError)
    assert not isinstance(error, OSError)
    assert "ConnectionError" in str(error)
