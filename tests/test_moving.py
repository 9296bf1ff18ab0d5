"""Moving: an actor goes to another node while it is used, and nothing of it is lost, doubled or out of order."""

from __future__ import annotations

import os
import re
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from clusters import Latch, eventually, failure

import actors
from actors.exceptions import ActorDiedError, PlacementError, TaskError
from actors.observer import Observer

pytestmark = pytest.mark.usefixtures("cluster")

PATIENCE = 30.0


class _Diary:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.entries: list[object] = []
        self.broken = ""

    def __actor_save__(self) -> object:
        if self.broken == "save":
            raise KeyError("no state today")
        return (self.entries, self.broken)

    def __actor_load__(self, state: tuple[list[object], str]) -> None:
        self.entries, self.broken = state
        if self.broken == "load":
            raise KeyError("no such state")


@actors.remote
class Diary(_Diary):
    """One call at a time."""

    def write(self, entry: object) -> int:
        self.entries.append(entry)
        return len(self.entries)

    def read(self) -> list[object]:
        return self.entries

    def where(self) -> str:
        return actors.get_runtime_context().get_node_id()

    def pid(self) -> int:
        return os.getpid()

    def break_at(self, step: str) -> None:
        self.broken = step

    def keep(self, value: object) -> None:
        self.entries.append(actors.put(value))

    def hire(self) -> None:
        self.hired = Diary.remote()
        actors.get(self.hired.read.remote())

    def wait_at(self, latch: actors.ActorHandle) -> None:
        actors.get(latch.wait.remote())

    def count_to(self, last: int) -> Any:
        yield from range(last)


@actors.remote
class AsyncDiary(_Diary):
    """Many at a time."""

    async def write(self, entry: object) -> int:
        self.entries.append(entry)
        return len(self.entries)

    async def read(self) -> list[object]:
        return self.entries

    async def where(self) -> str:
        return actors.get_runtime_context().get_node_id()


@actors.remote
class Scribe:
    """Writes into a diary from elsewhere."""

    def write(self, diary: actors.ActorHandle, name: str, count: int) -> list[int]:
        return actors.get([diary.write.remote((name, number)) for number in range(count)])


def elsewhere(diary: actors.ActorHandle) -> actors.NodeInfo:
    """Returns a node on which the actor is not."""
    here = actors.get(diary.where.remote())
    return next(node for node in actors.nodes() if node.alive and node.id != here)


@pytest.mark.parametrize("options", [{}, {"max_restarts": 1}, {"max_concurrency": 3}])
@pytest.mark.parametrize("cls", [Diary, AsyncDiary])
def test_an_actor_goes_where_it_is_told_with_its_state(cls: Any, options: dict[str, Any]) -> None:
    diary = cls.options(**options).remote()
    for number in range(5):
        actors.get(diary.write.remote(number))  # one by one: in threads they may change places
    there = elsewhere(diary)
    actors.move(diary, there.name)
    assert actors.get(diary.where.remote(), timeout=PATIENCE) == there.id
    assert actors.get(diary.write.remote("more")) == 6
    assert actors.get(diary.read.remote()) == [0, 1, 2, 3, 4, "more"]
    actors.move(diary, there)  # it is there already
    assert actors.get(diary.where.remote()) == there.id


