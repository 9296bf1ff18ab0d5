"""A simulated device: the runtime's own node, as far as it has to do with others, on a simulated machine and LAN."""

from __future__ import annotations

import contextvars
from collections import deque
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.certificate import node_id_of_key, self_signed
from actors.device import Door
from actors.exceptions import ActorDiedError
from actors.identity import Identity
from actors.node.members import Member, Members
from actors.node.naming import Naming
from actors.node.neighbours import Neighbours
from actors.node.residence import Residence
from actors.nodeinfo import NodeInfo
from actors.process import Process
from actors.transport.reception import Reception

from .lan import Host
from .virtual import MACHINE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.address import Address
    from actors.device import Running
    from actors.transport.acceptor import Visitor
    from actors.transport.link import RawLink
    from actors.trust import Roll
    from discovery import NodeRecord

    from .lan import End
    from .membership import World
    from .virtual import Step

NOWHERE = Path("/nonexistent/simulated")


@lru_cache
def identity(number: int) -> Identity:
    """Returns the key of a device: the same one in all runs, so that all is in the same order."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.derive_private_key(1_000_003 + number, ec.SECP256R1())
    return Identity(
        node_id_of_key(key.public_key()),
        self_signed(key).public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )  # fmt: skip


class Disk:
    """What outlives the process of a node; see `actors.node.disk`. It is the roll's store as well."""

    def __init__(self, host: Device) -> None:
        self._host = host
        self._known: dict[str, list[str]] = {}
        self._times = 0
        self.roll: Roll | None = None

    def identity(self) -> Identity:
        """See `actors.node.disk.Disk`."""
        return identity(self._host.number)

    def store(self) -> Disk:
        """See `actors.node.disk.Disk`."""
        return self

    def doors(self) -> dict[str, list[str]]:
        """See `actors.node.disk.Disk`."""
        return dict(self._known)

    def remember_doors(self, more: dict[str, list[str]]) -> None:
        """See `actors.node.disk.Disk`."""
        self._known.update({id: given for id, given in more.items() if given})

    def hosts(self, _: Door) -> tuple[str, ...]:
        """See `actors.node.disk.Disk`."""
        return (self._host.door.partition(":")[0],)

    def announce(self, what: Running) -> None:
        """See `actors.node.disk.Disk`."""

    def stamp(self) -> object:
        """See `actors.node.disk.Store`."""
        return self._times if self.roll is not None else None

    def read(self) -> Roll | None:
        """See `actors.node.disk.Store`."""
        return self.roll

    def change(self, how: Callable[[Roll | None], Roll | None]) -> Roll | None:
        """See `actors.node.disk.Store`."""
        changed = how(self.roll)
        if changed is None or self.roll is None or changed.statements != self.roll.statements:
            self.roll, self._times = changed, self._times + 1
        return self.roll


class Device(Host):
    """A device, and its node while that runs.

    Attributes:
        disk: what it keeps.
        clock: by how much its wall clock is wrong, in seconds.
        life: how often its node was started.
    """

    def __init__(self, world: World, number: int) -> None:
        super().__init__(number, identity(number).node_id)
        self.disk = Disk(self)
        self.clock = 0.0
        self.life = 0
        self.node: Node | None = None
        self.world = world

    def start(self) -> None:
        """Its node is started."""
        self.life += 1
        self.on = True
        machine = Incarnation(self)
        self.node = Node(self, machine)

    def kill(self) -> None:
        """Its node is killed."""
        assert self.node is not None
        self.node.machine.die()
        self.node = None
        self.world.lan.unannounce(self)
        self.world.lan.off(self)

    def stall(self, seconds: float) -> None:
        """It stands still for so long, from now on."""
        self.until = max(self.until, self.world.loop.time() + seconds)
        if self.node is not None:
            self.node.machine.stands_still()

    def announce(self) -> None:
        """It is announced again, at the address that it has now."""
        if self.node is not None and self.node.resided is not None:
            self.node.resided.announce()

    def lets_in(self, id: str) -> bool:
        """See `Host`: by what its node has in force."""
        return self.node is not None and bool(self.node.members.trusted and self.node.members.trusted(id))


class Incarnation:
    """A machine, in one life of its node; see `actors.simulation.virtual.Machine`."""

    def __init__(self, device: Device) -> None:
        self.dead = False
        self._device = device
        self._loop = device.world.loop
        self._waiting: deque[Step] = deque()
        self.context = contextvars.Context()
        self.context.run(MACHINE.set, self)
        self._over = False
        self._loop.machines.append(self)
        if device.until > self._loop.time():
            self.stands_still()

    def wall(self) -> float:
        """See `Machine`."""
        return self._loop.time() + self._device.clock

    def stands_still(self) -> None:
        """Does nothing until its device does something again."""
        self._loop.held.add(self)

    def die(self) -> None:
        """Does nothing any more."""
        self.dead = True
        self._loop.held.add(self)

    def holds_back(self, step: Step) -> bool:
        """See `Machine`."""
        if self._over or not (self.dead or self._waiting or self._loop.time() < self._device.until):
            self._loop.held.discard(self)
            return False
        self._waiting.append(step)
        if len(self._waiting) == 1 and not self.dead:
            self._wake_later()
        return True

    def _wake_later(self) -> None:
        self._device.world.lan.at(self._device.until, self._go_on)

    def _go_on(self) -> None:
        if self._loop.time() < self._device.until and not self._over:
            self._wake_later()
            return
        while self._waiting and (self._over or not self.dead):
            step = self._waiting.popleft()
            if not step.off:
                self._loop.do(step)

    def ends(self) -> None:
        """See `Machine`."""
        self._over = True
        self._loop.held.discard(self)
        self._loop.call_soon(self._go_on, context=contextvars.Context())


