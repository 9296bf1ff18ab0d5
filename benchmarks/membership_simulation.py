"""A cluster of up to 1,000 nodes on a simulated clock: how long until all know all, and what that costs each.

No sockets and no processes: each node is a pure state machine of what `actors.node` does. It is told of addresses, by
multicast or by its seed, dials each (`inquiry`, `describe`), greets whom it has met with the addresses that it knows,
and compares with each again every `COMPARE_SECONDS`. A node does one thing at a time: a dial costs both ends a TLS
handshake. What is measured elsewhere (handshake, latency) goes in as a constant; nothing here is a timing of a machine.

    python benchmarks/membership_simulation.py [--multicast] [NODES ...]
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from dataclasses import dataclass, field

LATENCY_SECONDS = (0.0005, 0.003)
HANDSHAKE_SECONDS = 0.002
MESSAGE_SECONDS = 0.0001
LAST_START_SECONDS = 1.0
MULTICAST_SECONDS = (0.05, 0.3)
COMPARE_SECONDS = 30.0
PING_SECONDS = 2.0
ADDRESS_BYTES = 200
"""Of one node's address in a greeting, with three doors."""

MOST_TOLD = 32
"""Addresses in a greeting, at random where there are more; `actors.node.residence` has the same."""

MOST_COMPARED = 16
"""Nodes that one compares itself with each time."""

HEARD, DIAL, SERVE, MET, GREETED, COMPARE = range(6)


@dataclass(slots=True)
class Node:
    """What one node knows. Sets of nodes are the bits of an integer.

    Attributes:
        number: which node it is.
        told: nodes of whose address it was told, itself included.
        met: nodes that have proved themselves to it, itself included.
        known: the same, in a list.
        free_at: when it is done with what it does now.
        sent: messages sent.
        sent_bytes: of addresses in greetings.
    """

    number: int
    told: int = 0
    met: int = 0
    free_at: float = 0.0
    sent: int = 0
    sent_bytes: int = 0
    known: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known.append(self.number)
        self.told = self.met = 1 << self.number

    def hears(self, nodes: int) -> list[int]:
        """Is told of addresses; returns whom to dial."""
        fresh = nodes & ~self.told
        self.told |= nodes
        return bits(fresh)

    def meets(self, other: int) -> bool:
        """Another node has proved itself; whether that is new, so that it is to be greeted."""
        new = not self.met >> other & 1
        self.met |= 1 << other
        if new:
            self.known.append(other)
        return new

    def works(self, now: float, seconds: float) -> float:
        """Does something that takes so long; returns when it is done."""
        self.free_at = max(self.free_at, now) + seconds
        return self.free_at


@dataclass(slots=True)
class Outcome:
    """What came of one simulation.

    Attributes:
        nodes: how many.
        seconds: from the last start until all know all.
        messages: sent by one node until then, on average.
        kilobytes: of addresses that one node sent until then, on average.
        idle_messages: of one node afterwards, in one second: pings, and comparisons with others.
        idle_kilobytes: of addresses that one node sends afterwards, in one second.
    """

    nodes: int
    seconds: float
    messages: float
    kilobytes: float
    idle_messages: float
    idle_kilobytes: float


