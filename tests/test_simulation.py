"""The simulation: the promises hold over many seeds, a run can be seen again, and what breaks one is found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from actors import holdings
from actors.collective import group, regroup
from actors.count import Counts
from actors.holdings import Holdings, Passage
from actors.node.directory import Directory
from actors.node.members import Members
from actors.node.names import Names
from actors.node.residence import Residence
from actors.simulation import (
    simulate_collectives,
    simulate_crowd,
    simulate_membership,
    simulate_names,
    simulate_ownership,
)
from actors.simulation.resident import Incarnation
from actors.simulation.virtual import Machines
from actors.testing import SimulationError, simulate
from actors.transport.session import Session
from actors.transport.standstill import Standstill

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from actors.simulation import Outcome


def test_two_hundred_seeds_hold() -> None:
    lives = answers = 0
    for seed in range(200):
        outcome = simulate(seed, max_task_retries=seed % 3 - 1, max_restarts=(-1, -1, 1)[seed % 3])
        lives += outcome.lives
        answers += sum(verdict == "may have run" for caller in outcome.answers for verdict, _ in caller.values())
    assert lives > 400  # it did restart and move
    assert answers  # and was cut off at times


def test_the_same_seed_is_the_same_run() -> None:
    first, again, other = simulate(7, trace=True), simulate(7, trace=True), simulate(8, trace=True)
    assert first.trace == again.trace
    assert (first.events, first.ran) == (again.events, again.ran)
    assert first.trace != other.trace


def _broken(**options: Any) -> SimulationError:
    for seed in range(100):
        try:
            simulate(seed, **options)
        except SimulationError as error:
            return error
    raise AssertionError("nobody noticed")


def test_a_session_that_takes_duplicates_is_found_with_the_fewest_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    def accept(session: Session[Any], number: int) -> bool:
        session.received = max(session.received, number)
        return True

    monkeypatch.setattr(Session, "accept", accept)
    error = str(_broken())
    assert "answered twice" in error or "ran 2 times" in error
    assert "with these faults:\n  none\n" in error  # the network alone is enough
    assert "python -m actors.testing.replay" in error


def test_a_session_that_takes_what_was_written_for_unsent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "never_written", lambda session: [m for m, _ in (*session._sent, *session._unsent)])
    error = str(_broken())
    assert "ran 2 times" in error
    assert "crash of" in error


class Till:
    """A program's own actor."""

    def __init__(self) -> None:
        self.sum = 0

    def pay(self, amount: int) -> int:
        self.sum += amount
        return self.sum

    def __actor_save__(self) -> int:
        return self.sum

    def __actor_load__(self, state: int) -> None:
        self.sum = state


class ForgetfulTill(Till):
    """Saves what it had before."""

    def __actor_save__(self) -> int:
        return max(0, self.sum - 1)


def pay(chance: random.Random, caller: int, number: int) -> tuple[str, tuple[int]]:
    return "pay", (1 + (caller + number) % 3,)


def is_right(till: Till, outcome: Outcome) -> None:
    paid = [
        1 + (caller + number) % 3
        for caller, answers in enumerate(outcome.answers)
        for number, (verdict, _) in answers.items()
        if verdict == "value"
    ]
    assert till.sum >= sum(paid), f"{sum(paid)} were acknowledged, and {till.sum} are there"


def test_a_programs_own_actor_is_tested_on_it() -> None:
    for seed in range(50):
        simulate(seed, actor=Till, script=pay, check=is_right)
    error = str(_broken(actor=ForgetfulTill, script=pay, check=is_right))
    assert "were acknowledged" in error
    assert "actors.testing.simulate(seed=" in error


