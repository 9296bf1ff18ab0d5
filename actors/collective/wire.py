"""The fabric between actors: values go straight from process to process, past the mailboxes."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from actors import runtime
from actors.collective.context import add_group
from actors.collective.engine import Engine
from actors.collective.group import Group
from actors.collective.near import NearFabric
from actors.collective.terrain import scattered
from actors.events.event import GroupChanged
from actors.exceptions import CollectiveError
from actors.home import arena_dir
from actors.messages import Payload, Tensor
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.collective.fabric import Fabric
    from actors.collective.terrain import Terrain
    from actors.process import Process
    from actors.spec import GroupSpec
    from actors.transport.acceptor import Visitor
    from actors.transport.peer import Death, Peer

ABORT = "abort"  # the tag that ends a group; no algorithm uses it
LEFT, SENT = "left", "sent"  # keys of a reason that ends it for its sender only, once all that it sent has come
SLICE_SECONDS = 0.2  # an interrupt is seen within this time


class WireFabric:
    """One member's lane to the others; see `actors.collective.fabric.Fabric`.

    A member is watched by the session to it, so that whoever waits for one that has ended is told.
    """

    anywhere = False

    def __init__(self, process: Process, spec: GroupSpec) -> None:
        self._process = process
        self._spec = spec
        self._arrived = threading.Condition()
        self._inbox: dict[tuple[int, str], deque[Payload]] = {}
        self.aborted: str | None = None  # see `Fabric`
        self._left: dict[int, tuple[str, int]] = {}  # why, and how many values it had sent to this one by then
        self._sent, self._taken = ([0] * len(spec.members) for _ in range(2))  # values, to each rank and from each
        self._peers: dict[int, Peer] = {}

    @property
    def rank(self) -> int:
        """See `Fabric`."""
        return self._spec.rank

    @property
    def size(self) -> int:
        """See `Fabric`."""
        return len(self._spec.members)

    @property
    def group(self) -> str:
        """See `Fabric`."""
        return self._spec.id

    @property
    def terrain(self) -> Terrain:
        """See `Fabric`."""
        why = "streams were asked for" if self._spec.backend == "grpc" else "this process shares no memory with others"
        return scattered(self.size, self._spec.costs, why)

    def meet(self, deadline: float) -> None:
        """See `Fabric`: they have what any two processes have."""

    def sub(self, name: str, ranks: Sequence[int]) -> Fabric:
        """See `Fabric`."""
        members = tuple(self._spec.members[rank] for rank in ranks)
        labels = tuple(self._spec.labels[rank] for rank in ranks)
        part = WireFabric(
            self._process, replace(self._spec, id=name, rank=ranks.index(self.rank), members=members, labels=labels)
        )
        self._process.portal.run(self._process.switchboard.add(part))
        return near_if_any(self._process, part, self._spec.backend)

    def close(self) -> None:
        """See `Fabric`."""
        self._process.portal.soon(self._process.switchboard.remove, self.group)
        self._end("it was closed")

    async def open(self) -> None:
        """Begins a session with every other member. On the I/O loop."""
        self._tell("OPEN")
        for rank, address in enumerate(self._spec.members):
            if rank != self.rank:
                peer = self._process.peer(address)
                peer.when_dead(self._lost)
                self._peers[rank] = peer

    def _lost(self, _: Death) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def now(self) -> float:
        """See `Fabric`."""
        return time.monotonic()

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:
        """See `Fabric`."""
        # What goes to a process of this host is copied into memory that they share, and there once only.
        payload = dumps(value, lent=lent and self._spec.members[dst].host != self._process.address.host)
        self._check_alive(dst)
        if dst == self.rank:
            self._put(self.rank, tag, payload)
        else:
            with self._arrived:
                self._sent[dst] += 1
            self._peers[dst].post(Tensor(self.group, self.rank, tag, payload))

    def _check_alive(self, rank: int) -> None:
        if self.aborted is not None:
            raise CollectiveError(self.aborted)
        reason, sent = self._left.get(rank, ("", 0))
        if reason and self._taken[rank] >= sent:
            raise CollectiveError(reason)
        death = self._peers[rank].death if rank != self.rank else None
        if death is not None:
            raise CollectiveError(f"{self.describe(rank)} is gone: {death.reason}")

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        """See `Fabric`."""
        key = (src, tag)
        with self._arrived:
            while (waiting := self._inbox.get(key)) is None:
                self._check_alive(src)
                left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
                if left <= 0:
                    raise TimeoutError(f"{self.describe(src)} sent nothing")
                self._arrived.wait(left)
            payload = waiting.popleft()
            if not waiting:
                del self._inbox[key]
        return loads(payload)

    def abort(self, reason: str) -> None:
        """See `Fabric`."""
        self._end(reason)
        self._tell_others(lambda _: reason)

    def leave(self, reason: str) -> None:
        """See `Fabric`."""
        self._end(reason)
        # A member of an earlier version takes it as the end of the group.
        self._tell_others(lambda rank: {LEFT: reason, SENT: self._sent[rank]})

    def _tell_others(self, why: Callable[[int], object]) -> None:
        for rank, peer in self._peers.items():
            peer.post(Tensor(self.group, self.rank, ABORT, dumps(why(rank))))

    def describe(self, rank: int) -> str:
        """See `Fabric`."""
        return f"rank {rank} ({self._spec.labels[rank]})"

    def take(self, message: Tensor, _: Visitor) -> None:
        """A value of another member has come. On the I/O loop."""
        assert isinstance(message.payload, Payload)
        if message.tag == ABORT:
            self._ended(message.source, loads(message.payload))
        else:
            self._put(message.source, message.tag, message.payload)

    def _ended(self, source: int, why: object) -> None:
        """The group is over, or for one member only."""
        if not isinstance(why, dict):
            self._end(str(why))
            return
        with self._arrived:
            self._left.setdefault(source, (str(why.get(LEFT)), why.get(SENT, 0)))
            self._arrived.notify_all()

    def _put(self, source: int, tag: str, payload: Payload) -> None:
        with self._arrived:
            self._taken[source] += 1
            self._inbox.setdefault((source, tag), deque()).append(payload)
            self._arrived.notify_all()

    def _end(self, reason: str) -> None:
        with self._arrived:
            first = self.aborted is None
            self.aborted = self.aborted or reason
            self._arrived.notify_all()
        if first:
            self._tell("CLOSED", reason)

    def _tell(self, state: str, reason: str = "") -> None:
        if "?" not in self.group:  # else it is a passing one, by which the ranks of another find each other
            spec, node, me = self._spec, self._process.address.node_name, runtime.myself()
            who = (me.spec.id, me.spec.life) if me is not None else ("", 0)
            self._process.recorder.emit(
                GroupChanged(
                    time.time(), spec.id, spec.rank, self.size, spec.labels, spec.backend, state, node, reason, *who
                )
            )


def join_group(process: Process, spec: GroupSpec) -> None:
    """Makes this process a member of a group: `actors.collective` works in it from now on."""
    process.portal.run(enter_group(process, spec))


async def enter_group(process: Process, spec: GroupSpec) -> None:
    """Opens this process's end of a group, for all code that runs here. On the I/O loop."""
    wire = WireFabric(process, spec)
    await process.switchboard.add(wire)
    engine = Engine(wire, await _own_host(process, spec)) if spec.backend == "mlx" else None
    add_group(Group(near_if_any(process, wire, spec.backend), engine))


async def _own_host(process: Process, spec: GroupSpec) -> str:
    """Returns the address of this machine at which the other members reach it."""
    others = [member for member in spec.members if member.host != process.address.host]
    node = await process.node_address(others[0].node) if others else None
    if node is None or not node.doors:
        return "127.0.0.1"
    host, _, port = node.doors[0].rpartition(":")
    host = host.strip("[]")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, int(port)))  # sends nothing
        own: str = probe.getsockname()[0]
        return own


def near_if_any(process: Process, wire: WireFabric, backend: str) -> Fabric:
    """Returns the fabric of a backend: one that uses this host's shared memory, unless that is not wanted."""
    folder = arena_dir(process.folder)
    if backend == "grpc" or (backend != "shm" and (folder is None or process.arena is None)):
        return wire
    key = process.arena.key if process.arena is not None else ""
    # Short, since a socket's path has little room.
    name = hashlib.sha256(f"{process.id} {wire.group}".encode()).hexdigest()[:8]
    return NearFabric(wire, folder or process.folder, key, f"g{name}", required=backend == "shm")