class Node:
    """The runtime's own: a process with its peers and its acceptor, members, names and trust."""

    def __init__(self, device: Device, machine: Incarnation) -> None:
        self.device = device
        self.machine = machine
        self.lan = device.world.lan
        self.process: Process
        self.members: Members
        self.residence: Residence
        self.resided: Resided | None = None  # while it is announced
        machine.context.run(self._make)
        self._begin(self._start())

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        return self.device.world.loop.create_task(work, context=self.machine.context.copy())

    def _make(self) -> None:
        device = self.device
        id, name = device.id, f"node-{device.number}"
        self.process = Process(f"node-{device.number}.{device.life}", NOWHERE, id, name, portal=Portal(self))  # type: ignore[arg-type]
        self.process.dialer = Dialer(device)  # type: ignore[assignment]
        self.process.server = Server(self)  # type: ignore[assignment]
        info = NodeInfo(id, name, "", True, device.number, "zeroconf", {}, {}, {}, {})
        self.members = Members(self.process, Member(info, self.process.address))
        self.neighbours = Neighbours(self.process, self.members, device.world.limit)
        naming = Naming(self.process, self.members, lambda *_: None)
        self.residence = Residence(
            self.process, self.members, list, Door(), disk=device.disk, reside=partial(Resided, self)
        )
        if device.world.grows:
            self.members.belonging = lambda: 0
        self.members.watchers.append(lambda: device.world.saw(self))
        for service, instance in (
            ("node", Described(self.members)), ("names", naming), ("trust", self.residence), ("probe", Probed(device)),
            ("neighbours", self.neighbours),
        ):  # fmt: skip
            self.process.serve(service, instance)

    async def _start(self) -> None:
        self.process.directory[self.device.id] = self.process.address
        await self.residence.start()
        await self.device.world.probes(self)

    def came_in(self, link: End) -> None:
        """A connection was opened to its door."""
        self._begin(self._reception.greet(link))

    async def probe(self, member: Member, key: str) -> None:
        """Calls another node, and says what came of it."""
        world = self.device.world
        try:
            await self.process.ask(member.where, "probe", "begin", key, timeout=None)
            world.probed(key, self.device.id, member.info.id, None)
        except ActorDiedError as error:
            world.probed(key, self.device.id, member.info.id, error.verdict)

    @property
    def _reception(self) -> Reception:
        return Reception(self.process.id, self.process.acceptor)


class Portal:
    """A node's way to its loop; see `actors.transport.portal`."""

    def __init__(self, node: Node) -> None:
        self.loop = node.device.world.loop
        self._context = node.machine.context

    def soon(self, work: Callable[..., Any], *args: Any) -> None:
        """See `actors.transport.portal.Portal`."""
        self.loop.call_soon(work, *args, context=self._context.copy())


class Dialer:
    """See `actors.transport.link.Dialer`."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def _trusts(self, id: str) -> bool:
        roll = self._device.disk.roll
        return roll is not None and id in roll.members

    async def dial(self, address: Address, lane: str) -> RawLink:
        """See `actors.transport.link.Dialer`."""
        del lane
        return await self._device.world.lan.dial(self._device, self._device.id, address, self._trusts)

    async def close(self) -> None:
        """See `actors.transport.link.Dialer`."""


class Server:
    """See `actors.transport.ways_in.WaysIn`: the door of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def listen_door(self, address: str, credentials: object, member: object) -> int:
        """See `actors.transport.ways_in.WaysIn`."""
        del address, credentials, member
        self._node.device.listening = self._node.came_in
        return 50099

    async def close_door(self) -> None:
        """See `actors.transport.ways_in.WaysIn`."""
        self._node.device.listening = None

    async def evict(self, node: str) -> None:
        """See `actors.transport.ways_in.WaysIn`."""
        for end in [end for end in self._node.lan.links if end.here is self._node.device and end.node == node]:
            await end.close()


class Resided:
    """A node among the announced ones; see `discovery.reside`."""

    def __init__(self, node: Node, record: NodeRecord, interfaces: object, on_event: Callable[[Any], None]) -> None:
        del interfaces
        self._node = node
        self._record = record
        self._on_event = on_event

    async def __aenter__(self) -> None:
        self._node.resided = self
        self.announce()

    def announce(self) -> None:
        """The node is announced, where there is multicast."""
        from discovery import Found

        device = self._node.device
        if device.world.multicast:
            record = replace(self._record, addresses=(device.door.partition(":")[0],))
            self._node.lan.announce(device, record, lambda heard: self._on_event(Found(heard)))

    async def __aexit__(self, *_: object) -> None:
        self._node.resided = None
        self._node.lan.unannounce(self._node.device)


class Described:
    """What of the service ``"node"`` others need to take a node in."""

    def __init__(self, members: Members) -> None:
        self._members = members

    async def describe(self, _: Visitor) -> tuple[NodeInfo, Address]:
        """See `actors.node.service.NodeService`."""
        return self._members.me.info, self._members.me.where


class Probed:
    """A service whose calls are looked after: when each started."""

    def __init__(self, device: Device) -> None:
        self._device = device

    async def begin(self, _: Visitor, key: str) -> None:
        """A call starts."""
        self._device.world.begun(key)
