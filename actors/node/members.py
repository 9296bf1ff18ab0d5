"""The nodes of the cluster as one of them sees them: found by discovery, proved by their key, watched by a stream."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from actors.address import Address
from actors.demand import parts
from actors.nodeinfo import NODE_NAME
from actors.transport.inquiry import process_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.demand import Parts
    from actors.nodeinfo import NodeInfo
    from actors.process import Process
    from actors.transport.peer import Peer
    from discovery import NodeRecord

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""To reach one node by different announcements at a time: a false one must not keep the true one waiting."""

INQUIRY_SECONDS = 8.0
MOST_DOORS = 32
ORPHANED_SECONDS = 1.0
MOST_BLAMED = 1000
MOST_TRIES = 10
"""To take in a node of a LAN in miniature, which nothing else looks for: it may just have been slow to start."""

QUIET_SECONDS = 0.3
"""A connection that is up again by then was never missed."""

OPEN_SECONDS = 5.0
"""The same for one that was not up before, to a node that others say is there."""


@dataclass(slots=True, eq=False)
class Member:
    """What is known of one node.

    Attributes:
        info: as it describes itself.
        where: how to reach it.
        actors: how many it hosts, by its last report and what was sent there since.
        reported: when that report came, on the loop's clock.
        why: why it does not answer; empty while it does.
        ended: whether it is known to have ended; one that does not answer and has not is only silent.
        totals: its resources, in parts; see `actors.demand`.
        free: what of them is free, by that report and what was sent there since.
        lost: the process of it that a conversation has found dead, before this node's own watch has.
        peer: what is watched of it; None where nothing is, since others do.
        met: whether those that want to speak with each that comes were told of it.
    """

    info: NodeInfo
    where: Address
    actors: int = 0
    reported: float = float("-inf")
    why: str = ""
    ended: bool = False
    watch: asyncio.Task[None] | None = field(default=None, repr=False)
    quiet: asyncio.TimerHandle | None = field(default=None, repr=False)
    totals: Parts = field(init=False)
    free: Parts = field(init=False)
    asking: asyncio.Task[None] | None = field(default=None, repr=False)
    lost: str | None = None
    peer: Peer | None = field(default=None, repr=False)
    met: bool = False

    @property
    def linked(self) -> bool:
        """Whether a connection that is watched is up."""
        return self.peer is not None and self.peer.linked

    def __post_init__(self) -> None:
        self.totals = parts(self.info.resources)
        self.free = dict(self.totals)


