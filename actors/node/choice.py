"""Which node an actor goes to, and why none will do: pure, over what the nodes offer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING

from actors.demand import BYTES, GRAIN, PYTHON_MINOR, amount, matches, parts
from actors.strategy import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from actors.demand import Demand, Parts

SHOWN_NODES = 5  # in a message

Guarded = dict[str, set[str]]
"""By the id of a node the resources that somebody waits for there, who came first."""


@dataclass(slots=True)
class Offer:
    """What a node has to give.

    Attributes:
        id: of the node.
        name: of the node.
        labels: of the node.
        totals: what it has.
        free: what of it is free.
        actors: how many it hosts.
    """

    id: str
    name: str
    labels: dict[str, str]
    totals: Parts
    free: Parts
    actors: int

    def able(self, needs: Parts) -> bool:
        """Whether it could give so much if nobody else had any."""
        return all(self.totals.get(name, 0) >= count for name, count in needs.items())

    def short(self, holds: Parts) -> set[str]:
        """Returns the resources of which it has too little free."""
        return {name for name, count in holds.items() if self.free.get(name, 0) < count}

    def used(self) -> float:
        """How much is taken of what is most in demand, from 0 to 1."""
        return max((1 - self.free.get(name, 0) / total for name, total in self.totals.items()), default=0.0)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why something is not placed.

    Attributes:
        why: what is in the way.
        remedy: what would make it fit.
    """

    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.why}; {self.remedy}"


def choose(
    demand: Demand, offers: Sequence[Offer], turns: Sequence[int], guarded: Guarded, *, grouped: bool = False
) -> list[str] | None:
    """Chooses a node for each of some actors with the same demand: for all of them, or for none.

    Args:
        demand: what each asks for.
        offers: the nodes that answer, the asking one first.
        turns: a number for each actor, by which ``SPREAD`` goes round.
        guarded: what must be left to others; where none can be found, what these actors wait for is added.
        grouped: they are of a group, which is spread unless it shall be packed.

    Returns:
        The id of a node for each, or None.
    """
    needs, holds = parts(demand.needs), parts(demand.holds)
    rest = [replace(offer, free=dict(offer.free)) for offer in suitable(demand, offers)]
    hosts: Counter[str] = Counter()
    chosen = []
    for turn in turns:
        free = (o for o in rest if o.able(needs) and not o.short(holds) and not guarded.get(o.id, set()) & holds.keys())
        found = min(free, key=_preference(demand, rest, hosts, turn, grouped), default=None)
        if found is None:
            _guard(needs, holds, rest, guarded)
            return None
        for name, count in holds.items():
            found.free[name] -= count
        found.actors += 1
        hosts[found.id] += 1
        chosen.append(found.id)
    return chosen


def _guard(needs: Parts, holds: Parts, offers: Iterable[Offer], guarded: Guarded) -> None:
    for offer in offers:
        if offer.able(needs):
            guarded.setdefault(offer.id, set()).update(offer.short(holds))


def _preference(
    demand: Demand, offers: list[Offer], hosts: Counter[str], turn: int, grouped: bool
) -> Callable[[Offer], tuple[float, ...]]:
    """Returns what the nodes are compared by: the least is taken."""
    places = {offer.id: number for number, offer in enumerate(offers)}
    if demand.strategy == "PACK":
        return lambda offer: (places[offer.id],)
    if demand.strategy == "SPREAD" or grouped:
        return lambda offer: (hosts[offer.id], (places[offer.id] - turn) % len(offers))
    return lambda offer: (offer.actors, offer.used(), places[offer.id])


def suitable(demand: Demand, offers: Sequence[Offer]) -> list[Offer]:
    """Returns the nodes that will do, full or not: by name, strategy and labels."""
    strategy = demand.strategy
    wanted = strategy.node_id if isinstance(strategy, NodeAffinitySchedulingStrategy) else demand.node
    labelled = [offer for offer in offers if matches(demand.selector, offer.labels)]
    like_minded = [offer for offer in labelled if _runs(demand, offer)]
    if wanted is None:
        return like_minded
    named = [offer for offer in labelled if wanted in {offer.id, offer.name}]
    if isinstance(strategy, NodeAffinitySchedulingStrategy) and strategy.soft:
        needs = parts(demand.needs)
        return named if any(offer.able(needs) for offer in named) else like_minded
    return named


def _runs(demand: Demand, offer: Offer) -> bool:
    """Whether a node runs code that travels by value."""
    return demand.python is None or offer.labels.get(PYTHON_MINOR, demand.python) == demand.python


# -- why none will do -------------------------------------------------------------------------------------------


