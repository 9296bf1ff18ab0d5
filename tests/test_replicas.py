"""Replicas: a detached actor outlives the loss of any node, and nothing that it has acknowledged is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from clusters import eventually, failure, is_gone

import actors
from actors.exceptions import ActorDiedError, ActorUnavailableError, PlacementError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 40.0
KEPT: dict[str, Any] = {"lifetime": "detached", "max_restarts": -1, "checkpoint": "call"}


@actors.remote
class Ledger:
    """Sums, and says where."""

    def __init__(self) -> None:
        self.entries: list[object] = []

    def enter(self, entry: object) -> int:
        self.entries.append(entry)
        return len(self.entries)

    @actors.method(max_task_retries=-1)
    def read(self) -> list[object]:
        return self.entries

    @actors.method(max_task_retries=-1)
    def where(self) -> str:
        return actors.get_runtime_context().get_node_id()

    def pid(self) -> int:
        return os.getpid()

    def __actor_save__(self) -> list[object]:
        return self.entries

    def __actor_load__(self, entries: list[object]) -> None:
        self.entries = entries


@actors.remote
class Clerk:
    """Uses a ledger from elsewhere."""

    def enter(self, ledger: actors.ActorHandle, entry: object) -> int:
        return actors.get(ledger.enter.options(max_task_retries=-1).remote(entry))


@pytest.fixture
def lan() -> Iterator[actors.Cluster]:
    with actors.init(local_nodes=4) as cluster:
        yield cluster


def node_of(ledger: actors.ActorHandle) -> actors.NodeInfo:
    here = actors.get(ledger.where.remote(), timeout=PATIENCE)
    return next(node for node in actors.nodes() if node.id == here)


def lose(node: actors.NodeInfo) -> None:
    """Kills a node, and with it all that runs there; returns when the others know."""
    os.kill(node.pid, signal.SIGKILL)
    eventually(lambda: not next(known for known in actors.nodes() if known.id == node.id).alive)


def test_it_survives_one_node_after_the_other_with_all_it_has_acknowledged(lan: actors.Cluster) -> None:
    ledger = Ledger.options(name="ledger", replicas=2, **KEPT).remote()
    acknowledged: list[int] = []
    unsure = 0
    over = threading.Event()

    def write() -> None:
        nonlocal unsure
        number = 0
        while not over.is_set():
            number += 1
            try:
                actors.get(ledger.enter.remote(number), timeout=PATIENCE)
            except ActorUnavailableError:
                unsure += 1
            else:
                acknowledged.append(number)

    sure: list[tuple[int, int]] = []

    def write_many() -> None:
        """Many at once, whose states go together; a call that may have run is no loss."""
        number = 0
        while not over.is_set():
            number += 1
            calls = [ledger.enter.remote((number, place)) for place in range(20)]
            for place, call in enumerate(calls):
                with contextlib.suppress(ActorUnavailableError):
                    actors.get(call, timeout=PATIENCE)
                    sure.append((number, place))

    writers = [threading.Thread(target=write), threading.Thread(target=write_many)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            before = len(acknowledged)
            eventually(lambda before=before: len(acknowledged) > before + 20)
            lose(node_of(ledger))
            before = len(acknowledged)
            eventually(lambda before=before: len(acknowledged) > before + 20, PATIENCE)
    finally:
        over.set()
        for writer in writers:
            writer.join()
    everything = actors.get(ledger.read.remote(), timeout=PATIENCE)
    many = [entry for entry in everything if isinstance(entry, tuple)]
    assert many == sorted(set(many))
    assert set(sure) <= set(many)
    entries = [entry for entry in everything if not isinstance(entry, tuple)]
    assert entries == sorted(set(entries))  # none twice, and in order
    assert set(acknowledged) <= set(entries)
    assert len(entries) <= len(acknowledged) + unsure
    assert unsure <= 2  # at most the one that ran as its node died
    assert actors.get(actors.get_actor("ledger").read.remote()) == everything


def test_others_find_it_again_and_an_heir_that_is_lost_is_replaced(lan: actors.Cluster) -> None:
    ledger = Ledger.options(**KEPT).remote()
    home = node_of(ledger)
    assert actors.get(ledger.enter.remote("first")) == 1
    others = [node for node in actors.nodes() if node.id != home.id]
    clerks = [Clerk.options(node=node.name).remote() for node in others]
    for count, clerk in enumerate(clerks):
        assert actors.get(clerk.enter.remote(ledger, count)) == count + 2
    # Whichever of the others was the heir, after the loss of two only the third can be.
    lose(others[0])
    lose(others[1])
    assert actors.get(ledger.enter.remote("with another heir"), timeout=PATIENCE) == 5
    lose(home)
    assert actors.get(clerks[2].enter.remote(ledger, "from elsewhere"), timeout=PATIENCE) >= 6
    assert node_of(ledger).id == others[2].id
    # It is made anew there as before, though there is nobody left to keep a copy.
    os.kill(actors.get(ledger.pid.remote()), signal.SIGKILL)
    entries = actors.get(ledger.read.remote(), timeout=PATIENCE)
    assert entries[:5] == ["first", 0, 1, 2, "with another heir"]
    assert set(entries[5:]) == {"from elsewhere"}  # which may have run as its node died, and was made again


def test_one_that_has_ended_is_not_taken_over(lan: actors.Cluster) -> None:
    ledger = Ledger.options(name="mortal", **KEPT).remote()
    home = node_of(ledger)
    actors.kill(ledger)
    eventually(lambda: "mortal" not in actors.list_named_actors())
    lose(home)
    assert isinstance(failure(ledger.read.remote(), PATIENCE), ActorDiedError)
    assert "mortal" not in actors.list_named_actors()
    unlucky = Ledger.options(lifetime="detached", replicas=1).remote()
    process = actors.get(unlucky.pid.remote(), timeout=PATIENCE)
    lose(node_of(unlucky))
    eventually(lambda: is_gone(process))  # it ends with its node, a moment later
    assert isinstance(failure(unlucky.read.remote(), PATIENCE), ActorDiedError)
    with pytest.raises(PlacementError, match="asks for replicas=2, and 1 other nodes"):
        Ledger.options(replicas=2, **KEPT).remote()
    with pytest.raises(ValueError, match="replicas must be a whole number"):
        Ledger.options(replicas=-1)
