"""A running node: its parts put together, started, and ended when its parent has."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import resource
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import device, holdings
from actors.events import recorder
from actors.exceptions import ActorsError
from actors.home import remove_if_dead, run_dir, sweep
from actors.ids import new_id
from actors.jsonlog import log_as_wished
from actors.node.draining import Draining
from actors.node.environments import Environments
from actors.node.hosting import Hosting
from actors.node.members import Member, Members
from actors.node.neighbours import MESH_LIMIT, Neighbours
from actors.node.observatory import Observatory
from actors.node.opinion import Opinion
from actors.node.publicity import Publicity
from actors.node.service import NodeService
from actors.node.workers import Workers
from actors.nodeinfo import NodeInfo, labels, totals, versions
from actors.nodeinfo import device as look_at_device
from actors.parent import watch
from actors.process import Process
from actors.shortage import aside

if TYPE_CHECKING:
    from actors.device import Door
    from actors.node.residence import Residence
    from actors.node.starting import Started
    from actors.transport.portal import Portal

LOOK_SECONDS = 0.2
MOST_DESCRIPTORS = 10_240
"""What macOS lets a process have without more ado; there as on Linux it begins with much less, 256 and 1,024."""

CROWD_SECONDS = 30.0


class Node:
    """One node: its process, its workers, its door and its place in discovery.

    Args:
        orders: ``id`` (node id), ``process`` (process id), ``name``, ``folder`` (of sockets), ``identity`` (folder of
            keys, None for no door), ``door`` (``"HOST:PORT"``), ``interfaces`` (for discovery), ``cluster``,
            ``resources`` and ``labels`` (as `actors.init` was told), ``crowd`` (how many nodes start at once, where
            those are more than there are processors; else 0).
        residence: whether it is the one node of this device, which is found by the devices that this one trusts.
        portal: its I/O loop, which runs.
        first: a worker's process that has begun already.
    """

    def __init__(self, orders: dict[str, Any], residence: Door | None, portal: Portal, first: Started | None) -> None:
        self._orders = orders
        self._identity = Path(orders["identity"]) if orders["identity"] is not None else None
        credentials = None
        if self._identity is not None:
            from actors.membership import credentials_from

            credentials = credentials_from(self._identity)
        folder = Path(orders["folder"])
        self.process = Process(orders["process"], folder, orders["id"], orders["name"], credentials, portal=portal)
        holdings.use(self.process.holdings)
        recorder.use(self.process.recorder)
        found = look_at_device()
        info = NodeInfo(
            id=orders["id"], name=orders["name"], address="", alive=True, pid=os.getpid(), found_by="local",
            resources=totals(orders["name"], found, orders["resources"]),
            labels=labels(orders["id"], orders["name"], orders["labels"]), device=found, versions=versions(),
        )  # fmt: skip
        self._members = Members(self.process, Member(info, self.process.address))
        self._neighbours = Neighbours(self.process, self._members, _mesh_limit())
        self.process.serve("neighbours", self._neighbours)
        self._service = NodeService(self.process, self._members)
        self._observatory = self._service.observatory = Observatory(self.process, self._members, self._service)
        self.process.serve("events", self._observatory)
        hosting = Hosting(self.process, self._members, self._service, self._observatory)
        self.process.serve("hosting", hosting)
        self._service.workers = Workers(
            self.process.address, orders["name"], orders["identity"], orders["folder"],
            self._service.ended, self._service.printed, Environments(self.process, orders["name"], self._service.say),
            first,
        )  # fmt: skip
        self.process.on_gone = self._service.gone
        self.process.on_link_lost = self._service.link_lost
        self.process.serve("node", self._service)
        self.process.serve("names", self._service.naming)
        self.process.serve("directory", self._service.naming.directory)
        self.process.serve("custody", self._service.custody)
        self.process.serve(
            "draining", Draining(self.process, self._members, self._service.workers, self._service.custody)
        )
        self.process.server.relay_to(self._service.route, self.process.dialer)
        self.process.server.serve_public(Publicity(self.process).call)
        self._residence: Residence | None = None
        if residence is not None:
            from actors.node.residence import Residence

            self._residence = Residence(self.process, self._members, self._service.processes, residence)
            self.process.serve("trust", self._residence)
            self.process.serve("doctor", Opinion(self.process, self._members))
        self._discovery: Any = None
        self._preparing: asyncio.Task[None] | None = None
        self.stopping = asyncio.Event()

    async def start(self) -> None:
        """Opens the socket, then the door, then says where it is to be found."""
        await self.process.listen()
        self.process.directory[self._orders["id"]] = self.process.address
        self._preparing = asyncio.create_task(self._prepare(self._orders.get("crowd", 0)))
        self._service.watch()
        if self._residence is not None:
            await self._residence.start()
        elif self._identity is not None:
            await self._open_door(self._identity)

    async def _prepare(self, crowd: int) -> None:
        """Has a worker wait ahead of need; in a crowd, the processors are for the nodes first."""
        if crowd:
            await self._members.wait_for(crowd, CROWD_SECONDS)
        self._service.workers.prepare()

    async def _open_door(self, identity_folder: Path) -> None:
        from actors.membership import load
        from actors.transport.credentials import peer_node_id, server_credentials

        identity, trust = load(identity_folder)
        host = self._orders["door"].rpartition(":")[0]
        port = await self.process.server.listen_door(
            self._orders["door"],
            lambda: server_credentials(identity, trust),
            lambda context: peer_node_id(context.auth_context(), trust),
        )
        me = self._members.me
        me.where = replace(me.where, doors=(f"{host}:{port}",))
        me.info = replace(me.info, address=f"{host}:{port}", found_by="zeroconf")
        await self._announce(host, port)

    async def _announce(self, host: str, port: int) -> None:
        import discovery

        me = self._members.me.info
        record = discovery.NodeRecord(
            id=me.id, name=me.name, port=port, addresses=(host,), boot=self.process.id, cluster=self._orders["cluster"]
        )
        interfaces = self._orders["interfaces"]
        self._discovery = discovery.reside(
            record, interfaces=interfaces, cluster=self._orders["cluster"], on_event=self._seen
        )
        await self._discovery.__aenter__()

    def _seen(self, event: Any) -> None:
        record = getattr(event, "record", None)
        if record is not None:
            self.process.portal.soon(self._members.found, record)

    async def left_by_parent(self) -> None:
        """The program that has started this node has ended: so does the node, but not while others use it."""
        while self._residence is not None and self._service.has_drivers():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(LOOK_SECONDS)
        self.stopping.set()

    async def run(self) -> None:
        """Serves until told to stop, then leaves nothing behind."""
        await self.stopping.wait()
        if self._preparing is not None:
            self._preparing.cancel()
        if self._discovery is not None:
            await self._discovery.__aexit__(None, None, None)
        if self._residence is not None:
            await self._residence.close()
        self._neighbours.close()
        self._members.close()
        self._service.close()
        await self._service.workers.close()
        await aside(self._service.kept.close)
        await self.process.close(f"node {self._orders['name']} was stopped")


def run(orders: dict[str, Any], parent: int, portal: Portal, first: Started | None) -> None:
    """Runs a node until it is stopped; says on standard output when it is ready, or why it is not.

    Args:
        orders: see `Node`; ``device`` makes it this device's one node.
        parent: what reads as ended once the parent is gone.
        portal: see `Node`.
        first: see `Node`.
    """
    with contextlib.ExitStack() as held:
        door = None
        if orders.get("device"):
            door = _settle(orders, held)
            if door is None:
                print(json.dumps({"error": device.ALREADY}), flush=True)
                return
        _serve(orders, parent, door, portal, first)


def _settle(orders: dict[str, Any], held: contextlib.ExitStack) -> Door | None:
    """Completes the orders of this device's one node; None where there is one already."""
    lock = device.hold()
    if lock is None:
        return None
    held.callback(os.close, lock)
    sweep()
    run = held.enter_context(run_dir("node"))
    held.callback(device.unannounce)
    roll, id = device.roll(), device.identity().node_id
    name = roll.members[id].name if roll is not None else device.host_name()
    orders.update(id=id, name=name, folder=str(run.path), identity=str(device.folder()), process=new_id("node"))
    return device.Door(**orders["door"]) if orders["door"] else device.door()


