"""This process's part in the cluster: its loop, its socket, its peers and what it answers to."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from actors import arena, hoard
from actors.address import Address, host_key
from actors.answer import Answer, ask
from actors.arena import Arena
from actors.events.recorder import Recorder
from actors.exceptions import ActorDiedError, NodeDiedError
from actors.guest import Guests
from actors.holdings import Holdings
from actors.home import arena_dir
from actors.inspection import Inspection
from actors.keeper import Keeper
from actors.messages import Argument, Call, Calls, Cancel, Credit, Outcome, Payload, Reply, Tally, Tensor
from actors.parcels import Parcels
from actors.serialize import dumps, dumps_arguments, loads
from actors.service import Service, Target
from actors.spares import IDLE_SECONDS
from actors.switchboard import Switchboard
from actors.transport.acceptor import Acceptor
from actors.transport.link import UnreachableError
from actors.transport.peer import Death, Peer
from actors.transport.portal import Portal
from actors.transport.traffic import carried
from actors.transport.ways_in import WaysIn
from actors.transport.ways_out import WaysOut, all_by_grpc
from actors.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from actors.events.recorder import Report
    from actors.holdings import Change
    from actors.transport.acceptor import Visitor
    from actors.transport.grpc_link import CredentialsFor
    from actors.transport.peer import Party

ASK_SECONDS = 30.0
AUTOPSY_SECONDS = 5.0
AUTOPSY_SILENT_SECONDS = 1.0  # of a process that was waited for long enough: its node may be as silent
VOUCH_SECONDS = 2.0  # a node that lives has seen its processes long before
LOBBY = "lobby"  # the target that stands for all light actors of a process


class Process:
    """One process of the cluster: a driver, a worker or a node.

    Attributes:
        id: new at each start; others recognise a restart by it.
        address: where this process can be reached.
        targets: what calls can be meant for, by id.
        waits: who in this process is blocked on what.
        switchboard: takes values that members of groups send each other.
        holdings: what this process refers to, and who refers to what it owns.
        arena: memory that it shares with others of its host; None where it shares none.
        recorder: collects what happens here.
        deliver: takes its reports; a node's own keeps them.
    """

    def __init__(
        self,
        id: str,
        folder: Path,
        node: str,
        node_name: str,
        credentials: CredentialsFor | None = None,
        *,
        portal: Portal | None = None,
    ) -> None:
        """Starts the I/O loop; nothing listens yet.

        Args:
            id: of this process; a node's begins with ``node-``.
            folder: where Unix sockets of this cluster are.
            node: id of the node this process belongs to.
            node_name: its name.
            credentials: what to show at other devices' doors.
            portal: an I/O loop that runs already; None for a new one.
        """
        self.id = id
        self.folder = folder
        self.portal = portal or Portal()
        self.loop = self.portal.loop
        shared = None if all_by_grpc() else arena_dir(folder)
        self.arena = Arena(shared, id) if shared is not None else None
        key = self.arena.key if self.arena is not None else ""
        self.address = Address(id, host_key(), str(folder / f"{id}.sock"), node, node_name=node_name, arena=key)
        self.targets: dict[str, Target] = {}
        self.switchboard = Switchboard()
        self.on_link_lost: Callable[[Visitor], None] | None = None
        self.on_gone: Callable[[Visitor], None] | None = None
        self.namespace = "default"
        self.warns_of_detached = False  # where nodes end with this program, until that has been said once
        self.directory: dict[str, Address] = {}  # nodes by id
        self.home: Address | None = None
        self.dialer = WaysOut(credentials, self._find_node, self._lost_node)
        self.keeper = Keeper(self.id)
        self.holdings = Holdings(
            self.address, self.portal.soon, self.loop.call_later, self._tell_owner, self.keeper.find
        )
        self.keeper.count_by(self.holdings)
        self.serve("keeper", self.keeper)
        self.parcels = Parcels(self.address, folder)
        self.serve("parcels", self.parcels)
        self.waits = Waits(self)
        self.serve("waits", self.waits)
        self.serve("membership", Exile(self))
        self.deliver: Callable[[Report], None] = self._deliver
        self.recorder = Recorder(id, node_name, self)
        self.serve("inspection", Inspection(self))
        self.acceptor = Acceptor(self.id, self, self.loop, self.holdings.passage, self.arena)
        self.server = WaysIn(self.id, self.acceptor)
        self._peers: dict[str, Peer] = {}  # those that live; of nodes also the dead, so that each is missed once
        self._dead: WeakValueDictionary[str, Peer] = WeakValueDictionary()  # as long as somebody refers to them
        self._guests = Guests()
        self._holders: dict[str, Address] = {}  # processes that have told of their holds
        self._closed = False
        if self.arena is not None:
            self.portal.soon(self._trim, self.arena)

    def clear_after_others(self) -> None:
        """Gives back the memory that is shared on this host and belongs to processes that have ended."""
        if self.arena is not None and not self._closed:
            arena.sweep(self.arena.folder, self.folder)

    def _trim(self, own: Arena) -> None:
        own.trim()
        hoard.trim()
        if not self._closed:
            self.loop.call_later(IDLE_SECONDS / 4, self._trim, own)

    # -- what arrives -------------------------------------------------------------------------------------------

    def received(self, message: Any, visitor: Visitor) -> None:
        """See `actors.transport.acceptor.Receiver`."""
        if isinstance(message, Call):
            self._called(message, visitor)
        elif isinstance(message, Calls):
            target = self.targets.get(message.target)
            if target is None or not target.called_together(message, visitor.together):
                for call in _each(message):
                    self._called(call, visitor.together)
        elif isinstance(message, Tensor):
            self.switchboard.arrived(message, visitor)
        elif isinstance(message, Tally):
            assert isinstance(message.payload, Payload)
            self._holders[visitor.process], changes = loads(message.payload)
            self.holdings.take_in(visitor.process, changes)
        elif isinstance(message, Credit):
            for target in list(self.targets.values()):
                target.credited(visitor.session, message.number, message.upto)
        elif isinstance(message, Cancel):
            for target in list(self.targets.values()):
                target.cancelled(visitor.session, message)

    def anywhere(self, message: Any) -> bool:
        """See `actors.transport.acceptor.Receiver`."""
        if isinstance(message, Tensor):
            return self.switchboard.anywhere(message)
        target = self.targets.get(message.target) if isinstance(message, (Call, Calls)) else None
        return target is not None and target.anywhere(message)

    def _called(self, call: Call, visitor: Any) -> None:
        target = self.targets.get(call.target) or self.targets.get(LOBBY)
        if target is None:
            error = ActorDiedError(f"{call.target} is not here any more")
            visitor.post(Reply(call.number, Outcome.NEVER_STARTED, dumps(error)))
        else:
            target.called(call, visitor)

    def target(self, name: str) -> Target | None:
        """Returns what calls to ``name`` are meant for; light actors share one target."""
        return self.targets.get(name) or self.targets.get(LOBBY)

    def link_lost(self, visitor: Visitor) -> None:
        """See `actors.transport.acceptor.Receiver`."""
        if self.on_link_lost is not None:
            self.on_link_lost(visitor)
        holder = self._holders.get(visitor.process)
        if holder is not None and not self._closed:  # what it holds is kept until it is known whether it lives
            self.peer(holder).when_dead(lambda _: self.acceptor.expire(holder.process))

    def gone(self, visitor: Visitor) -> None:
        """See `actors.transport.acceptor.Receiver`."""
        self._holders.pop(visitor.process, None)
        self.holdings.gone(visitor.process)
        self.switchboard.gone(visitor.process)
        if self.on_gone is not None:
            self.on_gone(visitor)

    def serve(self, name: str, instance: object) -> None:
        """Answers calls to ``name`` by the coroutine methods of ``instance``."""
        self.targets[name] = Service(name, instance)

    async def listen(self) -> None:
        """Listens on this process's Unix socket."""
        await self.server.listen_socket(self.address.socket)

    # -- what goes out ------------------------------------------------------------------------------------------

    def peer(self, address: Address) -> Peer:
        """Returns the process at ``address`` as a peer, dialling it if it is new. Only on the I/O loop."""
        peer = self._peers.get(address.process) or self._dead.get(address.process)
        if peer is None:
            address = address.host_process
            autopsy = None if address.is_node else self._autopsy_of(address)
            passage = self.holdings.passage()
            vouched = None if address.is_node else partial(self._is_vouched_for, address)
            peer = Peer(
                address, self.id, self.dialer, self.loop, autopsy, vouched=vouched, passage=passage, arena=self.arena,
                keep=self.keeper.kept,
            )  # fmt: skip
            self._peers[address.process] = peer
            if not address.is_node:
                peer.when_dead(partial(self._lost, peer))
            elif self.home is not None and address.node in self.directory:
                self.directory[address.node] = address  # it was started anew, and may have another door
        return peer

    def relocate(self, address: Address) -> None:
        """A process, which is dialled already or not, is to be found here from now on. Only on the I/O loop."""
        peer = self._peers.get(address.process)
        if peer is not None:
            peer.address = address
        if address.node in self.directory and self.directory[address.node].process == address.process:
            self.directory[address.node] = address

    def _lost(self, peer: Peer, _: Death) -> None:
        process = peer.address.process
        if self._peers.get(process) is peer:
            self._dead[process] = self._peers.pop(process)

    def party(self, address: Address) -> Party:
        """Returns the actor at ``address``, which may share its process with others. Only on the I/O loop."""
        peer = self.peer(address)
        return self._guests.at(address, peer) if address.guest else peer

    def _tell_owner(self, owner: Address, changes: list[Change]) -> None:
        if not self._closed:
            self.peer(owner).post(Tally(dumps((self.address, changes))))

    def forget(self, process: str, *, dead: bool = False) -> None:
        """Drops a dead peer, so that a process with the same id would be dialled anew; with ``dead`` no other one."""
        peer = self._peers.get(process)
        if peer is not None and not (dead and peer.death is None):
            del self._peers[process]

    def bury_nodes(self) -> None:
        """Drops the dead among nodes that nobody watches: one that was only out of reach is dialled anew."""
        for process in [process for process, peer in self._peers.items() if peer.address.is_node and peer.death]:
            del self._peers[process]

    async def rest(self, kept: Callable[[str], bool]) -> None:
        """Ends conversations with nodes that nothing was said in since this was called last. Only on the I/O loop.

        Those stay of which something is open or watched, and those with the nodes of processes that are spoken to:
        what this process owns on a node ends with its conversation.

        Args:
            kept: whether one with a node, by its id, is to stay.
        """
        used = {peer.address.node for peer in self._peers.values() if not peer.address.is_node}
        for process, peer in list(self._peers.items()):
            node = peer.address.node
            if peer.address.is_node and peer.rests() and node not in used and not kept(node):
                self.forget(process)
                await peer.close("nothing was said for long")

    async def ask(
        self, address: Address, target: str, method: str, *args: Any, timeout: float | None = ASK_SECONDS, **kwargs: Any
    ) -> Any:
        """Calls a service of another process and returns its answer.

        Raises:
            TimeoutError: no answer in time.
            ActorDiedError: the process is gone; `NodeDiedError` if its node is.
            Exception: whatever the service raised.
        """
        return await ask(self.peer(address), address, target, method, dumps_arguments(args, kwargs), timeout)

    def tell(self, address: Address, target: str, method: str, *args: Any) -> None:
        """Calls a service of another process, whatever becomes of it. Only on the I/O loop."""
        self.peer(address).call(target, method, dumps_arguments(args, {}), Answer(address))

    def _autopsy_of(self, address: Address) -> Callable[[Death], Any]:
        async def autopsy(death: Death) -> Death:
            """Asks the node that hosted a process how it ended."""
            patience = AUTOPSY_SILENT_SECONDS if death.silent else AUTOPSY_SECONDS
            try:
                async with asyncio.timeout(patience):
                    node = await self.node_address(address.node)
                    if node is None:
                        return death
                    found = await self.ask(node, "node", "autopsy", address.process, timeout=None)
            except NodeDiedError as error:
                return Death(str(error), node_too=True, node=address.node_name)
            except Exception:
                return death
            return self._guests.explained(address.process, found if isinstance(found, Death) else death)

        return autopsy

    async def _is_vouched_for(self, address: Address) -> bool:
        """Whether a process that does not answer lives, by what its node sees of it."""
        with contextlib.suppress(TimeoutError, ActorDiedError, UnreachableError):
            async with asyncio.timeout(VOUCH_SECONDS):
                node = await self.node_address(address.node)
                return node is not None and await self.ask(node, "node", "vouches", address.process)
        return False

    async def node_address(self, node: str) -> Address | None:
        """Returns where the node with this id is, asking the home node for one not met before."""
        if node not in self.directory:
            for address in await self.ask_home("addresses"):
                self.directory[address.node] = address
        return self.directory.get(node)

    # -- what is told of it -------------------------------------------------------------------------------------

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """See `actors.events.recorder.Surroundings`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is told any more
            self.loop.call_soon_threadsafe(self.loop.call_later, seconds, work)

    def _deliver(self, report: Report) -> None:
        if self.home is not None and not self._closed:
            self.tell(self.home, "events", "report", replace(report, carried=carried()))

    def caller_of(self, session: str) -> str:
        """See `actors.events.recorder.Surroundings`."""
        return self.acceptor.process_of(session)

    async def _find_node(self, node: str) -> Address | None:
        try:
            return await self.node_address(node)
        except (TimeoutError, ActorDiedError) as error:
            raise UnreachableError(f"where its node is cannot be told: {error}") from error

    def _lost_node(self, node: str) -> None:
        if self.home is not None and node != self.home.node:  # the home node will know; a node itself knows already
            self.directory.pop(node, None)

    async def kill(self, address: Address, no_restart: bool = True) -> None:
        """Has an actor ended: by its node, with its process, or by the process that it shares; returns when it has."""
        if address.guest:
            with contextlib.suppress(ActorDiedError):  # the process is gone, and the actor with it
                await self.ask(address, "lights", "kill", address.guest, no_restart)
            return
        node = await self.node_address(address.node)
        if node is not None:
            with contextlib.suppress(ActorDiedError):  # the node is gone, and the actor with it
                await self.ask(node, "node", "kill", address.process, no_restart)

    async def ask_home(self, method: str, *args: Any, timeout: float | None = ASK_SECONDS) -> Any:
        """Calls the node of this process, or any other that lives if that one is gone."""
        nodes = [address for address in (self.home, *self.directory.values()) if address is not None]
        last: NodeDiedError | None = None
        for address in dict.fromkeys(nodes):
            try:
                return await self.ask(address, "node", method, *args, timeout=timeout)
            except NodeDiedError as error:
                last = error
        raise last if last is not None else NodeDiedError("this process has no node")

    async def cut(self, node: str, reason: str) -> None:
        """Ends all that connects this process with a device that is trusted no longer. Only on the I/O loop."""
        self.directory.pop(node, None)
        await self.server.evict(node)
        self.acceptor.expel(node)
        for peer in [peer for peer in self._peers.values() if peer.address.node == node and peer.address.node]:
            await peer.cut(Death(reason, node_too=True, node=peer.address.node_name))
            self.forget(peer.address.process)

    async def flushed(self) -> None:
        """Waits until all others have what this process has to tell them: its calls, its answers, what it holds."""
        await asyncio.gather(*(line.flushed() for line in list(self.keeper.lines.values())))
        self.holdings.flush()
        drained = [peer.drained() for peer in self._peers.values() if peer.death is None]
        await asyncio.gather(self.acceptor.flushed(), *drained)

    async def close(self, reason: str) -> None:
        """Says goodbye to everyone and stops listening. Only on the I/O loop."""
        if self._closed:
            return
        self._closed = True
        peers = list(self._peers.values())
        await asyncio.gather(*(peer.close(reason) for peer in peers), self.acceptor.close(reason))
        await self.server.close()
        await self.dialer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.address.socket)


class Exile:
    """The service ``"membership"`` of every process: its node tells which device is trusted no longer."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def cut(self, _: Visitor, node: str, reason: str) -> None:
        """See `Process.cut`."""
        if node != self._process.address.node:
            await self._process.cut(node, reason)


def _each(message: Calls) -> Iterator[Call]:
    """Takes calls that came together apart."""
    m = message
    assert isinstance(m.payload, Payload)
    payloads: list[Payload] = [Payload(bytes(pickle)) for pickle in m.payload.buffers]
    if m.payload.pickle:
        payloads = [Argument(value) for value in loads(m.payload)]
    if len(payloads) != len(m.numbers):
        raise ValueError(f"{len(m.numbers)} calls of {m.method} came with {len(payloads)} arguments")
    for number, payload in zip(m.numbers, payloads, strict=True):
        yield Call(number, m.target, m.method, payload, m.terms)
