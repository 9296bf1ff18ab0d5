"""A LAN in miniature: the nodes of this machine's own cluster, started and ended by the driver."""

from __future__ import annotations

import json
import os
import platform
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.address import Address, host_key
from actors.exceptions import ActorsError, ClusterTimeoutError
from actors.home import held_folders, run_dir, sweep, write_private
from actors.ids import new_id
from actors.parent import orders_line
from actors.shortage import no_process

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

STOP_SECONDS = 8.0
LOOPBACK = "127.0.0.1"
WHAT = "cluster.json"


@dataclass(frozen=True, slots=True)
class LocalCluster:
    """The own cluster of a program on this device, as its commands find it.

    Attributes:
        pid: of the program.
        program: its file, or what Python calls it.
        since: when it began (epoch).
        nodes: where they are.
        folder: of its sockets.
    """

    pid: int
    program: str
    since: float
    nodes: tuple[Address, ...]
    folder: Path


def clusters() -> list[LocalCluster]:
    """Returns the clusters that programs of this device have for themselves, the oldest first."""
    found = []
    for folder in held_folders():
        try:
            said = json.loads((folder / WHAT).read_bytes())
            nodes = tuple(
                Address(process, host_key(), str(folder / f"{process}.sock"), id, node_name=name)
                for process, id, name in said["nodes"]
            )
            found.append(LocalCluster(said["pid"], said["program"], said["since"], nodes, folder))
        except (OSError, ValueError, TypeError, KeyError):  # it is just starting, or just ending, or no program's
            continue
    return sorted(found, key=lambda cluster: cluster.since)


@dataclass(slots=True, eq=False)
class LocalNode:
    """A node process that this driver started."""

    name: str
    address: Address
    process: subprocess.Popen[bytes]
    log: Path


