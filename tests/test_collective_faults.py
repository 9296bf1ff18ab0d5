"""A rank that is gone or silent in any phase of any way: all others fail in time, name it, and go on without it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import test_collective_properties as properties
from thread_fabric import Killed, ThreadFabric, World

from actors.collective import group as group_module
from actors.collective import shared
from actors.collective.board import Board
from actors.collective.group import Group
from actors.collective.near import NearFabric
from actors.exceptions import CollectiveError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE, VICTIM, HOSTS = 4, 2, "abab"
SECONDS = 2.0
BIG = np.ones(100, np.float64)
CALLS: dict[str, Callable[[Group], Any]] = {
    "allreduce": lambda g: g.allreduce(BIG, timeout=SECONDS),
    "ordered allreduce": lambda g: g.allreduce(BIG, deterministic=True, timeout=SECONDS),
    "broadcast": lambda g: g.broadcast(BIG, VICTIM, timeout=SECONDS),
    "allgather": lambda g: g.allgather(BIG, timeout=SECONDS),
    "gather": lambda g: g.gather(BIG, 0, timeout=SECONDS),
    "scatter": lambda g: g.scatter([BIG] * SIZE, VICTIM, timeout=SECONDS),
    "alltoall": lambda g: g.alltoall([BIG] * SIZE, timeout=SECONDS),
    "reduce": lambda g: g.reduce(BIG, 1, timeout=SECONDS),
    "reducescatter": lambda g: g.reducescatter(BIG, timeout=SECONDS),
    "barrier": lambda g: g.barrier(timeout=SECONDS),
}


@dataclass
class Fate:
    """What happens to a rank at its step ``after``: it is ``killed``, or says nothing any more."""

    world: World
    how: str
    after: int

    def step(self) -> None:
        if self.after == 0:
            if self.how == "silent":
                with self.world.changed:
                    self.world.changed.wait_for(lambda: self.world.aborted is not None, timeout=30)
            self.world.kill(VICTIM)
            raise Killed
        self.after -= 1


def doomed(act: Callable[..., Any], fate: Fate) -> Callable[..., Any]:
    def meets_fate(*arguments: Any, **options: Any) -> Any:
        fate.step()
        return act(*arguments, **options)

    return meets_fate


def check(folder: Path, way: str, call: str, how: str, after: int) -> None:
    world = World(SIZE)
    fate = Fate(world, how, after)
    lanes: list[Any] = [ThreadFabric(world, rank) for rank in range(SIZE)]
    if way not in {"offer", "ring", "doubling"}:
        keys = HOSTS if way == "hosts" else "a" * SIZE
        lanes = [NearFabric(lane, folder, keys[lane.rank], f"r{lane.rank}") for lane in lanes]
    lanes[VICTIM].send = doomed(lanes[VICTIM].send, fate)

    def work(lane: Any) -> Any:
        group = Group(lane)
        try:
            CALLS[call](group)
            for _ in range(30):  # who was done before is told in the next call
                CALLS[call](group)
        except Killed:
            return None
        except CollectiveError as error:
            group.rebuild(timeout=10)
            return str(error), group.size, group.epoch, float(group.allreduce(np.ones(2))[0])

    start = time.monotonic()
    with properties.going(way, 64), pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(SIZE) as pool:
        post = Board._post

        def posts(board: Board, *arguments: Any) -> None:
            if board._rank == VICTIM:
                fate.step()
            post(board, *arguments)

        patch.setattr(Board, "_post", posts)
        results = list(pool.map(work, lanes))
    assert time.monotonic() - start < 25
    for lane in lanes:
        lane.close()
    assert results[VICTIM] is None
    for said, *rebuilt in results[:VICTIM] + results[VICTIM + 1 :]:
        assert f"rank {VICTIM} (actor Member on node thread-{VICTIM})" in said
        assert rebuilt == [SIZE - 1, 2, SIZE - 1.0]


@pytest.mark.parametrize("way", properties.WAYS)
@pytest.mark.parametrize("call", ["allreduce", "alltoall"])
def test_a_rank_that_is_killed_is_named_and_the_others_go_on(tmp_path: Path, way: str, call: str) -> None:
    for after in (0, 5, 11):
        check(tmp_path, way, call, "killed", after)


@pytest.mark.slow
@pytest.mark.parametrize("way", properties.WAYS)
@pytest.mark.parametrize("call", CALLS)
def test_in_every_phase(tmp_path: Path, way: str, call: str) -> None:
    for after in range(0, 20, 2):
        check(tmp_path, way, call, "killed", after)


@pytest.mark.slow
@pytest.mark.parametrize("way", properties.WAYS)
@pytest.mark.parametrize("call", ["allreduce", "alltoall", "barrier"])
def test_a_silent_rank_in_some_phases(tmp_path: Path, way: str, call: str) -> None:
    for after in (0, 7):
        check(tmp_path, way, call, "silent", after)


@pytest.mark.parametrize("way", properties.WAYS)
def test_a_rank_that_calls_something_else_is_told_apart_from_the_others(way: str) -> None:
    """By every way, in place of every call and between calls of the same; nothing was sent, and the group goes on."""
    others: list[Callable[[Group], Any]] = [
        lambda g: g.allreduce(BIG, "max", timeout=30),
        lambda g: g.allreduce(BIG[:50], timeout=30),
        lambda g: g.allreduce(BIG.astype(np.float32), timeout=30),
        lambda g: g.allreduce([BIG, {"a": BIG}], timeout=30),
        lambda g: g.reduce(BIG, 3, timeout=30),
        lambda g: g.broadcast(BIG, 0, timeout=30),
        lambda g: g.alltoall([BIG.astype(np.float32)] * SIZE, timeout=30),
    ]

    def work(group: Group) -> int:
        told = 0
        for call in CALLS.values():
            for other in others:
                with pytest.raises(CollectiveError, match=f"rank {VICTIM}"):
                    other(group) if group.rank == VICTIM else call(group)
                told += 1
            assert group.allreduce(BIG, timeout=30)[0] == SIZE
        return told

    with properties.going(way, 64):
        assert properties.run(way, SIZE, HOSTS, work) == [len(CALLS) * len(others)] * SIZE


@pytest.mark.parametrize("way", properties.WAYS)
def test_who_comes_when_the_others_have_given_up_gets_no_result(way: str) -> None:
    """What they have brought may lie there still, so that it could be had: but then one rank would be a step ahead."""
    given_up = threading.Event()

    def work(group: Group) -> None:
        group.barrier(timeout=30)
        if group.rank == VICTIM:
            assert given_up.wait(30)
        with pytest.raises(CollectiveError, match=f"rank {VICTIM} .* sent nothing"):
            group.allreduce(BIG, timeout=1)
        given_up.set()

    with properties.going(way, 1 << 20):
        properties.run(way, SIZE, HOSTS, work)


@pytest.mark.parametrize("step", ["show", "reduce_shown"])
def test_a_rank_that_has_no_memory_for_its_part_fails_all_at_once(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Before it has said its part of a call that goes by a plan, and after: the others wait for no time to pass."""
    act, short = getattr(shared, step), threading.Event()

    def fails(channel: Any, *arguments: Any) -> Any:
        if channel.rank == VICTIM and short.is_set():
            raise MemoryError("no room")
        return act(channel, *arguments)

    def work(group: Group) -> None:
        for _ in range(2):  # the second by a plan
            group.allreduce(BIG, timeout=30)
        group.barrier(timeout=30)
        short.set()
        with pytest.raises(MemoryError if group.rank == VICTIM else CollectiveError) as raised:
            for _ in range(2):  # who was done before is told in the next call
                group.allreduce(BIG, timeout=30)
        if group.rank != VICTIM:
            assert (
                f"rank {VICTIM} (actor Member on node thread-{VICTIM}) left a collective: MemoryError: no room"
                in str(raised.value)
            )

    monkeypatch.setattr(shared, step, fails)
    start = time.monotonic()
    with properties.going("shown", 1 << 20):
        properties.run("shown", SIZE, HOSTS, work)
    assert time.monotonic() - start < 25


def test_a_rank_that_has_no_memory_for_its_call_fails_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its array is too large to be shown among so many ranks, so that they leave its plan for the long way."""
    make, short = group_module.AllReduce, threading.Event()
    large = np.ones((1 << 20) // 8 // 2)

    def fails(*arguments: Any) -> Any:
        if short.is_set() and threading.current_thread() is victim[0]:
            raise MemoryError("no room")
        return make(*arguments)

    victim: list[threading.Thread] = []

    def work(group: Group) -> None:
        if group.rank == VICTIM:
            victim.append(threading.current_thread())
        group.allreduce(large, timeout=30)
        short.set()
        with pytest.raises(MemoryError if group.rank == VICTIM else CollectiveError) as raised:
            for _ in range(2):
                group.allreduce(large, timeout=30)
        if group.rank != VICTIM:
            assert "left a collective: MemoryError: no room" in str(raised.value)

    monkeypatch.setattr(group_module, "AllReduce", fails)
    start = time.monotonic()
    with properties.going("shown", 1 << 20):
        properties.run("shown", SIZE, HOSTS, work)
    assert time.monotonic() - start < 25
