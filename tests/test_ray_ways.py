"""What Ray's users do with handles, streams and cancelled calls besides the plain things."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Latch, eventually, failure

import actors
from actors.exceptions import ActorDiedError, ArgumentError, TaskCancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Shelf:
    """Has special methods of its own."""

    def __init__(self, *things: Any) -> None:
        self.things = list(things)

    def __len__(self) -> int:
        return len(self.things)

    def __call__(self, add: int) -> int:
        return len(self.things) + add

    def each(self, latch: Any = None) -> Iterator[Any]:
        for thing in self.things:
            if latch is not None:
                actors.get(latch.wait.remote(thing))
            yield thing

    def until(self, note: str, go: str) -> str:
        Path(note).touch()
        while not Path(go).exists():
            time.sleep(0.01)
        return "the value"


@actors.remote
class Stubborn:
    """Swallows its cancellation."""

    def __init__(self) -> None:
        self.swallowed = 0

    async def wait(self) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.swallowed += 1
        return "the value"

    async def seen(self) -> int:
        return self.swallowed


# -- handles ----------------------------------------------------------------------------------------------------


def test_special_methods_of_a_class_are_called_like_any_other() -> None:
    shelf = Shelf.remote("a", "b")
    assert actors.get([shelf.__len__.remote(), shelf.__call__.remote(3)]) == [2, 5]


@pytest.mark.parametrize("name", ["__iter__", "__enter__", "__actor_save__", "__copy__"])
def test_those_it_has_not_are_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(Shelf.remote(), name)


def test_an_actor_says_that_it_is_ready_and_runs_what_it_is_given() -> None:
    shelf = Shelf.remote("a")
    assert actors.get(shelf.__ray_ready__.remote()) is True
    assert actors.get(shelf.__ray_call__.remote(lambda self, more: [*self.things, more], "b")) == ["a", "b"]
    with pytest.raises(TypeError, match="function"):
        shelf.__ray_call__.remote()


@pytest.mark.parametrize("isolation", ["process", "thread"])
def test_one_that_is_told_to_end_does_so_in_its_turn(isolation: str) -> None:
    shelf = Shelf.options(max_restarts=3, isolation=isolation).remote("a")
    before, end = shelf.__len__.remote(), shelf.__ray_terminate__.remote()
    assert type(failure(end)) is ActorDiedError
    assert actors.get(before) == 1
    assert type(failure(shelf.__len__.remote())) is ActorDiedError


# -- streams ----------------------------------------------------------------------------------------------------


def test_get_gives_a_stream_back() -> None:
    stream = Shelf.remote(1, 2).each.remote()
    assert actors.get(stream) is stream
    assert [actors.get(ref) for ref in stream] == [1, 2]
    with pytest.raises(ArgumentError, match="a list with a ObjectRefGenerator"):
        actors.get([stream])


def test_a_stream_is_waited_for_until_it_has_a_value_or_its_end() -> None:
    latch = Latch.remote()
    stream, ref = Shelf.remote("a").each.remote(latch), actors.put("there")
    assert actors.wait([stream, ref], timeout=5) == ([ref], [stream])
    assert actors.wait([stream], timeout=0.05) == ([], [stream])
    actors.get(latch.open.remote())
    assert actors.wait([stream], timeout=10) == ([stream], [])
    assert actors.get(next(stream)) == "a"
    assert actors.wait([stream], timeout=10) == ([stream], [])
    assert list(stream) == []


# -- cancelled calls --------------------------------------------------------------------------------------------


def test_what_a_cancelled_plain_call_returns_is_thrown_away(tmp_path: Path) -> None:
    shelf, note, go = Shelf.remote(), tmp_path / "note", tmp_path / "go"
    ref = shelf.until.remote(str(note), str(go))
    eventually(note.exists)
    actors.cancel(ref)
    assert actors.wait([ref], timeout=0.2) == ([], [ref])  # nothing stops it
    go.touch()
    assert isinstance(failure(ref), TaskCancelledError)
    assert actors.get(shelf.__len__.remote()) == 0


def test_what_a_coroutine_returns_that_swallows_its_cancellation_is_thrown_away() -> None:
    stubborn = Stubborn.remote()
    ref = stubborn.wait.remote()
    assert actors.get(stubborn.seen.remote()) == 0
    actors.cancel(ref)
    assert isinstance(failure(ref), TaskCancelledError)
    assert actors.get(stubborn.seen.remote()) == 1


# -- options ----------------------------------------------------------------------------------------------------


def test_an_option_that_is_none_is_one_not_given() -> None:
    options: dict[str, Any] = dict.fromkeys(
        ("max_restarts", "max_task_retries", "max_pending_calls", "num_cpus", "name", "lifetime", "isolation")
    )
    assert actors.get(Shelf.options(max_restarts=2).options(**options).remote("a").__len__.remote()) == 1