@dataclass(slots=True)
class Simulation:
    """The nodes, and what is on its way between them."""

    nodes: list[Node]
    random: random.Random
    queue: list[tuple[float, int, int, int, int]] = field(default_factory=list)
    now: float = 0.0
    most_told: int = MOST_TOLD
    _count: int = 0

    def later(self, at: float, what: int, node: int, other: int) -> None:
        """Something happens to a node."""
        self._count += 1
        heapq.heappush(self.queue, (at, self._count, what, node, other))

    def latency(self) -> float:
        """Seconds that one message takes."""
        return self.random.uniform(*LATENCY_SECONDS)

    def run(self) -> float:
        """Runs until nothing is on its way; returns when the last node knew all."""
        everybody = (1 << len(self.nodes)) - 1
        complete: dict[int, float] = {}
        while self.queue:
            self.now, _, what, number, other = heapq.heappop(self.queue)
            node = self.nodes[number]
            if what == HEARD:
                self._dial_all(node, 1 << other)
            elif what == DIAL:
                self._dial(node, other)
            elif what == SERVE:
                node.sent += 2
                self.later(node.works(self.now, HANDSHAKE_SECONDS) + 3 * self.latency(), MET, other, number)
            elif what == MET:
                if node.meets(other):
                    self._greet(node, other)
                    if node.met == everybody:
                        complete[number] = self.now
            elif what == GREETED:
                node.sent += 1  # its answer
                node.works(self.now, MESSAGE_SECONDS)
                self._dial_all(node, other)
            elif len(complete) < len(self.nodes):
                self._compare(node)
        assert all(node.met == everybody for node in self.nodes)
        return max(complete.values())

    def _dial_all(self, node: Node, addresses: int) -> None:
        for other in node.hears(addresses):
            self.later(self.now, DIAL, node.number, other)

    def _dial(self, node: Node, other: int) -> None:
        node.sent += 2
        self.later(node.works(self.now, HANDSHAKE_SECONDS) + self.latency(), SERVE, other, node.number)

    def _greet(self, node: Node, other: int) -> None:
        mask, told = node.met, len(node.known)
        if self.most_told and told > self.most_told:
            told = self.most_told + 1
            mask = 1 << node.number
            for one in self.random.sample(node.known, self.most_told):
                mask |= 1 << one
        node.sent += 1
        node.sent_bytes += ADDRESS_BYTES * told
        self.later(node.works(self.now, MESSAGE_SECONDS) + self.latency(), GREETED, other, mask)

    def _compare(self, node: Node) -> None:
        others = node.known[1:]
        for other in self.random.sample(others, min(len(others), MOST_COMPARED)):
            self._greet(node, other)
        self.later(self.now + COMPARE_SECONDS, COMPARE, node.number, 0)


def simulate(count: int, *, multicast: bool = False, seed: int = 0, most_told: int = MOST_TOLD) -> Outcome:
    """Lets so many nodes start within a second.

    Args:
        count: how many.
        multicast: whether each hears of every other by itself; else it is told of one seed only.
        seed: of the random numbers.
        most_told: addresses in a greeting; 0 for all that are known.
    """
    chance = random.Random(seed)
    simulation = Simulation([Node(number) for number in range(count)], chance, most_told=most_told)
    starts = [chance.uniform(0, LAST_START_SECONDS) for _ in range(count)]
    starts[0] = 0.0
    for number, start in enumerate(starts):
        for other in range(count) if multicast else (0,):
            if other != number:
                at = max(start, starts[other]) + (chance.uniform(*MULTICAST_SECONDS) if multicast else 0.0)
                simulation.later(at, HEARD, number, other)
    for number, start in enumerate(starts):
        simulation.later(start + COMPARE_SECONDS, COMPARE, number, 0)
    seconds = max(0.0, simulation.run() - max(starts))
    links, nodes, compared = count - 1, simulation.nodes, min(count - 1, MOST_COMPARED) if most_told else count - 1
    return Outcome(
        count, seconds, sum(node.sent for node in nodes) / count, sum(node.sent_bytes for node in nodes) / count / 1e3,
        links * 2 / PING_SECONDS + compared * 2 / COMPARE_SECONDS,
        compared * min(links, most_told or links) * ADDRESS_BYTES / COMPARE_SECONDS / 1e3,
    )  # fmt: skip


def bits(number: int) -> list[int]:
    """The places of the ones in a number."""
    found = []
    while number:
        low = number & -number
        found.append(low.bit_length() - 1)
        number ^= low
    return found


def main() -> None:
    """Prints one line of JSON for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int, default=[10, 32, 100, 320, 1000])
    parser.add_argument("--multicast", action="store_true")
    parser.add_argument("--tell-all", action="store_true", help="greet with all addresses, and compare with all")
    options = parser.parse_args()
    for count in options.nodes:
        outcome = simulate(count, multicast=options.multicast, most_told=0 if options.tell_all else MOST_TOLD)
        print(json.dumps({name: round(getattr(outcome, name), 3) for name in Outcome.__slots__}), flush=True)


if __name__ == "__main__":
    main()
