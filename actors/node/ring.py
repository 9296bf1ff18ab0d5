"""The ring of all nodes, by which each knows its neighbours without asking anybody. Pure.

Each node has a place on a circle, by the hash of its id. Its neighbours are those just before and after it, who have it
for a neighbour in turn, and those half of the circle away, a quarter, an eighth and so on (Stoica et al.: Chord: A
Scalable Peer-to-peer Lookup Service for Internet Applications, 2001): from any node to any other it takes a number of
steps that grows with the logarithm of how many there are, and one that comes or goes changes the neighbours of few.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.node.members import Member

NEAR = 2
"""So many are neighbours on either side."""

CIRCLE = 1 << 64


@lru_cache(maxsize=1 << 16)
def place(what: str) -> int:
    """Returns where something is on the circle."""
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8])


class Ring:
    """So many nodes on the circle.

    Args:
        nodes: their ids.
    """

    def __init__(self, nodes: Iterable[str]) -> None:
        self._order = sorted((place(node), node) for node in set(nodes))
        self._places = [at for at, _ in self._order]

    def joined_by(self, node: str) -> Ring:
        """Returns the ring as it is with one node more, in a small part of the time that it takes to make it."""
        more = Ring(())
        more._order, more._places = [*self._order], [*self._places]
        at = place(node), node
        number = bisect_left(self._order, at)
        if self._order[number : number + 1] != [at]:
            more._order.insert(number, at)
            more._places.insert(number, at[0])
        return more

    def _at(self, number: int) -> str:
        return self._order[number % len(self._order)][1]

    def near(self, node: str) -> list[str]:
        """Returns those just before and after a node, which need not be on the circle itself, the nearest first."""
        if not self._order:
            return []
        at = bisect_left(self._order, (place(node), node))
        after = at + 1 if at < len(self._order) and self._order[at][1] == node else at
        around = (self._at(step) for count in range(NEAR) for step in (after + count, at - 1 - count))
        return [other for other in dict.fromkeys(around) if other != node]

    def far(self, node: str) -> list[str]:
        """Returns those that come first after half of the circle, a quarter and so on, from a node on."""
        found = []
        distance = CIRCLE // 2
        for _ in range(len(self._order).bit_length()):
            found.append(self._at(bisect_left(self._places, (place(node) + distance) % CIRCLE)))
            distance //= 2
        return [other for other in dict.fromkeys(found) if other != node]

    def neighbours(self, node: str) -> list[str]:
        """Returns those whose lives a node looks after, and to whom it tells its news, each once."""
        return list(dict.fromkeys([*self.near(node), *self.far(node)]))


def in_order(what: str, members: Iterable[Member]) -> list[Member]:
    """Returns nodes in the order in which something prefers to be kept there: whichever there are, it has its own."""
    return sorted(members, key=lambda member: place(f"{what}/{member.info.id}"))
