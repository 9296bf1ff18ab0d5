"""What a node answers: where actors go, what they are called, how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any

from actors.charge import Wish
from actors.exceptions import ActorAlreadyExistsError, ActorDiedError, ActorError, PlacementError
from actors.lodging import take_charge
from actors.node.names import Names
from actors.node.printing import Printing
from actors.transport.grpc_link import probe_socket
from actors.transport.link import GoneError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from actors.address import Address
    from actors.messages import Payload
    from actors.node.members import Member, Members
    from actors.node.workers import WorkerProcess, Workers
    from actors.nodeinfo import NodeInfo
    from actors.process import Process
    from actors.spec import ActorSpec, Construction
    from actors.transport.acceptor import Visitor
    from actors.transport.peer import Death

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
PIPE_SECONDS = 0.02
REPORT_SECONDS = 0.5  # how old another node's word on its load may be


class NodeService:
    """The service ``"node"``. Each method's first argument is who asks."""

    def __init__(self, process: Process, members: Members) -> None:
        self._process = process
        self._members = members
        self._names = Names()
        self._printing = Printing(process)
        self._background: set[asyncio.Task[None]] = set()
        self._turns = itertools.count()  # of actors that are spread one by one
        self._local: dict[str, Address] = {}  # drivers on this host, by process id
        self.workers: Workers  # set once, before anything is answered

    # -- processes of this host ---------------------------------------------------------------------------------

    async def attach(self, _: Visitor, address: Address) -> None:
        """A driver says where it listens."""
        self._local[address.process] = address

    async def ready(self, _: Visitor, address: Address) -> None:
        """A worker says where it listens."""
        self.workers.became_ready(address)

    async def ending(self, _: Visitor, process: str, epitaph: str, intended: bool) -> None:
        """An actor says that it is about to end, why, and whether that was wanted; its name is free from now on."""
        worker = self.workers.get(process)
        if worker is not None:
            self.workers.condemn(worker, epitaph, intended=intended)
            if worker.spec is not None and not worker.spec.restarts:
                self._names.release(worker.spec)

    def route(self, process: str) -> Address | None:
        """Returns where a process of this host is, so that a stream can be relayed to it."""
        if process in self._local:
            return self._local[process]
        worker = self.workers.get(process)
        if worker is not None and worker.ready.done() and not worker.ready.cancelled():
            return worker.ready.result()
        return None

    def link_lost(self, visitor: Visitor) -> None:
        """A connection broke: if its process has ended, what it owned ends now."""
        address = self.route(visitor.process)
        if address is not None:
            self._in_background(self._look_after(address))

    async def _look_after(self, address: Address) -> None:
        try:
            await probe_socket(address.socket)
        except GoneError:
            self._local.pop(address.process, None)
            self._process.acceptor.expire(address.process)
        except UnreachableError:
            pass  # silence is not death

    def gone(self, visitor: Visitor) -> None:
        """A process will not come back: the actors it owned end."""
        self._local.pop(visitor.process, None)
        self._names.release_all(visitor.process)
        for worker in self.workers.actors():
            if worker.spec is not None and worker.spec.owner == visitor.process:
                self.workers.kill(worker, "its owner has ended", intended=True)

    def ended(self, worker: WorkerProcess, _: Death) -> None:
        """A worker has ended."""
        self._process.forget(worker.id)
        self._process.acceptor.expire(worker.id)
        if worker.spec is not None:
            if not worker.spec.restarts:  # else it is kept for the next life
                self._names.release(worker.spec)
            for member in self._members.alive():
                if member is not self._members.me:
                    self._in_background(self._tell_end(member, worker.id))

    async def _tell_end(self, member: Member, process: str) -> None:
        with contextlib.suppress(TimeoutError, ActorDiedError):  # else its silence will tell
            await self._process.ask(member.where, "node", "ended_elsewhere", process, timeout=ASK_SECONDS)

    async def ended_elsewhere(self, _: Visitor, process: str) -> None:
        """Another node says that a process of its has ended: what it owned here ends too."""
        self._process.acceptor.expire(process)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._process.loop.create_task(work)
        self._background.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._background.discard)

    def printed(self, worker: WorkerProcess, stream: str, line: str) -> None:
        """An actor printed a line: its driver shows it."""
        spec = worker.spec
        if spec is None or spec.driver is None:
            return
        label = f"{spec.class_name} pid={worker.subprocess.pid} node={self._members.me.info.name}"
        self._printing.add(spec.driver, (label, stream, line))

    async def flush(self, _: Visitor, driver: str) -> None:
        """Returns when a driver has been sent what its actors have printed so far."""
        await asyncio.sleep(PIPE_SECONDS)  # what an actor printed before its last answer may still be in its pipe
        await self._printing.flushed(driver)

    # -- nodes --------------------------------------------------------------------------------------------------

    async def describe(self, _: Visitor) -> tuple[NodeInfo, Address]:
        """Returns what this node is and where."""
        return self._members.me.info, self._members.me.where

    async def nodes(self, _: Visitor) -> list[NodeInfo]:
        """Returns all nodes known here."""
        return [member.info for member in self._members.all()]

    async def addresses(self, _: Visitor) -> list[Address]:
        """Returns where all nodes known here are."""
        return [member.where for member in self._members.all()]

    async def wait_for_nodes(self, _: Visitor, count: int, timeout: float) -> list[NodeInfo]:
        """Waits until so many nodes are alive; returns those that are when the time is over."""
        return [member.info for member in await self._members.wait_for(count, timeout)]

    async def report(self, _: Visitor) -> int:
        """Returns how many actors are here."""
        return len(self.workers.actors())

    # -- actors -------------------------------------------------------------------------------------------------

    async def schedule(self, _: Visitor, node: str | None, strategy: str, rank: int | None) -> Address:
        """Chooses the node for an actor: by name, or by strategy; ``rank`` is its place in a group, if it has one."""
        alive = self._members.alive()
        if node is not None:
            chosen = self._named_node(node)
        elif strategy == "SPREAD":
            chosen = alive[(rank if rank is not None else next(self._turns)) % len(alive)]
        elif strategy == "PACK":
            chosen = self._members.me
        else:
            chosen = await self._least_busy(alive)
        chosen.actors += 1
        return chosen.where

    def _named_node(self, node: str) -> Member:
        named = [m for m in self._members.all() if node in {m.info.id, m.info.name}]
        if not named:
            raise PlacementError(f"no node is called {node!r}; there are: {', '.join(self._alive_names())}")
        if not named[0].info.alive:
            raise PlacementError(f"node {node!r} is gone; there are: {', '.join(self._alive_names())}")
        return named[0]

    def _alive_names(self) -> list[str]:
        return [member.info.name for member in self._members.alive()]

    async def _least_busy(self, alive: list[Member]) -> Member:
        now = self._process.loop.time()
        await asyncio.gather(*(self._ask_load(member) for member in alive if now - member.reported > REPORT_SECONDS))
        return min(alive, key=lambda member: member.actors)  # of equals the first: this node

    async def _ask_load(self, member: Member) -> None:
        member.reported = self._process.loop.time()
        if member is self._members.me:
            member.actors = len(self.workers.actors())
            return
        with contextlib.suppress(TimeoutError, ActorDiedError):  # the last report has to do
            member.actors = await self._process.ask(member.where, "node", "report", timeout=1.0)

    async def place(self, visitor: Visitor, spec: ActorSpec) -> Address:
        """Gives a process to an actor; its owner sends the class there itself."""
        await self._claim_name(spec)
        try:
            worker, address = await self.workers.take()
        except BaseException:  # the owner may have given up too
            self._names.release(spec)
            raise
        worker.spec = spec
        try:
            await self._process.ask(address, "worker", "assign", spec.id, spec.namespace)
        except BaseException:
            self.workers.kill(worker, "it could not be made an actor")
            self._names.release(spec)  # had it ended before it had a spec, nobody else would
            self._process.forget(worker.id)
            raise
        if not self._process.acceptor.knows(visitor):
            self.workers.kill(worker, "its owner ended while it was placed")
        return address

    async def _claim_name(self, spec: ActorSpec) -> None:
        if spec.name is None:
            return
        try:
            taken = not self._names.reserve(spec) or await self._is_held_elsewhere(spec)
        except BaseException:
            self._names.release(spec)
            raise
        if taken or not self._names.confirm(spec):
            self._names.release(spec)
            raise ActorAlreadyExistsError(
                f"an actor named {spec.name!r} exists in namespace {spec.namespace!r}: take it with "
                f"actors.get_actor({spec.name!r}), or pass get_if_exists=True"
            )

    async def _is_held_elsewhere(self, spec: ActorSpec) -> bool:
        for member in self._members.alive():
            if member is self._members.me:
                continue
            try:
                if await self._process.ask(
                    member.where, "node", "holds", spec.name, spec.namespace, spec.id, timeout=ASK_SECONDS
                ):
                    return True
            except (TimeoutError, ActorDiedError) as error:  # one that does not answer holds no name that can be used
                log.info("node %s was not asked for a name: %s", member.info.name, error)
        return False

    async def adopt(self, _: Visitor, construction: Construction, max_restarts: int) -> None:
        """Takes charge of a detached actor, which outlives its maker; returns once it has a place."""
        spec = construction.spec
        charges = self._process.keeper.charges
        wish = Wish(self._members.me.info.id, "DEFAULT")
        charge = take_charge(self._process, construction, wish, max_restarts, (), lambda _: None)
        charges[spec.id] = charge
        charge.begin()
        try:
            await charge.located(None)
        except ActorError as error:
            del charges[spec.id]
            raise error.__cause__ or error from None

    async def claim_name(self, _: Visitor, spec: ActorSpec) -> None:
        """A light actor, which asks no node for a process of its own, is about to be made here under a name."""
        await self._claim_name(spec)

    async def free_name(self, _: Visitor, spec: ActorSpec) -> None:
        """An actor will not come back to its name."""
        self._names.release(spec)

    async def holds(self, _: Visitor, name: str, namespace: str, claimant: str) -> bool:
        """Whether an actor of this node has the name, or claims it with the better right."""
        return self._names.holds(name, namespace, claimant)

    async def lookup(
        self, _: Visitor, name: str, namespace: str, everywhere: bool = True
    ) -> tuple[Payload, Address | None] | None:
        """Returns the pickled handle of a named actor and where it is, if it is anywhere just now."""
        spec = self._names.find(name, namespace)
        worker = self.workers.find_actor(spec.id) if spec is not None else None
        if spec is not None and spec.handle is not None and (worker is not None or spec.restarts or spec.light):
            return spec.handle, worker.ready.result() if worker is not None else None
        if not everywhere:
            return None
        for member in self._members.alive():
            if member is self._members.me:
                continue
            try:
                found: tuple[Payload, Address | None] | None = await self._process.ask(
                    member.where, "node", "lookup", name, namespace, False, timeout=ASK_SECONDS
                )
            except Exception as error:
                log.info("node %s was not asked for a name: %s", member.info.name, error)
                continue
            if found is not None:
                return found
        return None

    async def named(self, _: Visitor, namespace: str | None, everywhere: bool = True) -> list[tuple[str, str]]:
        """Returns the names in use as (namespace, name)."""
        names = self._names.all(namespace)
        if everywhere:
            for member in self._members.alive():
                if member is not self._members.me:
                    names += await self._process.ask(
                        member.where, "node", "named", namespace, False, timeout=ASK_SECONDS
                    )
        return sorted(names)

    async def kill(self, _: Visitor, process: str, no_restart: bool = True) -> None:
        """Ends an actor's process at once, and returns when it has ended."""
        worker = self.workers.get(process)
        if worker is not None:
            self.workers.kill(worker, "it was killed by actors.kill", intended=no_restart)
            await self.workers.autopsy(process)

    async def autopsy(self, _: Visitor, process: str) -> Any:
        """Returns how a process of this node ended; None for one that is not known to have."""
        return await self.workers.autopsy(process)
