"""Tasks: a function runs once on a warm worker, with the same references and errors as a method."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from clusters import Latch, eventually, failure

import actors
from actors.exceptions import (
    ActorDiedError,
    ActorsError,
    GetTimeoutError,
    SerializationError,
    TaskCancelledError,
    TaskError,
    WorkerCrashedError,
)

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
def double(x: Any) -> Any:
    """Twice as much."""
    return x + x


@actors.remote
def pid() -> int:
    return os.getpid()


@actors.remote(num_returns=2)
def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


@actors.remote
def count(upto: int) -> Any:
    yield from range(upto)


@actors.remote
def fib(n: int) -> int:
    return n if n < 2 else sum(actors.get([fib.remote(n - 1), fib.remote(n - 2)]))


@actors.remote
def die_first(log: str, times: int) -> int:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write("x")
    tries = len(Path(log).read_text(encoding="utf-8"))
    if tries <= times:
        os._exit(5)
    return tries


@actors.remote
def fail_first(log: str, times: int) -> int:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write("x")
    tries = len(Path(log).read_text(encoding="utf-8"))
    if tries <= times:
        raise ConnectionError("not yet")
    return tries


def test_values_and_references() -> None:
    assert actors.get(double.remote(4)) == 8
    assert actors.get([double.remote(n) for n in range(200)]) == [2 * n for n in range(200)]
    assert actors.get(double.remote(double.remote(actors.put("ab")))) == "abababab"
    assert actors.get(double.map([1, 2, 3])) == [2, 4, 6]


def test_it_runs_elsewhere_on_workers_that_stay_warm() -> None:
    pids = set(actors.get([pid.remote() for _ in range(50)]))
    assert os.getpid() not in pids
    assert len(pids) <= sum(int(node.resources["CPU"]) for node in actors.nodes())


def test_several_values_and_streams() -> None:
    left, right = halves.remote("abcd")
    assert actors.get([right, left]) == ["cd", "ab"]
    assert [actors.get(ref) for ref in count.remote(5)] == [0, 1, 2, 3, 4]
    assert halves.options(num_returns=1).remote("abcd").result(10) == ("ab", "cd")
    assert double.options(num_returns=0).remote(1) is None


def test_tasks_call_tasks_more_than_there_are_cpus() -> None:
    assert actors.get(fib.remote(6), timeout=90) == 8


def test_an_error_is_of_the_users_own_class_and_names_the_function() -> None:
    @actors.remote
    def broken(key: str) -> None:
        raise KeyError(key)

    error = failure(broken.remote("k"))
    assert isinstance(error, KeyError)
    assert isinstance(error, TaskError)
    assert "broken" in str(error)


def test_wrong_arguments_and_uses_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="missing"):
        double.remote()
    with pytest.raises(TypeError, match=r"double\.remote"):
        double(1)
    with pytest.raises(SerializationError):
        double.remote(threading.Lock())
    with pytest.raises(TypeError, match="async"):

        @actors.remote
        async def later() -> None: ...

    with pytest.raises(TypeError, match="colour"):
        double.options(colour="red")
    assert double.function(2) == 4


def test_a_dead_worker_is_an_error_unless_the_task_may_be_tried_again(tmp_path: Path) -> None:
    error = failure(die_first.remote(str(tmp_path / "a"), 1), 30)
    assert isinstance(error, WorkerCrashedError)
    assert not isinstance(error, ActorDiedError)
    assert "exit code 5" in str(error)
    assert actors.get(die_first.options(max_retries=2).remote(str(tmp_path / "b"), 2), timeout=30) == 3
    assert isinstance(failure(die_first.options(max_retries=1).remote(str(tmp_path / "c"), 2), 30), WorkerCrashedError)


def test_exceptions_are_tried_again_where_that_is_asked_for(tmp_path: Path) -> None:
    kinds = {"max_retries": 2, "retry_exceptions": [OSError]}
    assert actors.get(fail_first.options(**kinds).remote(str(tmp_path / "a"), 2)) == 3
    assert isinstance(failure(fail_first.options(max_retries=2).remote(str(tmp_path / "b"), 1)), ConnectionError)


@actors.remote
def asleep(path: str) -> None:
    Path(path).touch()
    time.sleep(60)


def test_cancelling(tmp_path: Path) -> None:
    latch = Latch.remote()

    @actors.remote
    def stuck(latch: Any) -> None:
        actors.get(latch.wait.remote())

    waiting = double.remote(latch.wait.remote(1))
    actors.cancel(waiting)
    assert isinstance(failure(waiting), TaskCancelledError)
    running = asleep.remote(str(tmp_path / "begun"))
    eventually((tmp_path / "begun").exists)
    actors.cancel(running, force=True)
    assert isinstance(failure(running), TaskCancelledError)
    held = stuck.remote(latch)
    actors.get(latch.open.remote())
    actors.get(held, timeout=10)


def test_cancelling_one_that_sleeps(tmp_path: Path) -> None:
    running = asleep.remote(str(tmp_path / "begun"))
    eventually((tmp_path / "begun").exists)
    actors.cancel(running)
    assert isinstance(failure(running), TaskCancelledError)


def test_a_task_has_a_deadline(tmp_path: Path) -> None:
    with pytest.raises(GetTimeoutError, match="within its timeout"):
        actors.get(asleep.options(timeout=0.5).remote(str(tmp_path / "begun")), timeout=20)


def test_an_argument_that_failed_fails_the_task() -> None:
    @actors.remote
    def broken() -> None:
        raise KeyError("first")

    assert isinstance(failure(double.remote(broken.remote())), KeyError)


def test_functions_travel() -> None:
    @actors.remote
    class Caller:
        def call(self, function: Any, value: int) -> int:
            return int(actors.get(function.remote(value)))

    factor = 3

    @actors.remote
    def times(x: int) -> int:
        return factor * x

    assert actors.get(Caller.remote().call.remote(times, 5), timeout=20) == 15


def test_idle_workers_end() -> None:
    actors.get([pid.remote() for _ in range(10)])
    process = actors.cluster.joined()
    from actors.taskqueue import queue_for

    queue = queue_for(process, pid.chosen_options, None, actors.version.PYTHON)
    eventually(lambda: not queue._runners, 15.0)


def test_another_engine_is_not_joined_beside_the_cluster() -> None:
    with pytest.raises(ActorsError, match="before it goes to another engine"):
        actors.init(engine="ray")
