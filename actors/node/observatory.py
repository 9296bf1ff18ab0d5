"""The observatory: a node's event stream, and what it looks like just now. Every view of the cluster is made of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.events.event import (
    DEAD,
    PENDING,
    RESTARTING,
    ActorChanged,
    CallEnded,
    CollectivesEnded,
    GroupChanged,
    LogPrinted,
    NodeChanged,
)
from actors.events.journal import Journal
from actors.events.ledger import Ledger
from actors.events.recorder import readings
from actors.events.state import State
from actors.events.tally import merge
from actors.events.view import ClusterView, NodeView, ProcessView
from actors.exceptions import AuthenticationError
from actors.home import arena_dir
from actors.node.stock import whole
from actors.shortage import aside
from actors.transport.traffic import carried

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from pathlib import Path

    from actors.events import Event, OpenCallView
    from actors.events.ledger import Carried
    from actors.events.recorder import Report
    from actors.events.tally import Tallies
    from actors.node.logs import LogLine
    from actors.node.members import Member, Members
    from actors.node.service import NodeService
    from actors.node.workers import WorkerProcess
    from actors.process import Process
    from actors.transport.acceptor import Visitor
    from actors.transport.peer import Death

LOOK_SECONDS = 0.8  # for a process of this node to say what it does; one in a long step cannot
ASK_SECONDS = 3.0  # for another node
LONGEST_LINE = 2_000
MOST_WAIT_SECONDS = 25.0
CLOCK_TRIES = 4
KEPT_READINGS = 500
GRACE_SECONDS = 0.05  # for the other nodes' news once one has some


class Observatory:
    """The service ``"events"`` of a node.

    Args:
        process: the node's.
        members: the nodes it knows.
        service: what else it answers.

    Attributes:
        journal: the events of this node.
    """

    def __init__(self, process: Process, members: Members, service: NodeService) -> None:
        self._process = process
        self._members = members
        self._service = service
        self.journal = Journal()
        self._state = State()
        self._tallies: Tallies = {}
        self._readings: dict[str, object] = {}
        self._ledger = Ledger()
        self._departed: deque[object] = deque(maxlen=KEPT_READINGS)  # what processes that have ended had counted
        self._drivers: dict[str, int] = {}  # their pids
        self._since = time.time()
        process.deliver = self._take
        members.on_fate = self._fate
        self._fate(members.me)

    # -- what happens here --------------------------------------------------------------------------------------

    def _add(self, event: Event) -> None:
        self._state.apply(event)
        self.journal.add(event)

    def _take(self, report: Report) -> None:
        for event in report.events:
            self._add(self._placed(event))
        merge(self._tallies, report.tallies)
        if report.readings is not None:
            self._readings[report.process] = report.readings
        self._ledger.take(report.process, report.carried)

    def _placed(self, event: Event) -> Event:
        """Returns an event of a process of this node with the node's name; a device that joins may be given another."""
        name = self._members.me.info.name
        if isinstance(event, CallEnded | GroupChanged | CollectivesEnded) or (
            isinstance(event, ActorChanged) and self._service.workers.get(event.process) is not None
        ):
            return replace(event, node=name) if event.node != name else event
        return event

    async def report(self, visitor: Visitor, report: Report) -> None:
        """A process of this node tells what happened in it."""
        if visitor.node is not None:
            raise AuthenticationError("a process reports to the node of its own device")
        if report.process.startswith("driver-"):
            self._drivers[report.process] = report.pid
        self._take(report)

    def _fate(self, member: Member) -> None:
        info = member.info
        self._add(NodeChanged(time.time(), info.id, info.name, info.address, info.alive))
        if not info.alive:
            self._lost(info.name)

    def _lost(self, node: str) -> None:
        """A node is gone, and with it the actors there, unless their owners say that they are made anew."""
        for actor in list(self._state.actors.values()):
            if actor.node == node and actor.state != DEAD:
                state = RESTARTING if actor.restarts else DEAD
                self._add(replace(actor, at=time.time(), state=state, reason=f"its node {node} is gone"))

    def printed(self, worker: WorkerProcess, stream: str, text: str) -> None:
        """A worker has printed a line."""
        spec = worker.spec
        if len(text) > LONGEST_LINE:
            text = f"{text[:LONGEST_LINE]}… ({len(text) - LONGEST_LINE} characters more)"
        who = (spec.id, spec.class_name, spec.name) if spec is not None else (None, None, None)
        pid, node = worker.subprocess.pid, self._members.me.info.name
        self._add(LogPrinted(time.time(), who[0], who[1], who[2], node, pid, stream, text))

    def ended(self, worker: WorkerProcess, death: Death) -> None:
        """A worker has ended, and all actors in it."""
        counted: Any = self._readings.pop(worker.id, None) or ()
        self._departed.append([reading for reading in counted if reading.kind != "gauge"])
        if death.moved:  # who hosts it now says that it lives
            return
        for actor in list(self._state.actors.values()):
            if actor.process == worker.id and actor.state != DEAD:
                state = RESTARTING if actor.restarts and not death.intended else DEAD
                self._add(replace(actor, at=time.time(), state=state, reason=death.reason))
        spec = worker.spec
        if spec is None:
            return
        known = self._state.actors.get(spec.id)
        if known is None or known.life < spec.life or not known.process:  # it ended before it could tell where it lives
            state = RESTARTING if spec.restarts and not death.intended else DEAD
            place = {"node": self._members.me.info.name, "process": worker.id, "pid": worker.subprocess.pid}
            self._add(ActorChanged.of(spec, state, reason=death.reason, **place))

    # -- this node, as others see it ----------------------------------------------------------------------------

    async def view(self, _: Visitor) -> NodeView:
        """Returns what this node looks like just now."""
        peers = self._process.loop.create_task(self._ping())
        looks = await self._look_around()
        name = self._members.me.info.name
        calls = [replace(call, node=name) for look in looks.values() if look is not None for call in look[0]]
        for process, look in looks.items():
            if look is not None:
                self._ledger.take(process, look[3])
                if look[2] is not None:
                    self._readings[process] = look[2]
        self._ledger.take(self._process.id, carried())
        pids = {address.process: self.pid_of(address.process) for address in self._service.processes()}
        memory, load, arena, resident = await aside(
            _measure, [os.getpid(), *pids.values()], arena_dir(self._process.folder)
        )
        me = self._members.me.info
        own = ProcessView(self._process.id, os.getpid(), "node", resident.get(os.getpid(), 0), True)
        processes = [
            ProcessView(id, pid, id.partition("-")[0], resident.get(pid, 0), looks.get(id) is not None)
            for id, pid in pids.items()
            if pid
        ]  # a driver is shown by the node that is its home
        return NodeView(
            id=me.id, name=me.name, address=me.address, pid=os.getpid(), chip=str(me.device["chip"]),
            cpus=int(str(me.device["cpus"])), memory=int(str(me.device["memory"])), memory_used=memory, arena=arena,
            load=load, resources=me.resources, free=whole((await self._service.report(_))[1]), versions=me.versions,
            number=self.journal.last, at=time.time(), since=self._since,
            events=tuple(map(self._placed, await self._explained(_))),
            calls=tuple(calls), processes=(own, *processes), tallies=self._tallies,
            peers=tuple(await peers),
            readings=(*self._departed, *self._readings.values(), *([readings()] if readings() is not None else [])),
            carried=self._carried(),
        )  # fmt: skip

    def _carried(self) -> tuple[tuple[str, str, int, int], ...]:
        """Returns what the links of this node have carried, by the name of the device at the other end."""
        names = {member.info.id: member.info.name for member in self._members.all()}
        me = self._members.me.info
        return tuple(
            (me.name if peer is None else names.get(peer, "(gone)"), path, sent, received)
            for peer, path, sent, received in self._ledger.total()
        )

    async def _explained(self, visitor: Visitor) -> list[Event]:
        """Returns the events that make up the state; those of actors that wait for room here say what is in the way."""
        waiting = {one["actor"]: f"it needs {one['demand']}, but {one['why']}" for one in
                   await self._service.pending(visitor)}  # fmt: skip
        return [
            replace(event, reason=waiting[event.id])
            if isinstance(event, ActorChanged) and event.state == PENDING and event.id in waiting
            else event
            for event in self._state.events()
        ]

    def pid_of(self, process: str) -> int:
        """Returns the number of a process of this node by its id; 0 where there is none."""
        worker = self._service.workers.get(process)
        return worker.subprocess.pid if worker is not None else self._drivers.get(process, 0)

    async def _look_around(self) -> dict[str, tuple[list[OpenCallView], dict[str, int], object, Carried] | None]:
        """Asks all processes of this node what they do; None for one that does not answer at once."""
        addresses = self._service.processes()
        asks = [self._process.ask(address, "inspection", "look", timeout=LOOK_SECONDS) for address in addresses]
        found = await asyncio.gather(*asks, return_exceptions=True)
        return {
            address.process: look if not isinstance(look, BaseException) else None
            for address, look in zip(addresses, found, strict=True)
        }

    async def _ping(self) -> list[tuple[str, float | None]]:
        """Returns how long it takes to each other node and back; None for one that does not answer at once."""
        others = self._members.others()
        found = await asyncio.gather(*(self._trip(member) for member in others), return_exceptions=True)
        return [
            (member.info.name, seconds if not isinstance(seconds, BaseException) else None)
            for member, seconds in zip(others, found, strict=True)
        ]

    async def _trip(self, member: Member) -> float:
        begun = time.monotonic()
        await self._process.ask(member.where, "events", "now", timeout=LOOK_SECONDS)
        return time.monotonic() - begun

    async def since(self, _: Visitor, number: int, timeout: float = 0.0) -> tuple[list[Event], int, int]:
        """Returns the events of this node after one, waiting for the first; see `Journal.after`."""
        await self.journal.news(number, min(timeout, MOST_WAIT_SECONDS))
        return self.journal.after(number)

    async def now(self, _: Visitor) -> float:
        """Returns what this node's clock shows."""
        return time.time()

    async def clocks(self, _: Visitor) -> dict[str, float]:
        """Returns how many seconds each node's clock is ahead of this one's, by the node's name."""
        others = self._members.others()
        found = await asyncio.gather(*(self._ahead(member) for member in others), return_exceptions=True)
        ahead = {
            member.info.name: seconds
            for member, seconds in zip(others, found, strict=True)
            if not isinstance(seconds, BaseException)
        }
        return {self._members.me.info.name: 0.0, **ahead}

    async def _ahead(self, member: Member) -> float:
        """Asks a node's clock a few times, and believes the quickest answer (Cristian, 1989)."""
        answers = []
        for _ in range(CLOCK_TRIES):
            begun = time.time()
            theirs: float = await self._process.ask(member.where, "events", "now", timeout=ASK_SECONDS)
            ended = time.time()
            answers.append((ended - begun, theirs - (begun + ended) / 2))
        return min(answers)[1]

    # -- the whole cluster --------------------------------------------------------------------------------------

    async def cluster(self, visitor: Visitor) -> ClusterView:
        """Returns what all nodes look like just now."""
        others = self._members.others()
        asks = [self._process.ask(member.where, "events", "view", timeout=ASK_SECONDS) for member in others]
        mine, *theirs = await asyncio.gather(self.view(visitor), *asks, return_exceptions=True)
        if isinstance(mine, BaseException):
            raise mine
        nodes: list[NodeView] = [mine]
        silent = [(m.info.name, m.why or "it is gone") for m in self._members.all() if not m.info.alive]
        for member, found in zip(others, theirs, strict=True):
            if isinstance(found, BaseException):
                silent.append((member.info.name, str(found)))
            else:
                nodes.append(found)
        return ClusterView(tuple(nodes), tuple(silent))

    async def follow(
        self, visitor: Visitor, numbers: dict[str, int], timeout: float
    ) -> dict[str, tuple[list[Event], int, int]]:
        """Returns the events of all nodes after those that are known, waiting for the first.

        Args:
            visitor: who asks.
            numbers: of the last event known, by node id; a node that is not named gives none, but its number.
            timeout: seconds to wait for news.

        Returns:
            By node id, see `since`.
        """
        timeout = min(timeout, MOST_WAIT_SECONDS)
        me = self._members.me
        asks: dict[str, asyncio.Task[Any]] = {}
        for member in [me, *self._members.others()]:
            known = numbers.get(member.info.id)
            wait = timeout if known is not None else 0.0
            work: Coroutine[Any, Any, Any] = (
                self.since(visitor, known if known is not None else self.journal.last, wait)
                if member is me
                else self._process.ask(
                    member.where, "events", "since", known if known is not None else 2**62, wait,
                    timeout=wait + ASK_SECONDS,
                )
            )  # fmt: skip
            asks[member.info.id] = self._process.loop.create_task(work)
        try:
            await asyncio.wait(asks.values(), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(asks.values(), timeout=GRACE_SECONDS)
        finally:
            for ask in asks.values():
                ask.cancel()
        done = {id: ask for id, ask in asks.items() if ask.done() and not ask.cancelled() and ask.exception() is None}
        return {id: ask.result() for id, ask in done.items()}

    # -- what was printed --------------------------------------------------------------------------------------------

    async def logs(self, _: Visitor, lines: int) -> list[tuple[str, int, str | None, str | None, str | None, LogLine]]:
        """Returns the last lines that each worker of this node has printed.

        Returns:
            Node, pid, actor, its class and its name; and the line.
        """
        me = self._members.me.info.name
        return [
            (me, author.pid, author.actor, author.class_name, author.name, line)
            for author, found in await self._service.kept.read_all(lines)
            for line in found
        ]

    async def all_logs(self, visitor: Visitor, lines: int) -> list[Any]:
        """Returns the last lines that each worker of the cluster has printed; see `logs`."""
        asks = [self._process.ask(member.where, "events", "logs", lines, timeout=ASK_SECONDS) for member in
                self._members.others()]  # fmt: skip
        found = await asyncio.gather(self.logs(visitor, lines), *asks, return_exceptions=True)
        return [line for some in found if not isinstance(some, BaseException) for line in some]


def _measure(pids: Iterable[int], arena: Path | None) -> tuple[int, float, int, dict[int, int]]:
    """Returns the machine's memory in use, its load, the bytes in the arena, and the resident bytes of processes."""
    import psutil

    resident = {}
    for pid in pids:
        try:
            resident[pid] = psutil.Process(pid).memory_info().rss if pid else 0
        except (psutil.Error, OSError):  # it has just ended
            resident[pid] = 0
    memory = psutil.virtual_memory()
    return memory.total - memory.available, os.getloadavg()[0], _size(arena) if arena is not None else 0, resident


def _size(folder: Path) -> int:
    """Returns the bytes of the files in a folder, each counted once whatever the number of its names."""
    sizes: dict[int, int] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except OSError:  # it has just gone
                    continue
                sizes[found.st_ino] = found.st_blocks * 512
    except OSError:
        return 0
    return sum(sizes.values())
