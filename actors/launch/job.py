"""A job from beginning to end: its ranks are placed, started, shown and ended."""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import actors
from actors.exceptions import ActorDiedError, ActorsError
from actors.runtime import joined

from .host import Host
from .meeting import SERVICE, Meeting
from .ranks import Ended, Printed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from actors.handle import ActorHandle
    from actors.nodeinfo import NodeInfo

GRACE_SECONDS = 5.0
"""How long the ranks have to end by themselves once one has failed."""

LOOPBACK = "127.0.0.1"
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """What to run.

    Attributes:
        size: number of ranks.
        script: a Python file.
        arguments: for it.
        nodes: names or ids of the nodes to run on, each of which gets about as many ranks; ``"all"`` for all there
            are; None for this machine alone.
        folder: with ``nodes``, what is sent to them, and where the ranks run; None for the script's own folder.
    """

    size: int
    script: str
    arguments: tuple[str, ...] = ()
    nodes: tuple[str, ...] | None = None
    folder: str | None = None


@dataclass(slots=True, eq=False)
class _Part:
    """The ranks on one node."""

    host: ActorHandle[Any]
    name: str
    address: str
    first: int
    count: int


class _Stopped(BaseException):
    """The job was told to end, by this signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(job: Job, show: Callable[[Printed], None], say: Callable[[str], None]) -> int:
    """Runs a job. Returns 0 where all ranks have, else the exit status of the first that failed.

    Args:
        job: what to run.
        show: takes what the ranks print, line by line.
        say: takes what there is to say about the job itself.

    Raises:
        ActorsError: a node is not there, or went away.
        ValueError: the script cannot be run.
        KeyboardInterrupt: Ctrl-C, after the ranks have ended.
    """
    _check(job)
    with actors.init(None if job.nodes is not None else "local", log_to_driver=False), _signals():
        parts = _placed(job)
        meeting = Meeting(job.size, Path(job.script).name)
        process = joined()
        assert process is not None
        process.serve(SERVICE, meeting)
        return _Run(job, parts, meeting, show, say).status()


def _check(job: Job) -> None:
    path = Path(job.script)
    if not path.is_file():
        raise ValueError(f"there is no file {job.script}")
    if job.nodes is not None:
        folder = Path(job.folder or path.parent).resolve()
        if not path.resolve().is_relative_to(folder):
            raise ValueError(f"{job.script} does not lie in {folder}, which is what the nodes get")


def _placed(job: Job) -> list[_Part]:
    """Makes an actor on each node, which will run its ranks."""
    nodes = _chosen(job)
    hosts = actors.remote(Host)
    script = os.path.abspath(job.script)
    folder: str | None = os.getcwd()
    environment = None
    if job.nodes is not None:
        sent = Path(job.folder or Path(job.script).parent).resolve()
        script, folder = str(Path(script).resolve().relative_to(sent)), None
        environment = {"working_dir": str(sent)}
    parts, first = [], 0
    for index, node in enumerate(nodes):
        count = job.size // len(nodes) + (index < job.size % len(nodes))
        options: dict[str, Any] = {"num_cpus": 0, "max_concurrency": 3, "node": node.id, "runtime_env": environment}
        host = hosts.options(**options).remote(script, job.arguments, folder, job.nodes is not None)
        address = node.address.rpartition(":")[0] if job.nodes is not None and len(nodes) > 1 else LOOPBACK
        parts.append(_Part(host, node.name, address, first, count))
        first += count
    return parts


def _chosen(job: Job) -> list[NodeInfo]:
    alive = [node for node in actors.nodes() if node.alive]
    if job.nodes is None:
        return alive[:1]
    chosen = alive if job.nodes == ("all",) else []
    for name in job.nodes if not chosen else ():
        found = next((node for node in alive if name in {node.name, node.id}), None)
        if found is None:
            raise ActorsError(f"no node {name!r} answers; there are: {', '.join(node.name for node in alive)}")
        chosen.append(found)
    return chosen[: job.size]


class _Run:
    """A job that runs."""

    def __init__(
        self,
        job: Job,
        parts: Sequence[_Part],
        meeting: Meeting,
        show: Callable[[Printed], None],
        say: Callable[[str], None],
    ) -> None:
        self._job, self._parts, self._meeting, self._show, self._say = job, parts, meeting, show, say
        self._events: queue.Queue[Any] = queue.Queue(100)
        self._left = job.size
        self._failed: int | None = None
        self._kill_at: float | None = None

    def status(self) -> int:
        """Runs it to its end."""
        self._start()
        while self._left:
            try:
                self._go_on()
            except (KeyboardInterrupt, _Stopped) as stop:
                number = stop.number if isinstance(stop, _Stopped) else int(signal.SIGINT)
                if self._failed is None:
                    self._failed = 128 + number
                    self._end(number)
                else:
                    self._signal(signal.SIGKILL)
        if self._failed == 128 + signal.SIGINT:
            raise KeyboardInterrupt
        return self._failed or 0

    def _start(self) -> None:
        counts = [part.count + (index == 0) for index, part in enumerate(self._parts)]
        found = actors.get(
            [part.host.ports.remote(part.address, count) for part, count in zip(self._parts, counts, strict=True)]
        )
        master = _joined_up(self._parts[0].address, found[0].pop())
        pairs = zip(self._parts, found, strict=True)
        addresses = tuple(_joined_up(part.address, port) for part, ports in pairs for port in ports)
        process = joined()
        assert process is not None
        secret = secrets.token_hex(32)
        for part in self._parts:
            stream = part.host.run.remote(part.first, part.count, addresses, master, secret, process.address)
            threading.Thread(target=self._follow, args=(part, stream), daemon=True).start()

    def _follow(self, part: _Part, stream: Any) -> None:
        left = set(range(part.first, part.first + part.count))
        try:
            for ref in stream:
                events = actors.get(ref)
                left -= {event.rank for event in events if isinstance(event, Ended)}
                self._events.put(events)
        except (ActorsError, TimeoutError) as error:
            self._events.put((part, left, error))

    def _go_on(self) -> None:
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._kill_at = None
            self._signal(signal.SIGKILL)
        try:
            events = self._events.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            return
        if isinstance(events, tuple):
            self._lost(*events)
            return
        for event in events:
            if isinstance(event, Printed):
                self._show(event)
            else:
                self._ended(event)

    def _ended(self, event: Ended) -> None:
        self._left -= 1
        how = f"ended with {_described(event.status)}"
        process = joined()
        assert process is not None
        process.portal.soon(self._meeting.ended, event.rank, how)
        if event.status and self._failed is None:
            self._failed = event.status if event.status > 0 else 128 - event.status
            node = next(part.name for part in self._parts if part.first <= event.rank < part.first + part.count)
            self._say(f"rank {event.rank} on node {node} {how}{'; the others are ended' if self._left else ''}")
            self._end(signal.SIGTERM)

    def _lost(self, part: _Part, ranks: set[int], error: Exception) -> None:
        self._left -= len(ranks)
        if self._failed is None:
            self._failed = 1
            self._say(f"ranks {sorted(ranks)} on node {part.name} are lost: {error}")
            self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._signal(number)
        self._kill_at = time.monotonic() + GRACE_SECONDS

    def _signal(self, number: int) -> None:
        for part in self._parts:
            with contextlib.suppress(ActorDiedError):
                part.host.signal.remote(int(number))


def _joined_up(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _described(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Has SIGTERM and SIGHUP end the job in good order."""

    def stop(number: int, _: object) -> None:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
