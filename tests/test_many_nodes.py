"""A cluster of more nodes than are connected with each other: what holds in a small one holds in it.

The limit is set low, so that a few nodes are many; see `actors.node.neighbours`.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from clusters import eventually, failure, is_gone

import actors
from actors.exceptions import ActorAlreadyExistsError, ActorDiedError
from actors.strategy import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.address import Address

pytestmark = pytest.mark.slow

NODES, LIMIT = 12, 4
PATIENCE = 60.0


@actors.remote
class Guest:
    """Lives on a node, and speaks with others."""

    def pid(self) -> int:
        return os.getpid()

    def where(self) -> str:
        return actors.get_runtime_context().get_node_id()

    def visit(self, others: list[actors.ActorHandle]) -> list[int]:
        return actors.get([other.pid.remote() for other in others])

    def find(self, name: str) -> int:
        return actors.get(actors.get_actor(name).pid.remote())

    def own(self, node: str) -> tuple[actors.ActorHandle, int]:
        self.owned = on(node)
        return self.owned, actors.get(self.owned.pid.remote())


@actors.remote
class Ledger:
    """Keeps what was entered, whatever happens."""

    def __init__(self) -> None:
        self.entries: list[int] = []

    def enter(self, entry: int) -> int:
        self.entries.append(entry)
        return len(self.entries)

    @actors.method(max_task_retries=-1)
    def read(self) -> tuple[str, list[int]]:
        return actors.get_runtime_context().get_node_id(), self.entries

    def __actor_save__(self) -> list[int]:
        return self.entries

    def __actor_load__(self, entries: list[int]) -> None:
        self.entries = entries


def on(node: str, **options: Any) -> actors.ActorHandle:
    return Guest.options(node=node, **options).remote()


@pytest.fixture(scope="module")
def crowd() -> Iterator[actors.Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORS_MESH_LIMIT", str(LIMIT))
        with actors.init(local_nodes=NODES, num_cpus=4, timeout=120) as cluster:
            yield cluster


def ask(crowd: actors.Cluster, address: Address, target: str, method: str, *args: object) -> Any:
    return crowd.process.portal.run(crowd.process.ask(address, target, method, *args))


def living(crowd: actors.Cluster) -> list[Address]:
    alive = {info.id for info in actors.nodes() if info.alive}
    return [address for address in ask(crowd, crowd.process.home, "node", "addresses") if address.node in alive]


def who_knows(crowd: actors.Cluster, node: str, *, alive: bool) -> list[bool]:
    """Whether each living node takes another one for alive, or for lost."""
    told = [ask(crowd, address, "node", "nodes") for address in living(crowd) if address.node != node]
    return [any(info.id == node and info.alive == alive for info in infos) for infos in told]


def test_all_know_all_and_each_looks_after_a_few(crowd: actors.Cluster) -> None:
    there = living(crowd)
    assert len(there) == NODES
    for address in there:
        assert all(who_knows(crowd, address.node, alive=True))

    def watched() -> int:
        return sum(ask(crowd, one, "neighbours", "sees", two.node, two.process) for one in there for two in there)

    eventually(lambda: NODES * 4 <= watched() < NODES * (NODES - 1) * 0.8, PATIENCE)


def test_any_two_speak_with_each_other(crowd: actors.Cluster) -> None:
    guests = [on(info.name) for info in actors.nodes()[::2] if info.alive]
    pids = actors.get([guest.pid.remote() for guest in guests], timeout=PATIENCE)
    for number, guest in enumerate(guests):
        others, theirs = guests[:number] + guests[number + 1 :], pids[:number] + pids[number + 1 :]
        assert actors.get(guest.visit.remote(others), timeout=PATIENCE) == theirs


def test_a_name_is_one_actors_and_found_from_everywhere(crowd: actors.Cluster) -> None:
    names = [info.name for info in actors.nodes() if info.alive]
    held = {f"name-{number}": on(names[number * 3 % len(names)], name=f"name-{number}") for number in range(4)}
    pids = {name: actors.get(guest.pid.remote(), timeout=PATIENCE) for name, guest in held.items()}
    finder = on(names[-1])
    for name, pid in pids.items():
        assert actors.get(actors.get_actor(name).pid.remote(), timeout=PATIENCE) == pid
        assert actors.get(finder.find.remote(name), timeout=PATIENCE) == pid
        with pytest.raises(ActorAlreadyExistsError):
            actors.get(on(names[5], name=name).pid.remote(), timeout=PATIENCE)
    assert set(actors.list_named_actors()) >= set(held)
    actors.kill(held["name-0"])
    again = eventually(lambda: _named_anew(names[7], "name-0"), PATIENCE)
    assert again not in pids.values()
    with pytest.raises(ValueError, match="nobody"):
        actors.get_actor("nobody")


def _named_anew(node: str, name: str) -> int | None:
    try:
        return int(actors.get(on(node, name=name, lifetime="detached").pid.remote(), timeout=PATIENCE))
    except ActorAlreadyExistsError:
        return None


def test_what_an_actor_owned_elsewhere_ends_with_it(crowd: actors.Cluster) -> None:
    names = [info.name for info in actors.nodes() if info.alive]
    owner = on(names[2])
    owned, pid = actors.get(owner.own.remote(names[9]), timeout=PATIENCE)
    os.kill(actors.get(owner.pid.remote()), signal.SIGKILL)
    eventually(lambda: is_gone(pid), 10)
    assert isinstance(failure(owned.pid.remote(), 10), ActorDiedError)


def test_a_node_is_emptied(crowd: actors.Cluster) -> None:
    info = [info for info in actors.nodes() if info.alive][4]
    guest = Ledger.options(scheduling_strategy=NodeAffinitySchedulingStrategy(info.id, soft=True)).remote()
    assert actors.get(guest.enter.remote(1), timeout=PATIENCE) == 1
    drained = ask(crowd, crowd.process.home, "draining", "drain", info.name, 20.0)
    assert drained["node"] == info.name
    eventually(lambda: _all_say_drained(crowd, info.id), PATIENCE)
    where = {actors.get(Guest.remote().where.remote(), timeout=PATIENCE) for _ in range(6)}
    assert info.id not in where
    ask(crowd, crowd.process.home, "draining", "undo", info.name)


def _all_say_drained(crowd: actors.Cluster, node: str) -> bool:
    told = [ask(crowd, address, "node", "nodes") for address in living(crowd)]
    return all(next(info for info in infos if info.id == node).draining for infos in told)


def test_a_killed_node_is_missed_by_all_and_what_was_replicated_goes_on(crowd: actors.Cluster) -> None:
    ledger = Ledger.options(name="ledger", replicas=2, lifetime="detached", max_restarts=-1, checkpoint="call").remote()
    home = crowd.process.home
    assert home is not None
    for loss in range(2):
        count = actors.get(ledger.enter.options(max_task_retries=-1).remote(loss), timeout=PATIENCE)
        assert count == loss + 1
        here, entries = actors.get(ledger.read.remote(), timeout=PATIENCE)
        assert entries == list(range(loss + 1))
        info = next(info for info in actors.nodes() if info.id == here)
        if info.id == home.node:
            break  # this program's own node
        os.kill(info.pid, signal.SIGKILL)
        eventually(lambda lost=info.id: all(who_knows(crowd, lost, alive=False)), 10)
        there, entries = actors.get(ledger.read.remote(), timeout=PATIENCE)
        assert there != here
        assert entries == list(range(loss + 1))
    assert actors.get(actors.get_actor("ledger").read.remote(), timeout=PATIENCE)[1]