def obstacle(demand: Demand, offers: Sequence[Offer], count: int, guarded: Guarded) -> Obstacle:
    """Returns why ``count`` actors with this demand are not placed, and what would make them fit."""
    will_do = suitable(demand, offers)
    if not will_do:
        return _nowhere(demand, offers)
    needs = parts(demand.needs)
    able = [offer for offer in will_do if offer.able(needs)]
    among = "" if len(will_do) == len(offers) else " it may go to"
    if not able:
        return _never(demand, will_do, among)
    together = _room(demand, able)
    if count > together:
        return Obstacle(
            f"its group of {count} finds room for {together} on all nodes{among} together",
            "make the group smaller, let each ask for less, or add a node",
        )
    full = [offer for offer in able if offer.short(parts(demand.holds))]
    if not full and count > 1:
        return Obstacle(f"there is no room for all {count} of its group at once", "it fits when others have ended")
    if not full:
        names = sorted(set().union(*(guarded.get(offer.id, set()) for offer in able)))
        return Obstacle(f"others that came first wait for {', '.join(names)}", "it fits once they have a place")
    return Obstacle(_listed(_taken(demand, offer) for offer in full), "it fits when others give that much back")


def _nowhere(demand: Demand, offers: Sequence[Offer]) -> Obstacle:
    strategy = demand.strategy
    wanted = strategy.node_id if isinstance(strategy, NodeAffinitySchedulingStrategy) else demand.node
    if wanted is not None and all(wanted not in {offer.id, offer.name} for offer in offers):
        there = _listed(offer.name for offer in offers)
        return Obstacle(
            f"node {wanted!r} is not there; there are: {there}",
            "it fits when that node joins; with soft=True it would take another",
        )
    if wanted is None and not any(_runs(demand, offer) for offer in offers if matches(demand.selector, offer.labels)):
        found = _listed(f"node {offer.name} runs {offer.labels.get(PYTHON_MINOR)}" for offer in offers)
        if demand.selector is None or any(matches(demand.selector, offer.labels) for offer in offers):
            return Obstacle(
                f"its code travels by value, which Python {demand.python} alone can run: {found}",
                "put the code into a package that is installed on both, or run both with the same version of Python",
            )
    having = _listed(f"node {offer.name} has {_own(offer.labels)}" for offer in offers)
    which = "no node has" if wanted is None else f"node {wanted} does not have"
    return Obstacle(
        f"{which} the labels {demand.selector}: {having}",
        "correct label_selector=, or add a node that has them, as by actors.init(labels=…)",
    )


def _own(labels: dict[str, str]) -> str:
    return str({key: value for key, value in labels.items() if not key.startswith(("ray.io/", "actors.io/"))})


def _never(demand: Demand, offers: Sequence[Offer], among: str) -> Obstacle:
    lacking = []
    for name, value in demand.needs.items():
        has, where = max(((offer.totals.get(name, 0) / GRAIN, offer.name) for offer in offers), key=itemgetter(0))
        if has < value:
            there = f": the most is {_number(name, has)} on node {where}" if has else ""
            lacking.append(f"no node{among} has {amount(name, value)}{there}")
    if not lacking:
        lacking = [f"no one node{among} has {' and '.join(amount(n, v) for n, v in demand.needs.items())}"]
    return Obstacle(", ".join(lacking), "ask for less, or add a node that has so much")


def _taken(demand: Demand, offer: Offer) -> str:
    taken = []
    for name in demand.holds:
        if name in offer.short(parts(demand.holds)):
            total = offer.totals.get(name, 0)
            used = (total - max(offer.free.get(name, 0), 0)) / GRAIN
            taken.append(f"{_number(name, used)} of {amount(name, total / GRAIN)}")
    return f"{' and '.join(taken)} on node {offer.name} are taken"


def _room(demand: Demand, offers: Iterable[Offer]) -> float:
    """How many could be there at once, if nobody else were."""
    holds = parts(demand.holds)
    if not holds:
        return float("inf")
    return sum(min(offer.totals[name] // count for name, count in holds.items()) for offer in offers)


def inventory(offers: Iterable[Offer]) -> str:
    """Says what each node has, for a message."""
    return _listed(f"{offer.name} ({', '.join(_lot(offer, name) for name in _shown(offer))} free)" for offer in offers)


def _shown(offer: Offer) -> list[str]:
    return [name for name in offer.totals if not name.startswith("node:")]


def _lot(offer: Offer, name: str) -> str:
    free = max(offer.free.get(name, 0), 0) / GRAIN
    return f"{_number(name, free)} of {amount(name, offer.totals[name] / GRAIN)}"


def _number(name: str, value: float) -> str:
    return amount(name, value).removesuffix(" of memory") if name == BYTES else f"{value:.10g}"


def _listed(words: Iterable[str]) -> str:
    words = list(words)
    more = len(words) - SHOWN_NODES
    return ", ".join(words[:SHOWN_NODES]) + (f" and {more} more" if more > 0 else "")