class LocalNodes:
    """Begins node processes in a folder of their own; ``close`` ends them and removes it.

    Args:
        count: how many.
        timeout: seconds they may take to start.
        resources: what each has, where that is not for it to find out.
        labels: of each.
    """

    def __init__(self, count: int, timeout: float, resources: dict[str, float], labels: dict[str, str]) -> None:
        sweep()  # what a driver that was killed left behind
        self._run = run_dir("c")
        self.folder = self._run.path
        self.identity: Path | None = None
        self.nodes: list[LocalNode] = []
        self._cluster = new_id("local")
        self._offer = {"resources": resources, "labels": labels}
        self._deadline = time.monotonic() + timeout
        try:
            identities = self._make_identities(count)
            for number in range(count):
                self.nodes.append(self._start(number, identities))
            self._write_down()
        except BaseException:
            self.close()
            raise

    def _make_identities(self, count: int) -> list[str | None]:
        """Makes a key for each node and lets each trust all; one node alone opens no door and needs none."""
        if count == 1:
            return [None]
        from actors.identity import Identity, TrustSet
        from actors.membership import TRUST

        identities = [Identity.create() for _ in range(count)]
        trust = TrustSet([identity.certificate for identity in identities])
        trust.save(self.folder / TRUST)
        for number, identity in enumerate(identities):
            identity.save(self.folder / f"key-{number}")
            (self.folder / f"key-{number}" / TRUST).symlink_to(self.folder / TRUST)
        self.identity = self.folder / "key-0"
        return [identity.node_id for identity in identities]

    def _start(self, number: int, identities: list[str | None]) -> LocalNode:
        host = platform.node() or "localhost"
        name = host if number == 0 else f"{host}-{number + 1}"
        process = new_id("node")
        id = identities[number] or process
        log = self.folder / f"node-{number}.log"
        orders: dict[str, Any] = {
            "id": id,
            "process": process,
            "name": name,
            "folder": str(self.folder),
            "identity": str(self.folder / f"key-{number}") if identities[number] is not None else None,
            "door": f"{LOOPBACK}:0",
            "interfaces": "loopback",
            "cluster": self._cluster,
            "log": str(log),
            "crowd": len(identities) if len(identities) > (os.cpu_count() or 1) else 0,
            **self._offer,
        }
        child = launch(orders, log)
        address = Address(process, host_key(), str(self.folder / f"{process}.sock"), id, node_name=name)
        return LocalNode(name, address, child, log)

    def _write_down(self) -> None:
        """Lets commands of this device find the cluster; see `clusters`."""
        nodes = [[node.address.process, node.address.node, node.name] for node in self.nodes]
        said = {"pid": os.getpid(), "program": sys.argv[0], "since": time.time(), "nodes": nodes}
        write_private(self.folder / WHAT, json.dumps(said).encode())

    def wait_until_ready(self) -> None:
        """Waits until all nodes say that they are.

        Raises:
            ClusterTimeoutError: they did not in time.
            ActorsError: one could not start.
        """
        for node in self.nodes:
            _await_ready(node, self._deadline)

    @property
    def address(self) -> Address:
        """Where the first of them is."""
        return self.nodes[0].address

    @property
    def name(self) -> str:
        """The name of the first of them."""
        return self.nodes[0].name

    @property
    def addresses(self) -> list[Address]:
        """Where they all are."""
        return [node.address for node in self.nodes]

    def check_running(self) -> None:
        """Raises ActorsError where a node has ended by itself, with what it said last."""
        for node in self.nodes:
            if (code := node.process.poll()) is not None:
                raise ActorsError(f"node {node.name} ended with exit code {code}:\n{_tail(node.log)}")

    def abandon(self) -> None:
        """Lets go of the nodes without ending them: in a forked child, whose parent still uses them."""
        for node in self.nodes:
            if node.process.stdin is not None:
                node.process.stdin.close()
        self._run.abandon()

    def close(self) -> None:
        """Ends the nodes, which end their actors, and removes the folder."""
        for node in self.nodes:
            if node.process.stdin is not None:
                node.process.stdin.close()
            node.process.terminate()  # the pipe alone would not do where somebody else has inherited it
        _end(self.nodes)
        self._run.close()


def launch(orders: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    """Starts a node's process; what it says goes to ``log``, but for its first line.

    Raises:
        ActorsError: no process can be started.
    """
    with log.open("ab") as output:
        try:
            # In a session of its own: the terminal's Ctrl-C is the driver's to act on.
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "actors.node"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise ActorsError(no_process(str(orders.get("name") or "of this device"), error)) from error
    assert child.stdin is not None
    child.stdin.write(orders_line(orders))
    child.stdin.flush()
    return child


def _await_ready(node: LocalNode, deadline: float) -> None:
    """Waits until a node is ready."""
    error = first_word(node.process, node.name, node.log, deadline)
    if error is not None:
        raise ActorsError(f"node {node.name} could not start: {error}")


def first_word(process: subprocess.Popen[bytes], name: str, log: Path, deadline: float) -> str | None:
    """Waits for the line by which a node says that it is ready; returns why it could not start where it says so.

    Raises:
        ClusterTimeoutError: it said nothing until ``deadline`` (monotonic).
        ActorsError: it ended without a word.
    """
    pipe = process.stdout
    assert pipe is not None
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise ClusterTimeoutError(f"node {name} did not start in time. It said:\n{_tail(log)}")
        readable, _, _ = select.select([pipe], [], [], min(left, 0.2))
        if readable:
            piece = os.read(pipe.fileno(), 65536)
            if not piece:
                raise ActorsError(f"node {name} could not start:\n{_tail(log)}")
            line += piece
    pipe.close()
    error: str | None = json.loads(line).get("error")
    return error


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def _end(nodes: Iterable[LocalNode]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for node in nodes:
        try:
            node.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            node.process.kill()
            node.process.wait()
        if node.process.stdout is not None:
            node.process.stdout.close()
