"""Views: what a node, and a whole cluster, look like just now. Made for whoever shows them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from actors.events.event import DEAD, RESTARTING
from actors.events.state import State
from actors.events.tally import merge
from actors.frozen import travelling

if TYPE_CHECKING:
    from actors.events.event import ActorChanged, Event, GroupChanged
    from actors.events.tally import Tallies

_OVER = {RESTARTING, DEAD}


@travelling
@dataclass(frozen=True, slots=True)
class OpenCallView:
    """A call that waits or runs.

    Attributes:
        actor: id of the actor that has it.
        label: of that actor, for people.
        state: ``"QUEUED"`` or ``"RUNNING"``.
        age: seconds since it arrived.
        running: seconds since it began; 0 where it waits.
        caller: process that has made it.
        waits_for: what it is blocked on, as far as its process knows: labels of calls.
    """

    actor: str
    label: str
    class_name: str
    method: str
    state: str
    age: float
    running: float
    caller: str
    node: str
    process: str
    waits_for: tuple[str, ...] = ()


@travelling
@dataclass(frozen=True, slots=True)
class ProcessView:
    """A process of a node.

    Attributes:
        kind: ``"node"``, ``"worker"`` or ``"driver"``.
        rss: bytes of memory that are resident; 0 where that cannot be told.
        answered: whether it said just now what it does; one whose interpreter is busy in one long step cannot.
    """

    id: str
    pid: int
    kind: str
    rss: int
    answered: bool


@travelling
@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, as it tells of itself.

    Attributes:
        number: of the latest event in its journal.
        at: when it was asked, by its own clock.
        memory_used: bytes in use on the machine.
        arena: bytes of shared memory of its cluster.
        load: of the machine over the last minute.
        events: what its state can be made of, see `State`.
        calls: that are open there.
        readings: metrics of the user's own, by process.
        carried: by name of the device at the other end (its own for itself) and path: bytes sent and received by the
            links of all processes here.
    """

    id: str
    name: str
    address: str
    pid: int
    chip: str
    cpus: int
    memory: int
    memory_used: int
    arena: int
    load: float
    resources: dict[str, float]
    free: dict[str, float]
    versions: dict[str, str]
    number: int
    at: float
    since: float
    events: tuple[Event, ...]
    calls: tuple[OpenCallView, ...]
    processes: tuple[ProcessView, ...]
    tallies: Tallies
    peers: tuple[tuple[str, float | None], ...] = ()
    readings: tuple[object, ...] = ()
    carried: tuple[tuple[str, str, int, int], ...] = ()


@travelling
@dataclass(frozen=True, slots=True)
class ClusterView:
    """All nodes of a cluster that answered.

    Attributes:
        nodes: those.
        silent: name and reason of each node that is known and did not answer.
    """

    nodes: tuple[NodeView, ...]
    silent: tuple[tuple[str, str], ...] = ()
    state: State = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        state = State(event for node in self.nodes for event in node.events)
        alive = {node.name for node in self.nodes}
        for actor in list(state.actors.values()):
            if actor.node is not None and actor.node not in alive and actor.state != DEAD:
                state.apply(replace(actor, state=DEAD, reason=f"its node {actor.node} does not answer"))
        object.__setattr__(self, "state", state)

    def actors(self, *, ended: bool = False) -> list[ActorChanged]:
        """Returns the actors, without the workers of tasks and hosts; those that have ended too if asked for."""
        return [actor for actor in self.state.actors.values() if (ended or actor.state != DEAD) and not actor.ours]

    def fate(self, member: GroupChanged) -> tuple[str, str]:
        """Returns the state of a member's group and why, as a clause.

        That is ``"BROKEN"`` where one of its actors has died, and ``"CLOSED"`` where all have.
        """
        if member.state != "OPEN":
            return member.state, member.reason
        dead = [
            label
            for rank, label in enumerate(member.members)
            if self._has_died(self.state.groups.get((member.id, rank)))
        ]
        if not dead:
            return member.state, member.reason
        return ("CLOSED", "all have ended") if len(dead) == member.size else ("BROKEN", f"{dead[0]} has died")

    def _has_died(self, member: GroupChanged | None) -> bool:
        """Whether the actor that entered a group is gone; one that was made anew is no member of it."""
        actor = self.state.actors.get(member.actor) if member is not None else None
        return member is not None and actor is not None and (actor.state in _OVER or actor.life > member.life)

    @property
    def calls(self) -> list[OpenCallView]:
        """The calls that are open, the oldest first."""
        return sorted((call for node in self.nodes for call in node.calls), key=lambda call: -call.age)

    def name_of(self, process: str) -> str:
        """Returns what a process is, for people: the label of its actor, or which program."""
        for actor in self.state.actors.values():
            if actor.process == process and not actor.guest:
                return f"{actor.name or actor.class_name}({actor.id})" if not actor.ours else actor.class_name
        pids = [p.pid for node in self.nodes for p in node.processes if p.id == process]
        kind = process.partition("-")[0] or "somebody"
        return f"{kind} {pids[0]}" if pids else kind

    def pending(self, actor: str) -> int:
        """Returns how many calls of an actor wait or run."""
        return sum(call.actor == actor for call in self.calls)

    @property
    def tallies(self) -> Tallies:
        """What all nodes have counted."""
        found: Tallies = {}
        for node in self.nodes:
            merge(found, node.tallies)
        return found
