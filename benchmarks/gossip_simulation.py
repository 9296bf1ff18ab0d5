"""Clusters of up to 10,000 nodes on a simulated clock and network: what gossip, relays and a sharded directory cost.

Each node runs the state machine of `gossip.py`. Nothing here is a timing of a machine: latencies and bandwidths go in
as constants. Those of `membership_simulation.py`, which has the full mesh that the runtime uses, are the same.

    python benchmarks/gossip_simulation.py [NODES ...]
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from gossip import ALIVE, ANSWER_SECONDS, DEAD, PERIOD_SECONDS, SUSPECT, Gossip, Message, News

if TYPE_CHECKING:
    from collections.abc import Callable

LATENCY_SECONDS = (0.0005, 0.003)
MESSAGE_BYTES = 60
NEWS_BYTES = 24
UPLINK_BYTES = 125e6
"""Of a node, in a second: Gigabit Ethernet."""

FAN_OUT = 4
KEEPERS = 3
"""Nodes that know where a name is."""


@dataclass(slots=True)
class Simulation:
    """The nodes, and what is on its way.

    Args:
        nodes: how many.
        lost: the share of messages that the network loses.
        seed: of the random numbers.
    """

    nodes: int
    lost: float = 0.0
    seed: int = 0
    now: float = 0.0
    sent: int = 0
    sent_bytes: int = 0
    all: list[Gossip] = field(default_factory=list)
    off: set[int] = field(default_factory=set)
    believed: dict[News, list[float]] = field(default_factory=dict)
    _queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        for number in range(self.nodes):
            self.start(number, self.nodes)

    def start(self, number: int, known: int) -> None:
        """A node begins."""
        node = Gossip(number, known, random.Random(f"{self.seed}/{number}"), self._send, self._changed)
        self.all.append(node)
        self.at(self.now + self.chance.uniform(0, PERIOD_SECONDS), self._tick, node)

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Has something happen."""
        heapq.heappush(self._queue, (when, next(self._order), what, args))

    def run(self, until: float) -> None:
        """Lets happen what happens until then."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what, args = heapq.heappop(self._queue)
            what(*args)
        self.now = until

    def _tick(self, node: Gossip) -> None:
        if node.me in self.off:
            return
        node.tick(self.now)
        self.at(self.now + ANSWER_SECONDS, self._late, node)
        self.at(self.now + PERIOD_SECONDS, self._tick, node)

    def _late(self, node: Gossip) -> None:
        if node.me not in self.off:
            node.answer_is_late()

    def _send(self, to: int, message: Message) -> None:
        self.sent += 1
        self.sent_bytes += MESSAGE_BYTES + NEWS_BYTES * len(message.news)
        if self.chance.random() >= self.lost:
            self.at(self.now + self.chance.uniform(*LATENCY_SECONDS), self._arrives, to, message)

    def _arrives(self, to: int, message: Message) -> None:
        if to not in self.off:
            self.all[to].received(message, self.now)

    def _changed(self, news: News) -> None:
        self.believed.setdefault(news, []).append(self.now)


def deaths(nodes: int, *, lost: float = 0.0, seed: int = 0) -> dict[str, float]:
    """Kills a node in a cluster that is at rest; returns how it is missed, and what being there costs."""
    simulation = Simulation(nodes, lost, seed)
    rest, patience = 5.0, 60.0
    simulation.run(rest)
    messages, sent = simulation.sent / nodes / rest, simulation.sent_bytes / nodes / rest
    simulation.off.add(0)
    simulation.run(rest + patience)
    suspected = simulation.believed.get(News(0, 0, SUSPECT), [])
    missed = simulation.believed.get(News(0, 0, DEAD), [])
    wrongly = {
        news.node for news, times in simulation.believed.items() if news.state == DEAD and news.node != 0 and times
    }
    return {
        "nodes": nodes, "lost": lost, "messages_s": messages, "bytes_s": sent,
        "suspected_s": min(suspected, default=math.inf) - rest,
        "known_by_all_s": max(missed, default=math.inf) - rest if len(missed) == nodes - 1 else math.inf,
        "wrongly_dead": len(wrongly),
    }  # fmt: skip


def joining(nodes: int, *, seed: int = 0) -> dict[str, float]:
    """Lets a node into a cluster that is at rest; returns when all know it."""
    simulation = Simulation(nodes, seed=seed)
    simulation.run(2.0)
    simulation.start(nodes, nodes + 1)
    simulation.all[1].joins(nodes, simulation.now)
    simulation.run(2.0 + 30.0)
    heard = simulation.believed.get(News(nodes, 1, ALIVE), [])
    return {"nodes": nodes, "known_by_all_s": max(heard) - 2.0 if len(heard) >= nodes - 1 else math.inf}


def broadcast(nodes: int, size: int, fan_out: int) -> float:
    """Returns the seconds until all have a value, each node sending it on to so many others once it has it.

    With a fan-out of all others it is what a sender does today: everybody's copy leaves by its own uplink.
    """
    took, waiting, reached = size / UPLINK_BYTES, [0.0], 1
    last = 0.0
    while reached < nodes:
        begins = heapq.heappop(waiting)
        for place in range(min(fan_out, nodes - reached)):
            reached += 1
            has = begins + (place + 1) * took + LATENCY_SECONDS[1]
            last = max(last, has)
            heapq.heappush(waiting, has)
    return last


def names_lost(nodes: int, dead: int, keepers: int, *, names: int = 20_000, seed: int = 0) -> float:
    """Returns the share of names that no living node knows any more, where so many nodes die at one moment."""
    chance = random.Random(seed)
    gone = set(chance.sample(range(nodes), dead))
    return sum(gone.issuperset(chance.sample(range(nodes), keepers)) for _ in range(names)) / names


def main() -> None:
    """Prints one line of JSON for each thing that is simulated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int, default=[10, 100, 1000, 10000])
    for nodes in parser.parse_args().nodes:
        for lost in (0.0, 0.02):
            _show("death", deaths(nodes, lost=lost))
        _show("join", joining(nodes))
        by_all, by_few = (broadcast(nodes, 1 << 20, fan_out) for fan_out in (nodes, FAN_OUT))
        _show("broadcast of 1 MiB", {"nodes": nodes, "by_the_sender_s": by_all, "by_relays_s": by_few})
        tenth = max(1, nodes // 10)
        _show("directory", {
            "nodes": nodes, "asked_of_all": nodes - 1, "asked_of_keepers": min(KEEPERS, nodes - 1),
            "lost_with_a_tenth": names_lost(nodes, tenth, min(KEEPERS, nodes)),
        })  # fmt: skip


def _show(what: str, found: dict[str, float]) -> None:
    print(json.dumps({"what": what, **{key: round(value, 5) for key, value in found.items()}}), flush=True)


if __name__ == "__main__":
    main()