@pytest.mark.parametrize("options", [{}, {"lifetime": "detached", "max_restarts": -1, "checkpoint": "call"}])
def test_calls_made_meanwhile_arrive_once_and_in_order_by_everybodys_line(options: dict[str, Any]) -> None:
    diary = Diary.options(**options).remote()
    scribes = [Scribe.options(node=node.name).remote() for node in actors.nodes() if node.alive]
    theirs = [scribe.write.remote(diary, str(number), 300) for number, scribe in enumerate(scribes)]
    mine: list[Any] = []
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            mine.append(diary.write.remote(("me", len(mine))))
            over.wait(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            actors.move(diary, elsewhere(diary))
    finally:
        over.set()
        writer.join()
    mine += diary.write.map([("me", len(mine) + number) for number in range(50)])
    for answers in (*theirs, mine):
        numbers = actors.get(answers, timeout=PATIENCE)
        assert numbers == sorted(numbers)
    entries = actors.get(diary.read.remote())
    for name, count in (("me", len(mine)), *((str(number), 300) for number in range(len(scribes)))):
        assert [entry for entry in entries if entry[0] == name] == [(name, number) for number in range(count)]
    actors.kill(diary)


def note(path: str) -> str:
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("loaded\n")
    return path


class Noted:
    """Writes down where it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return note, (self.path,)


def test_its_class_is_loaded_there_before_its_state_has_come(tmp_path: Path) -> None:
    path = str(tmp_path / "log")

    @actors.remote
    class Careful:
        mark = Noted(path)

        def where(self) -> str:
            return actors.get_runtime_context().get_node_id()

        def __actor_save__(self) -> str:
            eventually(lambda: Path(path).read_text() == "loaded\n" * 2)
            return "state"

        def __actor_load__(self, state: str) -> None:
            assert state == "state"

    careful = Careful.remote()
    there = elsewhere(careful)
    actors.move(careful, there)
    assert actors.get(careful.where.remote()) == there.id


def test_it_moves_between_two_calls_and_streams_end_first() -> None:
    latch, diary = Latch.remote(), Diary.remote()
    there = elsewhere(diary)
    held = diary.wait_at.remote(latch)
    eventually(lambda: actors.get(latch.waiting.remote()))
    behind = [diary.write.remote(number) for number in range(3)]
    stream = diary.count_to.remote(5)
    mover = threading.Thread(target=actors.move, args=(diary, there.id))
    mover.start()
    latch.open.remote()
    actors.get(held)
    assert actors.get(behind, timeout=PATIENCE) == [1, 2, 3]
    assert [actors.get(item) for item in stream] == list(range(5))
    mover.join(PATIENCE)
    assert actors.get(diary.where.remote()) == there.id


@pytest.mark.parametrize("step", ["save", "load"])
def test_where_a_hook_raises_it_stays_and_goes_on(step: str) -> None:
    diary = Diary.remote()
    pid = actors.get(diary.pid.remote())
    actors.get([diary.write.remote("kept"), diary.break_at.remote(step)])
    with pytest.raises((TaskError, ActorDiedError), match="no state today" if step == "save" else "no such state"):
        actors.move(diary, elsewhere(diary))
    assert actors.get(diary.pid.remote()) == pid
    assert actors.get(diary.read.remote()) == ["kept"]
    if step == "save":  # else its end, where it was to go, may have been told before the mover could say what it was
        (actor,) = re.findall(r"actor-\w+", repr(diary))
        shown = Observer.here().view().state.actors[actor]
        assert (shown.state, shown.pid) == ("ALIVE", pid)


def test_what_cannot_move_says_why() -> None:
    class Plain:
        def hello(self) -> str:
            return "hello"

    node = actors.nodes()[0].name
    with pytest.raises(ValueError, match="__actor_save__ and __actor_load__"):
        actors.move(actors.remote(Plain).options(node=node).remote(), actors.nodes()[-1].name)
    with pytest.raises(ValueError, match="light actor"):
        actors.move(Diary.options(isolation="thread", node=node).remote(), actors.nodes()[-1].name)
    diary = Diary.options(node=node).remote()
    with pytest.raises(PlacementError, match="no node is called 'nowhere'"):
        actors.move(diary, "nowhere")
    with pytest.raises(TypeError, match="an actor handle is needed"):
        actors.move("diary", node)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="node is the name or id"):
        actors.move(diary, 3)  # type: ignore[arg-type]
    actors.get(diary.keep.remote("a value of its process"))
    with pytest.raises(ValueError, match="refers to a value"):
        actors.move(diary, elsewhere(diary))
    owner = Diary.remote()
    actors.get(owner.hire.remote())
    with pytest.raises(ValueError, match="it has made Diary"):
        actors.move(owner, elsewhere(owner))
    big = Diary.options(num_cpus=1).remote()
    there = elsewhere(big)
    full = Diary.options(num_cpus=there.resources["CPU"], node=there.name).remote()
    actors.get(full.read.remote())
    with pytest.raises(PlacementError, match="no node can take"):
        actors.move(big, there)
    assert actors.get(big.write.remote("still here")) == 1


def test_a_name_goes_along_and_is_free_in_the_end() -> None:
    diary = Diary.options(name="traveller").remote()
    actors.get(diary.write.remote("first"))
    for _ in range(2):
        actors.move(diary, elsewhere(diary))
        assert actors.get(actors.get_actor("traveller").read.remote(), timeout=PATIENCE) == ["first"]
    actors.kill(diary)
    again = Diary.options(name="traveller").remote()
    assert actors.get(again.read.remote(), timeout=PATIENCE) == []


def test_after_a_move_it_is_made_anew_from_what_it_saved_last() -> None:
    diary = Diary.options(max_restarts=-1, max_task_retries=-1).remote()
    actors.get(diary.write.remote("before"))
    actors.move(diary, elsewhere(diary))
    actors.get(diary.write.remote("after"))
    os.kill(actors.get(diary.pid.remote()), signal.SIGKILL)
    assert actors.get(diary.read.remote(), timeout=PATIENCE) == ["before", "after"]


def test_one_that_is_killed_while_it_moves_is_gone() -> None:
    latch, diary = Latch.remote(), Diary.remote()
    held = diary.wait_at.remote(latch)
    eventually(lambda: actors.get(latch.waiting.remote()))
    errors: list[BaseException] = []

    def move() -> None:
        try:
            actors.move(diary, actors.nodes()[-1].name if there else actors.nodes()[0].name)
        except BaseException as error:
            errors.append(error)

    there = True
    mover = threading.Thread(target=move)
    mover.start()
    actors.kill(diary)
    mover.join(PATIENCE)
    assert isinstance(failure(held), ActorDiedError)
    assert isinstance(failure(diary.read.remote()), ActorDiedError)
    assert not errors or isinstance(errors[0], ActorDiedError)


def test_one_that_is_killed_as_it_answers_has_kept_what_it_answered() -> None:
    """Its heir has the state then; whoever has charge of it hears of it a little later, and asks."""
    diary = Diary.options(lifetime="detached", max_restarts=-1, max_task_retries=-1, replicas=1).remote()
    written: list[object] = []
    for life in range(4):
        for number in range(5):
            written.append((life, number))
            assert actors.get(diary.write.remote((life, number)), timeout=PATIENCE) == len(written)
            if life == 2 and number == 2:
                actors.move(diary, elsewhere(diary).name)
        pid = actors.get(diary.pid.options(max_task_retries=0).remote())
        written.append("last")
        actors.get(diary.write.options(max_task_retries=0).remote("last"))
        os.kill(pid, signal.SIGKILL)
        assert actors.get(diary.read.remote(), timeout=PATIENCE) == written
    actors.kill(diary)
