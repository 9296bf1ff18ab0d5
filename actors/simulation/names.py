"""Names on the simulated network: nodes give names to actors, are cut off from each other, and meet again.

What decides is the runtime's own `Names`; what nodes say to each other is as in `actors.node.naming`. Links lose
nothing, since sessions bring it again, but a cut delays what is under way, and who notices it takes the other for
silent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from actors.node.names import Names

from .clock import Clock
from .faults import SPAN_SECONDS, Fault, fewest
from .outcome import Outcome
from .running import REPLAY, SimulationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ASK_SECONDS = 5.0
NOTICED_SECONDS = 5.0  # at the latest, that a link is cut
TRIES = 3


@dataclass(frozen=True, slots=True)
class Named:
    """An actor that wants a name; what `Names` needs of its specification."""

    id: str
    name: str
    namespace: str = "default"
    owner: str = "owner"


class _Node:
    def __init__(self, world: _World, number: int) -> None:
        self.number = number
        self.names = Names()
        self.silent: set[int] = set()  # nodes that are taken for silent
        self._world = world

    def claim(self, spec: Named) -> None:
        """As `Naming.claim`."""
        if not self.names.reserve(spec):  # type: ignore[arg-type]
            self._over(spec, given=False)
            return
        others = [node for node in self._world.nodes if node is not self and node.number not in self.silent]
        self._ask_next(spec, others)

    def _ask_next(self, spec: Named, others: list[_Node]) -> None:
        if not others:
            given = self.names.confirm(spec)  # type: ignore[arg-type]
            if not given:
                self.names.release(spec)  # type: ignore[arg-type]
            self._over(spec, given=given)
            return
        other, *rest = others

        def answered(holds: Any) -> None:
            if holds:
                self.names.release(spec)  # type: ignore[arg-type]
                self._over(spec, given=False)
            else:
                self._ask_next(spec, rest)

        self._world.ask(self, other, lambda: other.names.holds(spec.name, spec.namespace, spec.id), answered)

    def _over(self, spec: Named, *, given: bool) -> None:
        self._world.answered(self, spec, given=given)

    def compare(self, other: _Node, tries: int = TRIES) -> None:
        """As `Naming._settle`."""
        claims = self.names.claims()

        def settle() -> Any:
            mine = other.names.claims()
            other.names.settle(claims)
            return mine

        def answered(theirs: Any) -> None:
            if theirs is not None:
                self.names.settle(theirs)
            elif tries > 1 and other.number not in self.silent:  # else they are compared when it is back
                self.compare(other, tries - 1)

        self._world.ask(self, other, settle, answered)


class _World(Clock):
    def __init__(self, seed: int, nodes: int, claims: int, cuts: Sequence[Fault], trace: bool) -> None:
        super().__init__()
        self.outcome = Outcome(faults=tuple(cuts))
        self.nodes = [_Node(self, number) for number in range(nodes)]
        self._chance = random.Random(f"names/{seed}")  # noqa: S311 - to be the same again is what is wanted
        self._trace = trace
        self._pairs = list(combinations(range(nodes), 2))
        self._cuts = [(self._pairs[cut.whom % len(self._pairs)], cut.at, cut.at + cut.seconds) for cut in cuts]
        self._last: dict[tuple[int, int], float] = {}
        self._given: dict[str, tuple[str, bool]] = {}  # whether each actor was given the name that it wanted
        self._claims = claims
        for number in range(claims):
            spec = Named(f"actor-{self._chance.randrange(1000):03}-{number}", f"name-{self._chance.randrange(3)}")
            self.at(self._chance.uniform(0, SPAN_SECONDS), self.nodes[self._chance.randrange(nodes)].claim, spec)
        for pair, begin, end in self._cuts:
            for here, there in (pair, pair[::-1]):
                noticed = begin + self._chance.uniform(0, NOTICED_SECONDS)
                if noticed < end:
                    self.at(noticed, self.nodes[here].silent.add, there)

    def ask(self, a: _Node, b: _Node, what: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Asks a node; ``then`` is given the answer, or None where there was none in time."""
        over: list[bool] = []

        def once(answer: Any) -> None:
            if not over:
                over.append(True)
                then(answer)

        self._send(a, b, lambda: self._reply(b, a, what(), once))
        self.after(ASK_SECONDS, once, None)

    def _reply(self, b: _Node, a: _Node, answer: Any, once: Callable[[Any], None]) -> None:
        self._send(b, a, lambda: once(answer))

    def _send(self, a: _Node, b: _Node, deliver: Callable[[], None]) -> None:
        when = self.now + (self._chance.expovariate(1000) if self._chance.random() < 0.95 else self._chance.random())
        self._arrive(a, b, max(when, self._last.get((a.number, b.number), 0.0)), deliver)

    def _arrive(self, a: _Node, b: _Node, when: float, deliver: Callable[[], None]) -> None:
        pair = (min(a.number, b.number), max(a.number, b.number))
        while ends := [end for cut, begin, end in self._cuts if cut == pair and begin <= when < end]:
            when = max(ends)
        self._last[a.number, b.number] = when
        self.at(when, self._delivered, a, b, deliver)

    def _delivered(self, a: _Node, b: _Node, deliver: Callable[[], None]) -> None:
        self._heard(b, a)
        deliver()

    def _heard(self, here: _Node, there: _Node) -> None:
        """A node that was taken for silent is back."""
        if there.number in here.silent:
            here.silent.discard(there.number)
            here.compare(there)

    def answered(self, node: _Node, spec: Named, *, given: bool) -> None:
        """A claim has its answer; what was given is released again after a while, or not."""
        assert spec.id not in self._given, f"the claim of {spec.id} was answered twice"
        self._given[spec.id] = spec.name, given
        if self._trace:
            self.outcome.trace.append(
                f"{self.now:10.6f} node {node.number} {'gives' if given else 'refuses'} {spec.name} to {spec.id}"
            )
        if given and not self._cuts:
            others = [
                other.number for other in self.nodes if other is not node and other.names.find(spec.name, "default")
            ]
            assert not others, f"node {node.number} gave {spec.name}, which an actor on node {others[0]} has"
        if given and self._chance.random() < 0.3:
            self.after(self._chance.expovariate(1), node.names.release, spec)

    def run(self) -> None:
        """Lets all happen, has all links up again, and looks whether the promises hold."""
        self.outcome.events = self.run_out()
        for here in self.nodes:
            for there in list(here.silent):
                self._heard(here, self.nodes[there])
        self.outcome.events += self.run_out()
        self.outcome.seconds = self.now
        assert len(self._given) == self._claims, "a claim was never answered"
        for key in {key for node in self.nodes for key in node.names.all(None)}:
            holders = [node.number for node in self.nodes if key in node.names.all(None)]
            assert len(holders) == 1, f"{key[1]} is held on nodes {holders} after all could reach each other"
        for node in self.nodes:
            for namespace, name in node.names.all_aside(None):
                loser = node.names.find_here(name, namespace)
                better = [id for id, (other, given) in self._given.items() if given and other == name]
                assert loser is None or node.names.find(name, namespace) or min(better) < loser.id, (
                    f"{loser.id} has lost {name} to nobody"
                )
            assert not [claim for claim in node.names.claims() if not claim[3]], f"node {node.number} holds a name back"


