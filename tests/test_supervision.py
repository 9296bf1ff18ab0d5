"""Supervision trees: who is made anew with whom, in which order, and when a supervisor gives up."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from clusters import eventually, failure

import actors
from actors.exceptions import ActorDiedError, ActorUnavailableError
from actors.supervision import Child, Supervisor

pytestmark = pytest.mark.usefixtures("cluster")

PATIENCE = 30.0


@actors.remote
class Part:
    """Writes down when it is made."""

    def __init__(self, log: str = "", name: str = "") -> None:
        if log:
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")

    @actors.method(max_task_retries=-1)
    def pid(self) -> int:
        return os.getpid()

    def leave(self) -> None:
        actors.exit_actor()


@actors.remote
class Fragile:
    """Can be made once only."""

    def __init__(self, mark: str) -> None:
        Path(mark).touch(exist_ok=False)

    @actors.method(max_task_retries=-1)
    def pid(self) -> int:
        return os.getpid()


def plan(log: Path, strategy: str, **more: Any) -> Supervisor:
    return Supervisor({name: Child(Part, str(log), name) for name in "abc"}, strategy=strategy, **more)


def pids(root: actors.ActorHandle, *paths: str) -> list[int]:
    parts = actors.get([root.child.remote(path) for path in paths], timeout=PATIENCE)
    return actors.get([part.pid.remote() for part in parts], timeout=PATIENCE)


def crash(root: actors.ActorHandle, path: str) -> None:
    """Kills a child; returns when it is there again."""
    (pid,) = pids(root, path)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pids(root, path) != [pid], PATIENCE)


@pytest.mark.parametrize(("strategy", "again"), [("one_for_one", "b"), ("one_for_all", "abc"), ("rest_for_one", "bc")])
def test_a_strategy_says_who_is_made_anew_and_all_come_in_order(strategy: str, again: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    root = plan(log, strategy).start()
    before = dict(zip("abc", pids(root, *"abc"), strict=True))
    crash(root, "b")
    eventually(lambda: len(log.read_text().split()) == 3 + len(again), PATIENCE)
    after = dict(zip("abc", pids(root, *"abc"), strict=True))
    assert {name for name in "abc" if after[name] != before[name]} == set(again)
    assert log.read_text().split()[3:] == list(again)
    assert actors.get(root.status.remote()) == {name: int(name in again) for name in "abc"}


def test_one_that_leaves_by_itself_is_not_made_anew(tmp_path: Path) -> None:
    root = plan(tmp_path / "log", "one_for_all").start()
    before = pids(root, "a", "c")
    assert isinstance(failure(actors.get(root.child.remote("b")).leave.remote()), ActorDiedError)
    assert pids(root, "a", "c") == before


def test_too_many_deaths_are_the_supervisors_own_and_its_supervisor_makes_it_anew(tmp_path: Path) -> None:
    lower = plan(tmp_path / "lower", "one_for_one", max_restarts=1)
    root = Supervisor({"lower": lower, "beside": Part}, strategy="one_for_one", max_restarts=1).start()
    beside = pids(root, "beside")
    crash(root, "lower/a")
    (pid,) = pids(root, "lower/a")
    os.kill(pid, signal.SIGKILL)  # one too many

    def anew() -> bool:
        try:
            return actors.get(root.status.remote())["lower"] == 1 and bool(pids(root, "lower/a"))
        except (ActorDiedError, ActorUnavailableError):  # it is just being made
            return False

    eventually(anew, PATIENCE)
    assert pids(root, "beside") == beside
    lowest = actors.get(root.child.remote("lower"))
    os.kill(pids(root, "lower/b")[0], signal.SIGKILL)
    eventually(lambda: actors.get(lowest.status.options(max_task_retries=-1).remote())["b"] == 1, PATIENCE)
    os.kill(pids(root, "lower/b")[0], signal.SIGKILL)  # the lower one gives up again, which is too much for the root
    error = eventually(lambda: _death_of(root), PATIENCE)
    assert "more than it allows (max_restarts=1); the last was that of 'lower'" in str(error)


def _death_of(root: actors.ActorHandle) -> ActorDiedError | None:
    try:
        actors.get(root.status.remote(), timeout=PATIENCE)
    except ActorDiedError as error:
        return error
    return None


def test_a_child_that_cannot_be_made_again_is_given_up(tmp_path: Path) -> None:
    root = Supervisor({"fragile": Child(Fragile, str(tmp_path / "mark"))}).start()
    os.kill(pids(root, "fragile")[0], signal.SIGKILL)
    error = eventually(lambda: _death_of(root), PATIENCE)
    assert "its child 'fragile' cannot be made" in str(error)


def test_what_cannot_be_supervised_is_refused() -> None:
    with pytest.raises(ValueError, match="one_for_one, one_for_all, rest_for_one"):
        Supervisor({"a": Part}, strategy="all")
    with pytest.raises(ValueError, match="its supervisor decides"):
        Supervisor({"a": Part.options(max_restarts=2)})
    with pytest.raises(TypeError, match="made from an actor class"):
        Supervisor({"a": Part.cls})
    with pytest.raises(TypeError, match="without a slash"):
        Supervisor({"a/b": Part})
    with pytest.raises(ValueError, match="at least one child"):
        Supervisor({})
