"""Names on the simulated network: nodes give names to actors, are cut off from each other, and meet again.

What runs is the runtime's own `Naming`, on an event loop whose time is simulated. Links lose nothing, since sessions
bring it again, but a cut delays what is under way, and who notices it takes the other for silent.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from itertools import combinations
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorAlreadyExistsError
from actors.node.naming import Naming

from .faults import SPAN_SECONDS, Fault
from .outcome import Outcome
from .running import held, unheard
from .virtual import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOTICED_SECONDS = 5.0  # at the latest, that a link is cut
LONGEST_SECONDS = 300.0  # after which nothing is under way any more


@dataclass(frozen=True, slots=True)
class Named:
    """An actor that wants a name; what `Names` needs of its specification."""

    id: str
    name: str
    namespace: str = "default"
    owner: str = "owner"
    life: int = 0
    label: str = "an actor"


class _Node:
    """One of the nodes: what its `Naming` needs of a process and of members, and that itself."""

    def __init__(self, world: _World, number: int) -> None:
        self.number = number
        self.info = SimpleNamespace(name=f"node-{number}", id=f"node-{number}", alive=True)
        self.where = self  # as it is known to others
        self.process = self.node = self.info.id
        self.ended = False
        self.sparse = world.sparse
        self.me = self
        self.silent: set[int] = set()  # nodes that are taken for silent
        self.on_joined: list[Callable[[Any], None]] = []
        self.watchers: list[Callable[[], None]] = []
        self.loop = world.loop
        self._world = world
        self.naming = Naming(self, self, lambda *_: None)  # type: ignore[arg-type]
        self.names = self.naming.names

    def alive(self) -> list[_Node]:
        """See `actors.node.members.Members`."""
        return [node for node in self._world.nodes if node.number not in self.silent]

    def others(self) -> list[_Node]:
        """See `actors.node.members.Members`."""
        return [node for node in self.alive() if node is not self]

    def standing(self) -> list[_Node]:
        """See `actors.node.members.Members`."""
        return self._world.nodes

    all = standing

    def find(self, id: str) -> _Node:
        """See `actors.node.members.Members`."""
        return next(node for node in self._world.nodes if node.info.id == id)

    def tell(self, other: _Node, target: str, method: str, *args: Any) -> None:
        """See `actors.process.Process`."""
        self.loop.create_task(self.ask(other, target, method, *args, timeout=LONGEST_SECONDS))

    async def ask(self, other: _Node, target: str, method: str, *args: Any, timeout: float) -> Any:
        """See `actors.process.Process`."""
        service = {"names": other.naming, "directory": other.naming.directory}[target]
        answer: asyncio.Future[Any] = self.loop.create_future()

        def arrived() -> None:
            asked = self.loop.create_task(getattr(service, method)(None, *args))
            asked.add_done_callback(lambda done: self._world.send(other, self, lambda: came(done.result())))

        def came(value: Any) -> None:
            if not answer.done():
                answer.set_result(value)

        self._world.send(self, other, arrived)
        async with asyncio.timeout(timeout):
            return await answer

    def begin(self) -> None:
        """Nodes have been many for long."""
        self.naming.directory.begin(-LONGEST_SECONDS)

    def claim(self, spec: Named) -> None:
        """An actor here wants its name."""
        self.loop.create_task(self._claim(spec)).add_done_callback(self._world.claimed.append)

    async def _claim(self, spec: Named) -> None:
        given = True
        try:
            await self.naming.claim(spec)  # type: ignore[arg-type]
        except ActorAlreadyExistsError:
            given = False
        self._world.answered(self, spec, given=given)

    def heard(self, other: _Node) -> None:
        """One that was taken for silent is back."""
        if other.number in self.silent:
            self.silent.discard(other.number)
            if not self.sparse:
                for told in self.on_joined:
                    told(other)
            for changed in self.watchers:
                changed()


class _World:
    def __init__(  # noqa: PLR0917 - one place makes it
        self, seed: int, nodes: int, claims: int, cuts: Sequence[Fault], trace: bool, sparse: bool
    ) -> None:
        self.sparse = sparse
        self.outcome = Outcome(faults=tuple(cuts))
        self.loop = VirtualLoop()
        self.claimed: list[asyncio.Task[None]] = []
        self.nodes = [_Node(self, number) for number in range(nodes)]
        self._chance = random.Random(f"names/{seed}")  # noqa: S311 - to be the same again is what is wanted
        self._trace = trace
        self._pairs = list(combinations(range(nodes), 2))
        self._cuts = [(self._pairs[cut.whom % len(self._pairs)], cut.at, cut.at + cut.seconds) for cut in cuts]
        self._last: dict[tuple[int, int], float] = {}
        self._given: dict[str, tuple[str, bool]] = {}  # whether each actor was given the name that it wanted
        self._claims = claims
        for node in self.nodes if sparse else ():
            self.loop.call_soon(node.begin)
        for number in range(claims):
            spec = Named(f"actor-{self._chance.randrange(1000):03}-{number}", f"name-{self._chance.randrange(3)}")
            self._at(self._chance.uniform(0, SPAN_SECONDS), self.nodes[self._chance.randrange(nodes)].claim, spec)
        for pair, begin, end in self._cuts:
            for here, there in (pair, pair[::-1]):
                noticed = begin + self._chance.uniform(0, NOTICED_SECONDS)
                if noticed < end:
                    self._at(noticed, self.nodes[here].silent.add, there)

    def _at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        def happens() -> None:
            self.outcome.events += 1
            what(*args)

        self.loop.call_at(when, happens)

    def send(self, a: _Node, b: _Node, deliver: Callable[[], None]) -> None:
        """Brings something from a node to another, in order."""
        chance = self._chance
        when = self.loop.time() + (chance.expovariate(1000) if chance.random() < 0.95 else chance.random())
        when = max(when, self._last.get((a.number, b.number), 0.0))
        pair = (min(a.number, b.number), max(a.number, b.number))
        while ends := [end for cut, begin, end in self._cuts if cut == pair and begin <= when < end]:
            when = max(ends)
        self._last[a.number, b.number] = when
        self._at(when, self._delivered, a, b, deliver)

    def _delivered(self, a: _Node, b: _Node, deliver: Callable[[], None]) -> None:
        b.heard(a)
        deliver()

    def answered(self, node: _Node, spec: Named, *, given: bool) -> None:
        """A claim has its answer; what was given is released again after a while, or not."""
        assert spec.id not in self._given, f"the claim of {spec.id} was answered twice"
        self._given[spec.id] = spec.name, given
        if self._trace:
            said = f"node {node.number} {'gives' if given else 'refuses'} {spec.name} to {spec.id}"
            self.outcome.trace.append(f"{self.loop.time():10.6f} {said}")
        if given and not self._cuts:
            others = [
                other.number for other in self.nodes if other is not node and other.names.find(spec.name, "default")
            ]
            assert not others, f"node {node.number} gave {spec.name}, which an actor on node {others[0]} has"
        if given and self._chance.random() < 0.3:
            self._at(self.loop.time() + self._chance.expovariate(1), node.names.release, spec)

    def run(self) -> None:
        """Lets all happen, has all links up again, and looks whether the promises hold."""
        try:
            self.loop.work(self._all_over())
            for here in self.nodes:
                for there in list(here.silent):
                    here.heard(self.nodes[there])
            self.loop.work(self._all_over())
        finally:
            self.outcome.seconds = self.loop.time()
            self.loop.end()
        for claim in self.claimed:
            claim.result()
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

    async def _all_over(self) -> None:
        """Waits until nothing more can happen."""
        await asyncio.sleep(LONGEST_SECONDS)


def _length(chance: random.Random) -> float:
    """Of a cut: any, or just too short for all to notice."""
    return chance.expovariate(0.3) if chance.random() < 0.5 else chance.uniform(0.8, 1.0) * NOTICED_SECONDS


def simulate_names(
    seed: int, *, nodes: int = 4, claims: int = 16, cuts: int = 5, sparse: bool = False, trace: bool = False
) -> Outcome:
    """Runs nodes that give names over a network which is cut now and then; the same seed gives the same run.

    A claim gets exactly one answer. Without cuts no two actors ever have one name; after cuts none do once all nodes
    have met again, and no name is held back for nobody.

    Args:
        seed: decides all that is left to chance; every fourth has no cuts.
        nodes: how many there are.
        claims: how many actors want a name, of three.
        cuts: how many times a link is cut.
        sparse: whether names are known by three nodes each; see `actors.node.directory`.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """
    chance = random.Random(f"cuts/{seed}")  # noqa: S311 - as above
    plan = [
        Fault(chance.uniform(0, SPAN_SECONDS), "cut", chance.randrange(nodes * nodes), _length(chance))
        for _ in range(cuts if seed % 4 else 0)
    ]

    with unheard():
        return held(
            lambda chosen, trace: _World(seed, nodes, claims, chosen, trace, sparse), seed, plan, "names", trace
        )