def _length(chance: random.Random) -> float:
    """Of a cut: any, or just too short for all to notice."""
    return chance.expovariate(0.3) if chance.random() < 0.5 else chance.uniform(0.8, 1.0) * NOTICED_SECONDS


def simulate_names(seed: int, *, nodes: int = 4, claims: int = 16, cuts: int = 5, trace: bool = False) -> Outcome:
    """Runs nodes that give names over a network which is cut now and then; the same seed gives the same run.

    A claim gets exactly one answer. Without cuts no two actors ever have one name; after cuts none do once all nodes
    have met again, and no name is held back for nobody.

    Args:
        seed: decides all that is left to chance; every fourth has no cuts.
        nodes: how many there are.
        claims: how many actors want a name, of three.
        cuts: how many times a link is cut.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """
    chance = random.Random(f"cuts/{seed}")  # noqa: S311 - as above
    plan = [
        Fault(chance.uniform(0, SPAN_SECONDS), "cut", chance.randrange(nodes * nodes), _length(chance))
        for _ in range(cuts if seed % 4 else 0)
    ]

    def run(chosen: Sequence[Fault]) -> Outcome:
        world = _World(seed, nodes, claims, chosen, trace)
        world.run()
        return world.outcome

    try:
        return run(plan)
    except AssertionError as error:
        few, last = fewest(run, plan, error)
        struck = "\n".join(f"  {cut.at:.3f} s: link {cut.whom} for {cut.seconds:.3f} s" for cut in few) or "  none"
        again = f"{REPLAY} {seed} --of names"
        raise SimulationError(f"seed {seed}: {last}\nwith these cuts:\n{struck}\nSee it again by: {again}") from error