def _serve(orders: dict[str, Any], parent: int, door: Door | None, portal: Portal, first: Started | None) -> None:
    if not log_as_wished() and door is not None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _take_descriptors()
    node = Node(orders, door, portal, first)
    loop = node.process.loop
    foreground = bool(orders.get("foreground"))

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(node.stopping.set)

    def parent_gone() -> None:
        asyncio.run_coroutine_threadsafe(node.left_by_parent(), loop)

    if not orders.get("stays"):
        watch(parent, parent_gone)
    signal.signal(signal.SIGTERM, stop)
    if foreground:
        signal.signal(signal.SIGINT, stop)
    try:
        asyncio.run_coroutine_threadsafe(node.start(), loop).result()
    except Exception as error:
        said = str(error) if isinstance(error, ActorsError) else f"{type(error).__name__}: {error}"
        print(json.dumps({"error": said}), flush=True)
        raise
    gc.freeze()  # what is here now stays
    gc.enable()
    with contextlib.suppress(BrokenPipeError):  # the driver has ended: what follows ends the node
        print("The node runs; Ctrl-C ends it." if foreground else json.dumps({"ready": node.process.id}), flush=True)
    if not foreground:
        _detach_output(Path(orders["log"]))
    asyncio.run_coroutine_threadsafe(node.run(), loop).result()
    node.process.portal.close()
    sys.stdout.flush()
    # Where the driver was killed, the last of its nodes to end clears up after it.
    if door is None:
        remove_if_dead(Path(orders["folder"]))


def _mesh_limit() -> int:
    """Up to how many nodes are all connected with each other; tests see with few what else comes with many."""
    return int(os.environ.get("ACTORS_MESH_LIMIT", MESH_LIMIT))


def _take_descriptors() -> None:
    """Has this process open more files than is usual: each other node takes two connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some systems have another limit besides
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _detach_output(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