class Members:
    """All nodes this one knows, itself included."""

    def __init__(self, process: Process, me: Member) -> None:
        self._process = process
        self.me = me
        self._all: dict[str, Member] = {me.info.id: me}
        self._order: list[Member] | None = None  # of `all`, until who is known or what one is called changes
        self._joining: dict[str, dict[tuple[str, ...], asyncio.Task[None]]] = {}  # by id and doors
        self._next: dict[str, Address] = {}  # what was announced last, where enough is being tried
        self.failures: dict[str, str] = {}  # what taking in a node failed with last, by id
        self._blamed: set[tuple[str, tuple[str, ...]]] = set()
        self._tries: dict[str, int] = {}  # that came to nothing, by id
        self._closed = self._told_soon = False
        self._telling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self.on_joined: list[Callable[[Member], None]] = []  # told of each that comes, or is back after a silence
        self.on_ended: list[Callable[[], None]] = []  # told whenever one is known to have ended
        self.watchers: list[Callable[[], None]] = []  # told of each that comes or goes
        self.on_fate: Callable[[Member], None] | None = None  # told of each that comes, and when it goes
        self.on_verdict: Callable[[Member], None] | None = None  # told where one that is watched is silent or ended
        self.trusted: Callable[[str], bool] | None = None  # whether a node may come at all
        self.belonging: Callable[[], int] = lambda: 0  # how many may come, where that is known
        self.wanted: Callable[[str, bool], bool] | None = None  # whether one that is not known is to be met
        self.sparse = False  # most are known by what others say; see `actors.node.neighbours`

    def get(self, node: str) -> Member:
        """Returns the node with this id, which must be known."""
        return self._all[node]

    def find(self, node: str) -> Member | None:
        """Returns the node with this id, if it is known."""
        return self._all.get(node)

    def all(self) -> list[Member]:
        """Returns every node ever known, this one first, then by name."""
        if self._order is None:
            others = [member for member in self._all.values() if member is not self.me]
            self._order = [self.me, *sorted(others, key=lambda member: member.info.name)]
        return list(self._order)

    def alive(self) -> list[Member]:
        """Returns the nodes that answer."""
        return [member for member in self.all() if member.info.alive]

    def standing(self) -> list[Member]:
        """Returns the nodes that are not known to have ended: those that answer, and those that are only silent."""
        return [member for member in self.all() if not member.ended]

    def others(self) -> list[Member]:
        """Returns the nodes that answer, but for this one."""
        return [member for member in self.alive() if member is not self.me]

    def partners(self) -> list[Member]:
        """Returns those that this node speaks to of its own accord: all that answer; where it is sparse, neighbours."""
        return [member for member in self.others() if not self.sparse or member.peer is not None]

    def joining(self) -> int:
        """Returns how many are just being met."""
        return len(self._joining)

    def why(self, id: str) -> str:
        """Returns why a node that was here does not answer; empty for one that does, or was never here."""
        member = self._all.get(id)
        return member.why if member is not None else ""

    def found(self, record: NodeRecord) -> None:
        """Discovery has seen a node; it is a hint until the node has proved who it is. On the I/O loop."""
        doors = tuple(f"{_bracketed(address)}:{record.port}" for address in record.addresses)
        self.found_at(Address(record.boot, "", "", record.id, doors, record.name))

    def found_at(self, where: Address, *, proved: bool = False) -> None:
        """A node is said to be at this address; see `found`.

        Args:
            where: the address.
            proved: whether the node itself says so, over a connection that shows its key.
        """
        id, known = where.node, self._all.get(where.node)
        if self._closed or id == self.me.info.id or (self.trusted is not None and not self.trusted(id)):
            return
        if known is not None and not known.ended and known.where.process == where.process:
            self._moved(known, where.doors)
            return
        if self.wanted is not None and not self.wanted(id, proved):
            return
        attempts = self._joining.setdefault(id, {})
        if where.doors in attempts:
            return
        if len(attempts) >= ATTEMPTS:
            self._next[id] = where
            return
        task = asyncio.get_running_loop().create_task(self._join(id, where, proved))
        attempts[where.doors] = task
        task.add_done_callback(lambda _: self._attempted(id, where.doors))

    def _attempted(self, id: str, doors: tuple[str, ...]) -> None:
        attempts = self._joining.get(id, {})
        attempts.pop(doors, None)
        if not attempts:
            self._joining.pop(id, None)
        if not self._closed and (waiting := self._next.pop(id, None)) is not None:
            self.found_at(waiting)

    def _moved(self, known: Member, doors: tuple[str, ...]) -> None:
        """A node that is here announces other addresses: one more of them may work when the present one does not."""
        both = tuple(dict.fromkeys((*doors, *known.where.doors)))[:MOST_DOORS]
        if both != known.where.doors:
            known.where = replace(known.where, doors=both)
            self._process.relocate(known.where)

    def is_joining(self, id: str) -> bool:
        """Whether a node is just being met."""
        return id in self._joining

    def says(self, where: Address) -> None:
        """A node has said itself where it is now."""
        known = self._all.get(where.node)
        if known is not None and known is not self.me and known.where.process == where.process and where.doors:
            known.info = replace(known.info, address=where.doors[0])
            self._moved(known, where.doors)

    async def _join(self, id: str, where: Address, proved: bool) -> None:
        try:
            process = where.process
            if not proved:
                # What was announced is a hint that anybody can give, the process too: whoever has the key says it.
                async with asyncio.timeout(INQUIRY_SECONDS):
                    process = await process_at(replace(where, process=""), self._process.dialer)
            known = self._all.get(id)
            if known is not None and not known.ended and known.where.process == process:
                self._moved(known, where.doors)
                return
            where = replace(where, process=process)
            peer = self._process.peer(where)
            self._process.relocate(where)
            info, there = await self._process.ask(where, "node", "describe", timeout=INQUIRY_SECONDS)
            if info.id != id:
                raise ValueError("it says that it is another node")
        except Exception as error:
            self._not_taken_in(where, error)
            self._process.forget(where.process)
            return
        # All of them have one peer, which may have come in by another one's doors.
        doors = dict.fromkeys((*where.doors, *there.doors))
        for others, task in self._joining.get(id, {}).items():
            doors.update(dict.fromkeys(others))
            if others != where.doors:
                task.cancel()
        self._next.pop(id, None)
        await self.joined(info, replace(there, doors=tuple(doors)[:MOST_DOORS]), peer)

    def _not_taken_in(self, where: Address, error: Exception) -> None:
        """What comes of a wrong hint is this line, once."""
        self.failures[where.node] = str(error) or type(error).__name__
        if self.trusted is None and (tries := self._tries.get(where.node, 0) + 1) <= MOST_TRIES:
            self._tries[where.node] = tries
            self._process.loop.call_later(min(0.5 * tries, 3.0), self.found_at, where)
        seen = (where.node, where.doors)
        if seen not in self._blamed and len(self._blamed) < MOST_BLAMED:
            self._blamed.add(seen)
            log.warning(
                "the node announced at %s was not taken in: %s. `actors doctor` tells more",
                ", ".join(where.doors), error or type(error).__name__,
            )  # fmt: skip

    async def joined(self, info: NodeInfo, where: Address, peer: Peer | None) -> None:
        """A node has described itself."""
        member = Member(info, where)
        self._all[info.id], self._order = member, None
        self.failures.pop(info.id, None)
        self._tries.pop(info.id, None)
        self._process.directory[info.id] = where
        if peer is not None:
            member.watch = asyncio.create_task(self._watch(member, peer))
        if self.on_fate is not None:
            self.on_fate(member)
        await self._tell()
        self._met(member)

    # -- what others say ----------------------------------------------------------------------------------------

    def said_here(self, info: NodeInfo, where: Address) -> None:
        """Others say that a node is there, and what it is. What is watched here is known better."""
        known = self._all.get(info.id)
        if known is not None and not known.ended and known.where.process == where.process:
            self._moved(known, where.doors)
            back = not known.info.alive and known.peer is None
            known.info, self._order = replace(info, alive=back or known.info.alive), None
            if back:
                known.why = ""
                self._tell_once()
            return
        if known is not None:
            _let_go(known)
            if not known.ended:
                self._ended(known, "it was started anew")
        member = self._all[info.id] = Member(replace(info, alive=True), where)
        self._order = None
        self._process.directory[info.id] = where
        self._process.forget(where.process, dead=True)  # it is not, after all
        if self.on_fate is not None:
            self.on_fate(member)
        self._tell_once()

    def said_silent(self, member: Member) -> None:
        """Others say that a node does not answer."""
        if member.info.alive and not member.linked:
            self._hush(member)

    def said_ended(self, member: Member, reason: str) -> None:
        """Others say that a node has ended."""
        if not member.ended and not member.linked:
            _let_go(member)
            self._ended(member, reason)
            self._tell_once()

    def watch(self, member: Member) -> None:
        """Looks after a node from now on, of which others have told."""
        self._process.forget(member.where.process, dead=True)
        peer = member.peer = self._process.peer(member.where)
        member.watch = self._process.loop.create_task(self._watch(member, peer, OPEN_SECONDS))

    def unwatch(self, member: Member) -> None:
        """Leaves it to others to look after a node; what is said to it goes on."""
        if member.peer is not None:
            member.peer.on_link = None
        _let_go(member)

    # -- what is seen here --------------------------------------------------------------------------------------

    def _met(self, member: Member) -> None:
        member.met = True
        if member is not self.me:
            for told in self.on_joined:
                told(member)

    def rename(self, name: str) -> None:
        """This node is called otherwise in its cluster."""
        info = self.me.info
        if info.name == name:
            return
        resources = {key: amount for key, amount in info.resources.items() if key != f"node:{info.name}"}
        self.me.info = replace(
            info, name=name, resources={**resources, f"node:{name}": 1.0}, labels={**info.labels, NODE_NAME: name}
        )
        self.me.where = replace(self.me.where, node_name=name)

    async def evict(self, id: str) -> None:
        """A device is trusted no longer."""
        self._next.pop(id, None)
        for task in self._joining.pop(id, {}).values():
            task.cancel()
        member, self._order = self._all.pop(id, None), None
        if member is not None:
            _let_go(member)
            await self._tell()

    async def _watch(self, member: Member, peer: Peer, patience: float = QUIET_SECONDS) -> None:
        member.peer = peer
        peer.on_link = lambda up: self._linked(member, up)
        if not peer.linked:
            member.quiet = asyncio.get_running_loop().call_later(patience, self._silent, member)
        elif not member.met and patience != QUIET_SECONDS:
            self._met(member)
        await peer.dead.wait()
        self._process.forget(member.where.process)
        assert peer.death is not None
        await self.died(member, peer.death.reason)

    def _linked(self, member: Member, up: bool) -> None:
        """The connection to a node broke, or is back. On the I/O loop."""
        if member.quiet is not None:
            member.quiet.cancel()
            member.quiet = None
        if not up:
            member.quiet = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._silent, member)
        elif not member.info.alive and not member.ended:
            member.info, member.why = replace(member.info, alive=True), ""
            self._tell_soon()
            self._met(member)
        elif not member.met:
            self._met(member)

    def _silent(self, member: Member) -> None:
        """A node does not answer: nothing is placed there. Whether it has ended, only more time can tell."""
        self._hush(member)
        if self.on_verdict is not None:
            self.on_verdict(member)

    def _hush(self, member: Member) -> None:
        member.info = replace(member.info, alive=False)
        member.why = f"it has been silent since {time.strftime('%H:%M:%S')}"
        self._tell_soon()

    def _tell_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _tell_once(self) -> None:
        """Tells of all that is said in one go: many may come or go at once."""
        if not self._told_soon:
            self._told_soon = True
            self._tell_soon()

    async def died(self, member: Member, reason: str) -> None:
        """A node is known to be gone."""
        self._ended(member, reason)
        if self.on_verdict is not None:
            self.on_verdict(member)
        await self._tell()

    def _ended(self, member: Member, reason: str) -> None:
        if member.quiet is not None:
            member.quiet.cancel()
        member.info = replace(member.info, alive=False)
        member.ended, member.peer = True, None
        member.why = f"{reason}, at {time.strftime('%H:%M:%S')}"
        member.actors = 0
        for told in self.on_ended:
            told()
        if self.on_fate is not None:
            self.on_fate(member)
        if member.where.host == self._process.address.host:  # its actors end with it, and it buries them no more
            self._process.loop.call_later(ORPHANED_SECONDS, self._process.clear_after_others)

    async def _tell(self) -> None:
        self._told_soon = False
        for watcher in self.watchers:
            watcher()
        async with self._changed:
            self._changed.notify_all()

    async def wait_for(self, count: int, timeout: float) -> list[Member]:
        """Waits until ``count`` nodes are alive, or the time is over; returns those that are."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(lambda: len(self.alive()) >= count)
        except TimeoutError:
            pass
        return self.alive()

    def close(self) -> None:
        """Stops watching."""
        self._closed = True
        for attempts in self._joining.values():
            for task in attempts.values():
                task.cancel()
        for member in self._all.values():
            _let_go(member)


def _let_go(member: Member) -> None:
    if member.watch is not None:
        member.watch.cancel()
    if member.quiet is not None:
        member.quiet.cancel()
    member.watch = member.quiet = member.peer = None


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
