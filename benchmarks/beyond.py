"""What it costs that state survives: checkpoints, moves, recovery from a lost node, and the speed of the simulation.

Run it by ``python benchmarks/beyond.py``. Each figure is a ratio to the plain thing, measured in the same run and in
turns, or a time that is set against what it waits for.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import actors

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 300
ROUNDS = 5
SIMULATED_SECONDS = 2.0
KIB = 1 << 10
MIB = 1 << 20


@actors.remote
class Store:
    """Has state of a size that can be chosen."""

    def __init__(self, size: int) -> None:
        self.state: Any = os.urandom(size) if size < MIB else np.zeros(size, np.uint8)

    def touch(self) -> None:
        """Does nothing."""

    def where(self) -> str:
        """Returns the id of its node."""
        return str(actors.get_runtime_context().get_node_id())

    def take(self, array: np.ndarray) -> int:
        """Takes an array in, copied as state would be."""
        self.state = array.copy()
        return int(array.nbytes)

    def __actor_save__(self) -> Any:
        """Returns the state."""
        return self.state

    def __actor_load__(self, state: Any) -> None:
        """Sets it."""
        self.state = state


def timed(work: Callable[[], object]) -> float:
    """Returns the seconds that something takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def checkpoint(replicas: int | None) -> dict[str, float]:
    """Compares a call whose state of 1 KiB is saved with one whose is not; with replicas, on other nodes as well."""
    kept: dict[str, Any] = {"max_restarts": -1, "checkpoint": "call"}
    if replicas is not None:
        kept.update(lifetime="detached", replicas=replicas)
    plain, saved = Store.remote(KIB), Store.options(**kept).remote(KIB)
    actors.get([plain.touch.remote(), saved.touch.remote()])
    one_by_one: dict[str, list[float]] = {"plain": [], "saved": []}
    at_once: dict[str, list[float]] = {"plain": [], "saved": []}
    for _ in range(ROUNDS):
        for name, store in (("plain", plain), ("saved", saved)):
            seconds = timed(lambda store=store: [actors.get(store.touch.remote()) for _ in range(CALLS)])  # type: ignore[misc]
            one_by_one[name].append(seconds / CALLS)
            seconds = timed(lambda store=store: actors.get([store.touch.remote() for _ in range(CALLS)]))  # type: ignore[misc]
            at_once[name].append(seconds / CALLS)
    actors.kill(plain)
    actors.kill(saved)
    base, cost = (statistics.median(one_by_one[name]) for name in ("plain", "saved"))
    many, kept = (statistics.median(at_once[name]) for name in ("plain", "saved"))
    return {
        "plain_us": base * 1e6, "saved_us": cost * 1e6, "ratio": cost / base, "ratio_of_many_at_once": kept / many,
    }  # fmt: skip


def move() -> dict[str, float]:
    """Compares the move of an actor of 64 MiB with a call that gives another actor as much."""
    ends = [node.name for node in actors.nodes()[:2]]
    moves, copies = [], []
    for _ in range(10):
        store = Store.options(node=ends[0]).remote(64 * MIB)
        other = Store.options(node=ends[1]).remote(KIB)
        actors.get([store.touch.remote(), other.touch.remote()])
        array = np.ones(64 * MIB, np.uint8)
        time.sleep(1.5)  # a spare worker is there again
        copies.append(timed(lambda: actors.get(other.take.remote(array))))  # noqa: B023 - it is called at once
        moves.append(timed(lambda: actors.move(store, ends[1])))  # noqa: B023
        actors.kill(store)
        actors.kill(other)
    copy, moved = statistics.median(copies), statistics.median(moves)
    return {"copy_s": copy, "move_s": moved, "ratio": moved / copy}


def recovery() -> dict[str, float]:
    """Measures from the death of a node until others know of it, and until its detached actor answers again."""
    store = Store.options(lifetime="detached", max_restarts=-1, max_task_retries=-1).remote(KIB)
    here = actors.get(store.where.remote())
    node = next(node for node in actors.nodes() if node.id == here)
    begun = time.perf_counter()
    os.kill(node.pid, signal.SIGKILL)
    call = store.touch.remote()
    while next(known for known in actors.nodes() if known.id == node.id).alive:
        time.sleep(0.005)
    detected = time.perf_counter() - begun
    actors.get(call, timeout=60)
    recovered = time.perf_counter() - begun
    return {"detected_s": detected, "recovered_s": recovered, "after_detection_s": recovered - detected}


def simulation() -> dict[str, float]:
    """Measures how many events of each simulation go by in a second: moments at which something happens."""
    from actors.testing.replay import WHAT  # late: a process that an actor moves to imports this module

    found = {}
    for what, simulate in WHAT.items():
        events = seed = 0
        begun = time.perf_counter()
        while (seconds := time.perf_counter() - begun) < SIMULATED_SECONDS:
            events, seed = events + simulate(seed).events, seed + 1
        found[f"{what}_per_s"] = events / seconds
    return found


def main() -> None:
    """Runs all, and prints a table, or with ``--json`` one object."""
    found: dict[str, dict[str, float]] = {"simulation": simulation()}
    with actors.init(local_nodes=3, log_to_driver=False):
        found["checkpoint, kept by its maker"] = checkpoint(None)
        found["checkpoint, kept by its node"] = checkpoint(0)
        found["checkpoint, on one other node"] = checkpoint(1)
        found["move of 64 MiB"] = move()
        found["recovery"] = recovery()
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(f"{name:32}", ", ".join(f"{key} {value:,.3f}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