def test_a_seed_is_replayed_by_one_command() -> None:
    command = [sys.executable, "-m", "actors.testing.replay", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == simulate(3, trace=True).trace
    assert "1 seeds of calls held" in done.stderr


def test_names_hold_over_two_hundred_seeds() -> None:
    for seed in range(200):
        simulate_names(seed)
    simulate_names(701149)  # a name is given while a node that comes back hears that it is only claimed
    assert simulate_names(7, trace=True) == simulate_names(7, trace=True)


def test_names_that_three_nodes_know_hold_as_well() -> None:
    for seed in range(40):
        simulate_names(seed, nodes=8, sparse=True)


@pytest.mark.parametrize("method", ["claimants", "_tell"])
def test_a_directory_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(Directory, method, _no_others)
    with pytest.raises(SimulationError, match=r"which an actor on node|is held on nodes"):
        for seed in range(300):
            simulate_names(seed, nodes=8, sparse=True)


@pytest.mark.parametrize(
    "broken",
    [
        {"settle": lambda self, theirs: []},  # two that meet do not compare
        {"settle": lambda self, theirs: [self.set_aside(spec) for spec in list(self._held.values())]},  # both lose
        {"holds": lambda self, name, namespace, claimant: False},  # nobody is asked
        {"release": lambda self, spec: None},  # what was refused is held back
    ],
)
def test_names_that_are_wrong_are_found(monkeypatch: pytest.MonkeyPatch, broken: dict[str, Any]) -> None:
    for method, wrong in broken.items():
        monkeypatch.setattr(Names, method, wrong)
    broken_promise = _found(simulate_names, 300)
    assert "with these faults:" in broken_promise
    assert "See it again by: python -m actors.testing.replay" in broken_promise


def test_a_seed_of_names_is_replayed_by_one_command() -> None:
    command = [sys.executable, "-m", "actors.testing.replay", "5", "--of", "names"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == simulate_names(5, trace=True).trace
    assert "1 seeds of names held" in done.stderr


def _found(simulated: Callable[[int], object], seeds: int) -> str:
    for seed in range(seeds):
        try:
            simulated(seed)
        except SimulationError as error:
            return str(error)
    return "nothing"


def _is_found(simulated: Callable[[int], object], seeds: int, says: str, what: str) -> None:
    found = _found(simulated, seeds)
    assert says in found
    assert "python -m actors.testing.replay" in found
    assert f"--of {what}" in found


def test_ownership_holds_over_two_hundred_seeds() -> None:
    for seed in range(200):
        simulate_ownership(seed)
    assert simulate_ownership(7, trace=True) == simulate_ownership(7, trace=True)


def _forgetful(counts: Counts, id: str, reason: Any, *, held: bool = False) -> None:
    if reason in counts._reasons.get(id, set()):
        _REMOVE(counts, id, reason, held=held)


_REMOVE = Counts.remove


@pytest.mark.parametrize(
    ("broken", "method", "wrong", "says"),
    [
        (Counts, "remove", _forgetful, "is kept for nobody"),  # a token that is used before it was heard of
        (Passage, "close", lambda _: None, "is kept for nobody"),  # what never arrived
        (Holdings, "gone", lambda *_: None, "is kept for nobody"),  # what the dead held
        (holdings, "GRACE_SECONDS", 0.0, "was given up"),  # what the dead have passed on
    ],
)
def test_ownership_that_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Any, method: str, wrong: Any, says: str
) -> None:
    monkeypatch.setattr(broken, method, wrong)
    _is_found(simulate_ownership, 400, says, "ownership")


def test_collectives_hold_over_two_hundred_seeds() -> None:
    for seed in range(200):
        simulate_collectives(seed)
    assert simulate_collectives(8, trace=True) == simulate_collectives(8, trace=True)


@pytest.mark.parametrize(
    ("broken", "method", "wrong", "says"),
    [
        (group, "disagreement", lambda *_: None, ""),  # ranks that do not call the same
        (group, "suspects", lambda *_: [0], "was told of no rank that had failed"),
        (regroup, "_hear", lambda *_: None, ""),  # ranks that are gone are of the new group
    ],
)
def test_collectives_that_are_wrong_are_found(
    monkeypatch: pytest.MonkeyPatch, broken: Any, method: str, wrong: Any, says: str
) -> None:
    monkeypatch.setattr(broken, method, wrong)
    _is_found(simulate_collectives, 200, says, "collectives")


REPLAYED = {
    "ownership": simulate_ownership,
    "collectives": simulate_collectives,
    "membership": simulate_membership,
    "crowd": simulate_crowd,
}


@pytest.mark.parametrize("what", REPLAYED)
def test_a_seed_of_the_others_is_replayed_by_one_command(what: str) -> None:
    command = [sys.executable, "-m", "actors.testing.replay", "5", "--of", what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    simulated = REPLAYED[what]
    assert done.stdout.splitlines() == simulated(5, trace=True).trace
    assert f"1 seeds of {what} held" in done.stderr


async def _no_others(*_: Any) -> list[Any]:
    """In place of those that may have a name."""
    return []


async def _nothing(*_: Any, **__: Any) -> None:
    """In place of what is done on the loop."""


def test_membership_holds_over_two_hundred_seeds() -> None:
    for seed in (*range(200), 6982):  # the last has two cuts of which one begins just after the other ends
        simulate_membership(seed)
    assert simulate_membership(7, trace=True) == simulate_membership(7, trace=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "method", "wrong", "says"),
    [
        (Members, "_silent", lambda *_: None, "and said nothing"),  # one that cannot be reached
        (Members, "evict", _nothing, "was removed, and"),  # one that was removed
        (Residence, "_merge", _nothing, "has not heard that"),  # what members say
        (Residence, "_exchange_with", lambda *_: None, "takes it for"),  # where a device is now
        (Standstill, "age", lambda _: 0, "started after its caller was told"),  # that a process stood still
        (Members, "_linked", lambda *_: None, "and said nothing"),  # that a connection broke
    ],
)
def test_membership_that_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, broken: Any, method: str, wrong: Any, says: str
) -> None:
    monkeypatch.setattr(broken, method, wrong)
    _is_found(simulate_membership, 300, says, "membership")


def test_what_strikes_a_machine_once_the_simulation_is_over_holds_nothing_back() -> None:
    """One that has failed has faults left, which strike while its tasks end."""
    loop = Machines()
    machine = Incarnation(SimpleNamespace(world=SimpleNamespace(loop=loop), until=0.0))
    machine.ends()
    machine.die()
    task = loop.create_task(asyncio.sleep(1, "over"), context=machine.context.copy())
    assert loop.run_until_complete(task) == "over"
    loop.end()
