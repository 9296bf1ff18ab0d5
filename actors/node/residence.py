"""A device's node among the others: whom it trusts, its door, how it is found, and who is shut out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from actors import device
from actors.exceptions import ActorDiedError, ActorsError, AuthenticationError
from actors.identity import TrustSet
from actors.node.admission import must_be_local
from actors.node.doorman import Doorman
from actors.node.seeking import Seeking
from actors.shortage import aside
from actors.trust import Roll, Statement
from discovery.record import NodeRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.node.disk import Disk
    from actors.node.members import Member, Members
    from actors.nodeinfo import NodeInfo
    from actors.process import Process
    from actors.transport.acceptor import Visitor

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the device's trust on disk, which any of its commands may change."""

TELL_SECONDS = 2.0
FAREWELL_SECONDS = 0.5
SILENCE_SECONDS = 1.0
MEET_SECONDS = 5.0
REFRESH_SECONDS = 5.0
"""Between two looks at the addresses of this device."""

COMPARE_SECONDS = 30.0
"""Between two comparisons with other members, should the word of a change be lost."""

MOST_COMPARED = 16
"""Members that are compared with each time, at random where there are more; what one has heard, it tells others."""

MOST_TOLD = 32
"""Addresses in a greeting, at random where there are more: with all of them, N nodes would send N * N * N addresses."""

MOST_HINTS = 1000


