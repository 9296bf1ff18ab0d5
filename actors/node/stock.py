"""A node's resources: how much there is, who holds what, and what is free."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.demand import GRAIN, parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from actors.demand import Parts

LENT = "CPU"
"""What a holder gives back for as long as it only waits. Memory and devices stay full while it does."""


@dataclass(slots=True)
class _Holding:
    """What one holder has: ``waits`` counts its threads that wait, so that the first lends and the last takes back."""

    held: Parts
    waits: int = 0


class Stock:
    """Accounts of one node. Pure: nothing here waits.

    A holder is whoever uses the resources, by any id: a process, or an actor that has no process yet. What is free is
    never below zero, but for CPUs that were taken back by holders that have waited (`resume`).

    Args:
        totals: what the node has.
    """

    def __init__(self, totals: Mapping[str, float]) -> None:
        self.totals = parts(totals)
        self._free = Counter(self.totals)
        self._holdings: dict[str, _Holding] = {}

    def take(self, holder: str, needs: Mapping[str, float], holds: Mapping[str, float]) -> bool:
        """Gives a holder what it is to hold, if that is free and there is what it needs; returns whether it has it now.

        One that has something already has got this: nothing is taken twice.
        """
        if holder in self._holdings:
            return True
        held = parts(holds)
        if not (_covers(self.totals, parts(needs)) and _covers(self._free, held)):
            return False
        self._free.subtract(held)
        self._holdings[holder] = _Holding(held)
        return True

    def pass_on(self, holder: str, heir: str) -> None:
        """Makes what one holder has another's."""
        self._holdings[heir] = self._holdings.pop(holder)

    def give_back(self, holder: str) -> bool:
        """Takes all back from a holder; returns whether it held anything."""
        holding = self._holdings.pop(holder, None)
        if holding is None:
            return False
        self._free.update(holding.held)
        if holding.waits:
            self._free[LENT] -= holding.held.get(LENT, 0)
        return bool(holding.held)

    def wait(self, holder: str) -> bool:
        """A thread of a holder waits: its CPUs are free for so long. Returns whether that made any free."""
        holding = self._holdings.get(holder)
        if holding is None:
            return False
        holding.waits += 1
        if holding.waits > 1 or LENT not in holding.held:
            return False
        self._free[LENT] += holding.held[LENT]
        return True

    def resume(self, holder: str) -> None:
        """A thread of a holder goes on: the last one takes the CPUs back, also where there are none left."""
        holding = self._holdings.get(holder)
        if holding is None or not holding.waits:
            return
        holding.waits -= 1
        if not holding.waits and LENT in holding.held:
            self._free[LENT] -= holding.held[LENT]

    @property
    def holders(self) -> int:
        """How many there are, also of those that hold nothing."""
        return len(self._holdings)

    def free(self) -> Parts:
        """Returns what may be taken, by name, in parts; below zero where more CPUs are used than there are."""
        return {name: self._free[name] for name in self.totals}


def _covers(there: Mapping[str, int], wanted: Parts) -> bool:
    return all(there.get(name, 0) >= count for name, count in wanted.items())


def whole(amounts: Parts) -> dict[str, float]:
    """Returns parts as amounts; what is used beyond what there is counts as none free."""
    return {name: max(count, 0) / GRAIN for name, count in amounts.items()}
