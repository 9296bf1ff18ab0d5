"""What a node answers: where actors go, what they are called, how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.console import Line
from actors.exceptions import ActorDiedError
from actors.node.custody import Custody
from actors.node.logs import Author, LogLine, Logs
from actors.node.naming import Naming
from actors.node.placing import Placing
from actors.node.printing import Printing
from actors.node.stock import Stock
from actors.node.vitals import LOOK_SECONDS, STOPPED_LOOKS, Vitals, is_stopped
from actors.progress import Progress
from actors.transport.knock import probe_socket
from actors.transport.link import GoneError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from actors.address import Address
    from actors.demand import Demand, Parts
    from actors.messages import Payload
    from actors.node.members import Member, Members
    from actors.node.observatory import Observatory
    from actors.node.waiting import Seat
    from actors.node.workers import WorkerProcess, Workers
    from actors.nodeinfo import NodeInfo
    from actors.process import Process
    from actors.spec import ActorSpec
    from actors.transport.acceptor import Visitor
    from actors.transport.peer import Death

log = logging.getLogger(__name__)

ASK_SECONDS = 5.0
PIPE_SECONDS = 0.02
LOOKS = (0.0, 0.05, 0.2, 0.5, 1.0)  # seconds before each look at a process whose connection broke


class NodeService:
    """The service ``"node"``. Each method's first argument is who asks."""

    def __init__(self, process: Process, members: Members) -> None:
        self._process = process
        self._members = members
        self.naming = Naming(process, members, self._lost_name)
        self._names = self.naming.names
        self._printing = Printing(process)
        self.kept = Logs(members.me.info.name)
        self._background: set[asyncio.Task[None]] = set()
        self._placing = Placing(process, members, Stock(members.me.info.resources), self._printing)
        self.custody = Custody(process, members)
        self._local: dict[str, Address] = {}  # drivers on this host, by process id
        self._watch: asyncio.Task[None] | None = None
        self.workers: Workers  # set once, before anything is answered
        self.observatory: Observatory  # likewise

    # -- processes of this host ---------------------------------------------------------------------------------

    def watch(self) -> None:
        """Looks after the workers from now on."""
        vitals = Vitals(self.workers.pids, self._found_stopped, self._stopped_for_long)
        self._watch = self._process.loop.create_task(vitals.watch())

    def close(self) -> None:
        """Places nobody any more, and takes nobody over."""
        self.custody.close()
        self._placing.close()
        self.naming.close()
        if self._watch is not None:
            self._watch.cancel()

    def _found_stopped(self, pid: int) -> None:
        worker = self.workers.of_pid(pid)
        if worker is not None and worker.spec is not None and worker.spec.driver is not None:
            self.say(
                worker.spec.driver,
                f"{worker.spec.class_name} (pid {pid}) has been stopped, as by SIGSTOP, and its calls wait: `kill "
                f"-CONT {pid}` lets it go on; after {LOOK_SECONDS * STOPPED_LOOKS:g} s it is ended",
            )

    def _stopped_for_long(self, pid: int) -> None:
        worker = self.workers.of_pid(pid)
        if worker is not None:  # its callers are told; were it to go on, it would begin what they were told is lost
            self.workers.kill(worker, f"it was stopped, as by SIGSTOP, for {LOOK_SECONDS * STOPPED_LOOKS:g} s")

    async def attach(self, _: Visitor, address: Address) -> None:
        """A driver says where it listens."""
        self._local[address.process] = address

    async def ready(self, _: Visitor, address: Address) -> None:
        """A worker says where it listens."""
        self.workers.became_ready(address)

    async def load_ahead(self, _: Visitor) -> None:
        """An actor here has what takes long to load: spares from now on have it before they are needed."""
        self.workers.loads_ahead = True

    async def ending(self, _: Visitor, process: str, epitaph: str, intended: bool, moved: bool = False) -> None:
        """An actor says that it is about to end, why, and whether that was wanted; its name is free from now on."""
        worker = self.workers.get(process)
        if worker is not None:
            self.workers.condemn(worker, epitaph, intended=intended, moved=moved)
            if worker.spec is not None and (moved or not worker.spec.restarts):
                self._names.release(worker.spec)

    def route(self, process: str) -> Address | None:
        """Returns where a process of this host is, so that a stream can be relayed to it."""
        if process in self._local:
            return self._local[process]
        worker = self.workers.get(process)
        if worker is not None and worker.ready.done() and not worker.ready.cancelled():
            return worker.ready.result()
        return None

    def processes(self) -> list[Address]:
        """Returns where the processes of this node are: drivers and workers."""
        return [*self._local.values(), *self.workers.ready()]

    def has_drivers(self) -> bool:
        """Whether a program uses this node."""
        return bool(self._local)

    async def detach(self, _: Visitor, process: str) -> bool:
        """A driver is about to end; returns whether others use this node."""
        self._local.pop(process, None)
        return bool(self._local)

    def link_lost(self, visitor: Visitor) -> None:
        """A connection broke: if its process has ended, what it owned ends now."""
        address = self.route(visitor.process)
        if address is not None:
            self._in_background(self._look_after(address))
        elif self._members.sparse and not visitor.process.startswith("node-"):
            self._in_background(self._look_after_other(visitor))

    async def _look_after_other(self, visitor: Visitor) -> None:
        """A connection with a process of another node broke, which does not tell all nodes how its processes end."""
        ended = False
        if visitor.node is None:
            ended = await _has_ended(str(self._process.folder / f"{visitor.process}.sock"))
        elif (member := self._members.find(visitor.node)) is not None:
            with contextlib.suppress(TimeoutError, ActorDiedError):  # else its silence will tell
                asked = self._process.ask(member.where, "node", "autopsy", visitor.process, timeout=ASK_SECONDS)
                ended = await asked is not None
        if ended:
            self._process.acceptor.expire(visitor.process)

    async def _look_after(self, address: Address) -> None:
        if await _has_ended(address.socket):
            self._local.pop(address.process, None)
            with contextlib.suppress(FileNotFoundError):  # there still if it was killed
                os.unlink(address.socket)
            self._process.acceptor.expire(address.process)

    def gone(self, visitor: Visitor) -> None:
        """A process will not come back: the actors it owned end."""
        self._local.pop(visitor.process, None)
        self._placing.gone(visitor.process)
        self._names.release_all(visitor.process)
        for worker in self.workers.actors():
            if worker.spec is not None and worker.spec.owner == visitor.process:
                self.workers.kill(worker, "its owner has ended", intended=True)

    def ended(self, worker: WorkerProcess, death: Death) -> None:
        """A worker has ended."""
        self.kept.ended(worker.id)
        self.observatory.ended(worker, death)
        self._process.forget(worker.id)
        self._process.acceptor.expire(worker.id)
        self._placing.places.release(worker.id)
        if worker.spec is not None:
            if worker.moved or not worker.spec.restarts:  # else it is kept for the next life
                self._names.release(worker.spec)
            if self._members.sparse:
                self._placing.look_again()  # others look themselves whether it has ended, see `link_lost`
                return
            for member in self._members.others():
                self._in_background(self._tell_end(member, worker.id))

    async def _tell_end(self, member: Member, process: str) -> None:
        with contextlib.suppress(TimeoutError, ActorDiedError):  # else its silence will tell
            await self._process.ask(member.where, "node", "ended_elsewhere", process, timeout=ASK_SECONDS)

    async def ended_elsewhere(self, _: Visitor, process: str) -> None:
        """Another node says that a process of its has ended: what it owned here ends too, and there may be room."""
        self._process.acceptor.expire(process)
        self._placing.look_again()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._process.loop.create_task(work)
        self._background.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._background.discard)

    def printed(self, worker: WorkerProcess, stream: str, line: str) -> None:
        """A worker printed a line: it is kept, and the actor's driver shows it."""
        spec = worker.spec
        if Progress.read(line) is None:
            who = (spec.id, spec.name, spec.class_name) if spec is not None else ()
            self.kept.add(Author(worker.id, worker.subprocess.pid, *who), stream, line)
            self.observatory.printed(worker, stream, line)
        if spec is None or spec.driver is None:
            return
        label = f"{spec.class_name} pid={worker.subprocess.pid} node={self._members.me.info.name}"
        self._printing.add(spec.driver, Line(label, stream, line, worker.origins.get(stream, "")))

    def say(self, driver: Address, line: str) -> None:
        """This node itself has something to say to a driver's user."""
        self._printing.add(driver, Line(f"node {self._members.me.info.name}", "stderr", line))

    async def parcel(self, _: Visitor, digest: str, offset: int) -> Payload | None:
        """Returns a piece of a parcel that this node has been given; None for one that it has not."""
        return await self.workers.environments.parcel(digest, offset)

    async def origin(self, _: Visitor, actor: str) -> tuple[str, float] | None:
        """Returns the fingerprint of an actor's class, and how many seconds ago the actor was made."""
        worker = self.workers.find_actor(actor)
        if worker is None or worker.spec is None:
            return None
        return worker.spec.fingerprint, self._process.loop.time() - worker.taken

    async def flush(self, _: Visitor, driver: str) -> None:
        """Returns when a driver has been sent what its actors have printed so far."""
        await asyncio.sleep(PIPE_SECONDS)  # what an actor printed before its last answer may still be in its pipe
        await self._printing.flushed(driver)

    async def logs(self, _: Visitor, actor_or_pid: str | int, lines: int = 1000) -> list[LogLine]:
        """Returns the last lines that an actor (id or name) or a worker (pid) of this node has printed.

        Raises:
            LookupError: nothing is kept of it.
        """
        return await self.kept.read(actor_or_pid, lines)

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

    async def report(self, _: Visitor) -> tuple[int, Parts]:
        """Returns how many actors are here or on their way, and which resources are free, in parts."""
        return self._placing.places.report()

    async def available(self, _: Visitor) -> dict[str, float]:
        """Returns what is free on all nodes together."""
        return await self._placing.available()

    # -- places -------------------------------------------------------------------------------------------------

    async def schedule(self, _: Visitor, spec: ActorSpec, seat: Seat | None = None, waited: float = 0.0) -> Address:
        """Returns a node that has room for an actor; waits for one. See `Placing.find`."""
        return await self._placing.find(spec, seat, waited)

    async def pending(self, _: Visitor) -> list[dict[str, Any]]:
        """Returns who waits here for room: ``actor`` (its id), ``label``, ``demand``, ``why``, ``since`` (epoch)."""
        return self._placing.pending()

    async def reserve(self, _: Visitor, actors: list[str], demand: Demand) -> tuple[bool, Parts]:
        """Another node sets places aside; returns whether there is room for all these actors, and what is free now."""
        return self._placing.places.reserve(actors, demand), self._placing.places.report()[1]

    async def unreserve(self, _: Visitor, actor: str) -> None:
        """Another node gives back what it set aside."""
        self._placing.places.release(actor)

    async def blocked(self, _: Visitor, process: str) -> None:
        """A thread of a process of this node waits for others: they may use its CPUs."""
        self._placing.places.blocked(process)

    async def unblocked(self, _: Visitor, process: str) -> None:
        """A thread of a process of this node goes on: it has its CPUs again, though there be too few."""
        self._placing.places.unblocked(process)

    # -- actors -------------------------------------------------------------------------------------------------

    async def place(self, visitor: Visitor, spec: ActorSpec) -> Address | None:
        """Gives a process to an actor; its owner sends the class there itself. None: there is no room any more."""
        if self._members.me.info.draining or not self._placing.places.claim(spec.id, spec.demand):
            return None
        try:
            await self.naming.claim(spec)
            try:
                worker, address = await self.workers.take(spec.environment, spec.driver)
            except BaseException:  # the owner may have given up too
                self._names.release(spec)
                raise
        except BaseException:
            self._placing.places.release(spec.id)
            raise
        worker.spec = spec
        self._placing.places.settle(spec.id, worker.id)
        try:
            name = self._members.me.info.name  # the process may be older than that: a device is named as it is paired
            address = replace(address, node_name=name)
            await self._process.ask(address, "worker", "assign", spec.id, spec.namespace, name)
        except BaseException:
            self.workers.kill(worker, "it could not be made an actor")
            self._names.release(spec)  # had it ended before it had a spec, nobody else would
            if self.workers.get(worker.id) is None:
                self._placing.places.release(worker.id)
            self._process.forget(worker.id)
            raise
        if not self._process.acceptor.knows(visitor):
            self.workers.kill(worker, "its owner ended while it was placed")
        return address

    def _lost_name(self, spec: ActorSpec, now: str, node: str) -> None:
        """The network was cut in two, each half had an actor of one name, and the other one keeps it."""
        if spec.driver is not None:
            self.say(
                spec.driver,
                f"{spec.label} is called {now!r} from now on: while the network was cut, another actor on node {node} "
                f"was named {spec.name!r} as well, and keeps the name. It goes on as it was",
            )
        worker = self.workers.find_actor(spec.id)
        if worker is not None and worker.ready.done():
            self._process.tell(worker.ready.result(), "worker", "rename", spec.id, now)

    async def custodian(self, visitor: Visitor, actor: str) -> Address | None:
        """Returns the node that has charge of a detached actor now; see `Custody`."""
        return await self.custody.custodian(visitor, actor)

    async def claim_name(self, _: Visitor, spec: ActorSpec) -> None:
        """A light actor, which asks no node for a process of its own, is about to be made here under a name."""
        await self.naming.claim(spec)

    async def free_name(self, _: Visitor, spec: ActorSpec) -> None:
        """An actor will not come back to its name."""
        self._names.release(spec)

    async def lookup(
        self, _: Visitor, name: str, namespace: str, everywhere: bool = True
    ) -> tuple[Payload, Address | None] | None:
        """Returns the pickled handle of a named actor and where it is, if it is anywhere just now.

        ``"NODE/NAME"`` finds the one that has the name on this node, also where it has lost it in the cluster.
        """
        found = self._there(self._names.find(name, namespace))
        if found is not None or not everywhere:
            return found
        for member in await self.naming.where_else(name, namespace):
            try:
                there: tuple[Payload, Address | None] | None = await self._process.ask(
                    member.where, "node", "lookup", name, namespace, False, timeout=ASK_SECONDS
                )
            except Exception as error:
                log.info("node %s was not asked for a name: %s", member.info.name, error)
                continue
            if there is not None:
                return there
        node, slash, short = name.partition("/")
        return await self._look_at(node, short, namespace) if slash else None

    async def _look_at(self, node: str, name: str, namespace: str) -> tuple[Payload, Address | None] | None:
        member = next((m for m in self._members.alive() if m.info.name == node), None)
        if member is None:
            return None
        found: tuple[Payload, Address | None] | None = await self._process.ask(
            member.where, "node", "lookup_here", name, namespace, timeout=ASK_SECONDS
        )
        return found

    async def lookup_here(self, _: Visitor, name: str, namespace: str) -> tuple[Payload, Address | None] | None:
        """As `lookup`, of this node's actors alone, and of those that have lost their names too."""
        return self._there(self._names.find_here(name, namespace))

    def _there(self, spec: ActorSpec | None) -> tuple[Payload, Address | None] | None:
        worker = self.workers.find_actor(spec.id) if spec is not None else None
        if spec is not None and spec.handle is not None and (worker is not None or spec.restarts or spec.light):
            return spec.handle, worker.ready.result() if worker is not None else None
        return None

    async def named(self, _: Visitor, namespace: str | None, everywhere: bool = True) -> list[tuple[str, str]]:
        """Returns the names in use as (namespace, name)."""
        names = self._names.all(namespace)
        me = self._members.me.info.name
        names += [(space, f"{me}/{name}") for space, name in self._names.all_aside(namespace)]
        if everywhere:
            for member in self._members.others():
                names += await self._process.ask(member.where, "node", "named", namespace, False, timeout=ASK_SECONDS)
        return sorted(names)

    async def kill(self, _: Visitor, process: str, no_restart: bool = True) -> None:
        """Ends an actor's process at once, and returns when it has ended."""
        worker = self.workers.get(process)
        if worker is not None:
            self.workers.kill(worker, "it was killed by actors.kill", intended=no_restart)
            await self.workers.autopsy(process)

    async def vouches(self, _: Visitor, process: str) -> bool:
        """Whether a process of this node lives, though it may not answer: it is busy and not stopped."""
        worker = self.workers.get(process)
        return worker is not None and worker.subprocess.returncode is None and not is_stopped(worker.subprocess.pid)

    async def autopsy(self, _: Visitor, process: str) -> Any:
        """Returns how a process of this node ended; None for one that is not known to have."""
        return await self.workers.autopsy(process)


async def _has_ended(socket: str) -> bool:
    """Whether the process of this host that has this socket has ended, by some looks."""
    for pause in LOOKS:  # one that has been killed may still be answered for while the system takes it apart
        await asyncio.sleep(pause)
        try:
            await probe_socket(socket)
        except GoneError:
            return True
        except UnreachableError:
            pass  # silence is not death
    return False