class Residence:
    """The service ``"trust"`` of a device's node, and what follows from it.

    Args:
        process: the node's.
        members: the nodes it knows.
        processes: returns where the other processes of the node are.
        door: where it is to listen while the device is paired.
        disk: what is kept on the device.
        reside: announces the node and finds others; None for `discovery.reside`, which is loaded once there is a door.
    """

    def __init__(
        self, process: Process, members: Members, processes: Callable[[], list[Address]], door: device.Door,
        *, disk: Disk = device, reside: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        self._process = process
        self._members = members
        self._processes = processes
        self._door = door
        self._disk = disk
        self._reside = reside
        self._identity = disk.identity()
        self._store = disk.store()
        self._trust = TrustSet()
        self._roll: Roll | None = None
        self._stamp: object = ()
        self._taking = asyncio.Lock()
        self._news = asyncio.Event()  # a member has told of a change, which is on disk by now
        self._port: int | None = None
        self._doorman = Doorman(process.loop, self._friends)
        self._discovery: Any = None
        self._entering: asyncio.Task[None] | None = None  # discovery
        self._untold: set[str] = set()  # with whom trust could not be compared; it is tried again
        self._hints: dict[str, Address] = {}  # where those are said to be who do not belong, as far as is known
        self._seeking = Seeking(process, members, self._trust, disk)
        self._since = time.time()
        self._changed_at = 0.0  # on the loop's clock: when the circle of members, or this node, was last new
        self._tasks: set[asyncio.Task[None]] = set()
        members.trusted, members.belonging = self._trust.__contains__, self._trust.__len__
        members.on_joined.append(self._joined)

    async def start(self) -> None:
        """Takes the device's trust as it is, then watches it."""
        self._changed_at = self._process.loop.time()
        await self._look()
        self._announce()
        self._keep(self._watch())

    async def close(self) -> None:
        """Shuts the door."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._seeking.close()
        await self._hide()

    def _keep(self, work: Any) -> None:
        task = self._process.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- trust --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        refreshed = compared = self._process.loop.time()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
            self._news.clear()
            try:
                if self._store.stamp() != self._stamp:
                    await self._look()
            except (ActorsError, OSError) as error:
                log.error("this device's trust cannot be read, and stays as it was: %s", error)
            due, self._untold = self._untold, set()
            now, moved = self._process.loop.time(), False
            if now - refreshed > REFRESH_SECONDS:
                refreshed = now
                moved = self._refresh_doors()  # who dials this device is to know where it is now
            if now - compared > COMPARE_SECONDS:
                compared, others = now, self._others()
                due |= {member.info.id for member in random.sample(others, min(len(others), MOST_COMPARED))}
            if moved or due:
                self._exchange_with([member for member in self._others() if moved or member.info.id in due])

    async def _look(self) -> None:
        """Takes over what has changed on disk."""
        async with self._taking:
            stamp = self._store.stamp()
            if stamp == self._stamp:
                return
            roll = await aside(self._store.read)
            self._stamp = stamp
            await self._take(roll)

    async def _take(self, roll: Roll | None) -> None:
        before, self._roll = self._roll, roll
        belongs = roll is not None and self._identity.node_id in roll.members
        members = roll.members if roll is not None and belongs else {}
        gone = [id for id in self._trust if id not in members]
        fresh = [id for id in members if id not in self._trust]
        if gone and roll is not None and (belongs or self._has_left(roll)):
            await self._tell_removed(roll, gone)  # the last they hear of us is why
        self._trust.replace([member.certificate for member in members.values()])
        for id in gone:
            if id != self._identity.node_id:
                name = before.members[id].name if before is not None and id in before.members else id
                await self._shut_out(id, f"device {name} was removed from the cluster")
        if belongs and self._port is None:
            await self._show()
        elif not belongs and self._port is not None:
            log.warning("this device does not belong to its cluster any more: its door is shut")
            await self._hide()
        for hint in [self._hints.pop(id) for id in fresh if id in self._hints]:
            self._members.found_at(hint)
        if fresh:
            self._changed_at = self._process.loop.time()
            self._seeking.look_again()
        if before is not None and roll is not None and belongs:
            self._exchange_with(self._others())

    def _has_left(self, roll: Roll) -> bool:
        me = self._identity.node_id
        return any(said.kind == "rm" and said.author == said.subject == me for said in roll.statements.values())

    async def _tell_removed(self, roll: Roll, gone: list[str]) -> None:
        plain = roll.to_plain()
        told = [member for member in self._members.others() if member.info.id in gone]
        asks = [self._process.ask(m.where, "trust", "merge", plain, timeout=FAREWELL_SECONDS) for m in told]
        await asyncio.gather(*asks, return_exceptions=True)

    async def _shut_out(self, id: str, reason: str) -> None:
        """Ends what connects this device with another one, in all its processes."""
        log.warning("%s: its connections are cut", reason)
        await self._members.evict(id)
        for address in self._processes():
            self._process.tell(address, "membership", "cut", id, reason)
        await self._process.cut(id, reason)

    def _others(self) -> list[Member]:
        return self._members.partners()

    def _joined(self, member: Member) -> None:
        self._remember(member.where)
        # It may be back because this device has another address now, which the others do not know either.
        self._exchange_with(self._others() if self._refresh_doors() else [member])

    def _remember(self, where: Address) -> None:
        self._keep(aside(self._disk.remember_doors, {where.node: list(where.doors)}))

    def _exchange_with(self, members: list[Member]) -> None:
        for member in members:
            self._keep(self._exchange(member))

    async def _exchange(self, member: Member) -> None:
        """Compares trust with a member, and tells it where this node and others are."""
        roll = self._roll
        if roll is None:
            return
        me = self._members.me
        known = [other.where for other in self._others() if other is not member]
        told = random.sample(known, min(len(known), MOST_TOLD))
        try:
            ask = self._process.ask
            theirs, statements = await ask(
                member.where, "trust", "greet", me.where, told, roll.digest, timeout=TELL_SECONDS
            )
            if statements is not None:
                await self._merge(statements)
            if self._roll is not None and theirs != self._roll.digest:
                await ask(member.where, "trust", "merge", self._roll.to_plain(), timeout=TELL_SECONDS)
        except (TimeoutError, ActorDiedError, AuthenticationError) as error:
            self._untold.add(member.info.id)
            log.info("trust was not compared with node %s: %s", member.info.name, error)

    async def _merge(self, plain: list[Any]) -> None:
        """Takes over what a member says; the next look at the disk, which is due then, puts it in force."""
        statements = [Statement.from_plain(each) for each in plain]
        await aside(self._store.change, lambda roll: roll.merged(statements) if roll is not None else None)
        self._news.set()

    # -- service ------------------------------------------------------------------------------------------------

    def _check(self, visitor: Visitor) -> None:
        if visitor.node is not None and visitor.node not in self._trust:
            raise AuthenticationError("this device is no member of the cluster")

    async def greet(
        self, visitor: Visitor, where: Address, others: list[Address], digest: str
    ) -> tuple[str, list[Any] | None]:
        """Another node says where it and others are, and what it knows; returns what this one knows if it differs."""
        self._check(visitor)
        for address in (where, *others):
            if address.node in self._trust:
                if address.doors and self._members.find(address.node) is None:
                    self._remember(address)  # where it is looked for, should it not let this one in at once
                self._members.found_at(address, proved=address.node == visitor.node)
            elif address.node in self._hints or len(self._hints) < MOST_HINTS:
                self._hints[address.node] = address
        if where.node == visitor.node:
            self._members.says(where)
            self._remember(where)  # it may be lost, and looked for there, before it is met anew
        roll = self._roll
        if roll is None or roll.digest == digest:
            return digest, None
        return roll.digest, roll.to_plain()

    async def merge(self, visitor: Visitor, plain: list[Any]) -> None:
        """A member tells what it knows about who belongs."""
        self._check(visitor)
        await self._merge(plain)

    async def look(self, visitor: Visitor) -> None:
        """A command of this device has changed its trust: returns once that is in force."""
        must_be_local(visitor)
        await self._look()

    async def prepare(self, visitor: Visitor) -> None:
        """A command is about to pair this device: what a door needs is loaded meanwhile."""
        must_be_local(visitor)
        for module in ("actors.transport.credentials", "actors.transport.public", "discovery.mdns"):
            await aside(import_module, module)
        import_module("actors.transport.grpc_server")  # which wants the I/O loop's thread

    async def told(self, visitor: Visitor) -> None:
        """Returns once all members that answer know what this device knows; of many, its neighbours."""
        must_be_local(visitor)
        await self._look()
        await asyncio.gather(*(self._exchange(member) for member in self._others()))

    async def reach(self, visitor: Visitor, doors: list[str]) -> list[str]:
        """Looks for nodes at given addresses; returns the node ids that answered.

        Raises:
            AuthenticationError: who answers there is not paired with this device.
        """
        must_be_local(visitor)
        return [await self._seeking.reach(door) for door in doors]

    async def meet(self, visitor: Visitor, id: str, timeout: float = MEET_SECONDS) -> bool:
        """Returns when this member answers, or the time is over: then False."""
        must_be_local(visitor)
        self._seeking.look_again()
        deadline = self._process.loop.time() + timeout
        while id not in {member.info.id for member in self._members.alive()}:
            if self._process.loop.time() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def settle(
        self, visitor: Visitor, wanted: int | None, timeout: float
    ) -> tuple[list[NodeInfo], dict[str, str]]:
        """Returns when each member has answered or was silent for a second; with ``wanted``, when so many answer.

        Returns:
            The nodes that answer; and why the others cannot be used, by name.
        """
        must_be_local(visitor)
        loop = self._process.loop
        count = wanted if wanted is not None else len(self._trust) or 1
        left = timeout if wanted is not None else max(0.0, self._changed_at + SILENCE_SECONDS - loop.time())
        alive = [member.info for member in await self._members.wait_for(count, left)]
        present = {info.id for info in alive}
        missing = {} if self._roll is None else {
            member.name: self._seeking.why(member.id)
            for member in self._roll.members.values() if member.id not in present
        }  # fmt: skip
        return alive, missing

    async def circle(self, visitor: Visitor) -> dict[str, Any]:
        """Returns the state of things, for `actors status`."""
        must_be_local(visitor)
        return {
            "cluster": self._roll.cluster if self._roll is not None else None,
            "nodes": [member.info for member in self._members.all()],
            "why": {id: self._seeking.why(id) for id in self._trust},
        }

    # -- the door -----------------------------------------------------------------------------------------------

    async def _show(self) -> None:
        """Opens the door and says where it is."""
        from actors.transport.credentials import server_credentials

        assert self._roll is not None
        self._members.rename(self._roll.members[self._identity.node_id].name)
        ports = [self._door.port] if self._door.given or not self._door.port else [self._door.port, 0]
        host = f"[{self._door.host}]" if ":" in self._door.host else self._door.host
        for port in ports:
            try:
                self._port = await self._process.server.listen_door(
                    f"{host}:{port}", lambda: server_credentials(self._identity, self._trust, self._doorman.knocked),
                    self._member_at,
                )  # fmt: skip
                break
            except RuntimeError as error:
                problem = error
        if self._port is None:
            raise ActorsError(
                f"the door cannot be opened at {host}:{self._door.port}: is the port taken? "
                f"Choose another by `actors start --port` ({problem})"
            )
        self._doorman.port = self._port
        self._refresh_doors()
        self._announce()
        self._seeking.start()  # by addresses that are known; whoever waits for it is not to wait for multicast
        self._entering = self._process.loop.create_task(self._enter_discovery())

    def _member_at(self, context: Any) -> str | None:
        """Returns which member has opened a stream; on the I/O loop."""
        from actors.transport.credentials import peer_node_id

        node = peer_node_id(context.auth_context(), self._trust)
        if node is not None:
            self._doorman.proved(context.peer())
        return node

    def _friends(self) -> dict[str, str]:
        """The IP addresses of members, and their names."""
        named = {member.id: member.name for member in self._roll.members.values()} if self._roll is not None else {}
        doors = {id: known for id, known in self._disk.doors().items() if id in named and id in self._trust}
        for member in self._members.all():
            doors[member.info.id] = [*doors.get(member.info.id, []), *member.where.doors]
        return {
            door.rpartition(":")[0].strip("[]").partition("%")[0]: named.get(id, "a member")
            for id, known in doors.items() for door in known
        }  # fmt: skip

    def _refresh_doors(self) -> bool:
        """Looks at the addresses of this device; returns whether they have changed."""
        if self._port is None:
            return False
        try:
            doors = tuple(device.at(host, self._port) for host in self._disk.hosts(self._door))
        except Exception as error:
            log.warning("the addresses of this device cannot be told: %s", error)
            doors = self._members.me.where.doors or (device.at("127.0.0.1", self._port),)
        me = self._members.me
        if doors == me.where.doors:
            return False
        me.where = replace(me.where, doors=doors)
        me.info = replace(me.info, address=doors[0], found_by="zeroconf")
        return True

    async def _enter_discovery(self) -> None:
        try:
            await self._be_found()
        except Exception as error:
            log.warning("this node cannot be found by multicast, only by its address: %s", error)

    async def _be_found(self) -> None:
        import discovery

        me, interfaces = self._members.me.info, self._door.interfaces
        assert self._port is not None
        addresses = () if interfaces is None else (self._door.host,)
        record = NodeRecord(me.id, me.name, self._port, addresses, boot=self._process.id)
        discovered = (self._reside or discovery.reside)(record, interfaces=interfaces, on_event=self._seen)
        await discovered.__aenter__()
        self._discovery = discovered

    def _seen(self, event: Any) -> None:
        record = getattr(event, "record", None)
        if record is not None:
            self._process.portal.soon(self._seeking.seen, record)

    async def _hide(self) -> None:
        """Shuts the door and is not announced any more."""
        if self._entering is not None:
            await self._entering
            self._entering = None
        discovered, self._discovery = self._discovery, None
        if discovered is not None:
            await discovered.__aexit__(None, None, None)
        if self._port is not None:
            self._port = None
            await self._process.server.close_door()
            me = self._members.me
            me.where = replace(me.where, doors=())
            me.info = replace(me.info, address="")
            self._announce()

    def _announce(self) -> None:
        me = self._members.me.info
        self._disk.announce(
            device.Running(
                os.getpid(), self._process.id, me.id, me.name, str(self._process.folder), me.address, self._since
            )
        )
