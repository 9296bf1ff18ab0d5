"""The worker processes of a node: started ahead of need, watched until they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections import OrderedDict, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from actors import arena
from actors.home import arena_dir
from actors.ids import new_id
from actors.node.environments import PLAIN
from actors.node.starting import start
from actors.parent import orders_line
from actors.progress import Progress
from actors.shortage import no_process
from actors.stdio import read_origin
from actors.transport.peer import Death

if TYPE_CHECKING:
    from asyncio.subprocess import Process as Subprocess
    from collections.abc import Callable

    from actors.address import Address
    from actors.environment import Environment
    from actors.node.environments import Environments, Launch, Lease
    from actors.node.starting import Started
    from actors.spec import ActorSpec

READY_SECONDS = 60.0
STOP_SECONDS = 3.0
REMEMBERED_DEATHS = 10_000
LAST_LINES = 20


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One worker process.

    Attributes:
        id: of the process.
        address: where it listens, once it is ready.
        spec: the actor it is, once it was chosen for one.
        verdict: why it was ended, where this node ended it or it has said so itself.
        intended: its end was wanted; see `Death`.
        moved: the actor lives elsewhere; see `Death`.
        taken: when it was chosen for an actor, by the loop's clock.
        lease: of the environment it runs in, if it is not the node's own.
        origins: whose call prints on which stream, see `actors.stdio`.
    """

    id: str
    subprocess: Subprocess
    transport: asyncio.SubprocessTransport
    exited: asyncio.Future[None]
    ready: asyncio.Future[Address]
    spec: ActorSpec | None = None
    verdict: str | None = None
    intended: bool = False
    moved: bool = False
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    watch: asyncio.Task[None] | None = None
    taken: float = 0.0
    lease: Lease | None = None
    origins: dict[str, str] = field(default_factory=dict)


class Workers:
    """Starts, lends and buries worker processes.

    Args:
        home: where this node listens.
        node_name: its name.
        folder: where sockets go.
        identity: folder of the device's key, None where there is no door.
        ended: told when a worker has ended.
        printed: told what a worker prints, line by line.
        environments: makes those that actors ask for.
        first: a worker's process that has begun already.

    Attributes:
        loads_ahead: whether spares are to load what most large actors need; see `actors.worker.AHEAD`.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        home: Address,
        node_name: str,
        identity: str | None,
        folder: str,
        ended: Callable[[WorkerProcess, Death], None],
        printed: Callable[[WorkerProcess, str, str], None],
        environments: Environments,
        first: Started | None = None,
    ) -> None:
        self._orders = {"home": asdict(home), "node_name": node_name, "folder": folder, "identity": identity}
        self.loads_ahead = False
        self._folder = folder
        self._ended = ended
        self._printed = printed
        self.environments = environments
        self._all: dict[str, WorkerProcess] = {}
        self._first = first
        self._spare: asyncio.Task[WorkerProcess] | None = None
        self._deaths: OrderedDict[str, Death] = OrderedDict()
        self._closing = False

    def prepare(self) -> None:
        """Starts a spare worker if there is none."""
        if self._spare is None and not self._closing:
            self._spare = asyncio.create_task(self._start(PLAIN))

    async def take(
        self, environment: Environment | None = None, driver: Address | None = None
    ) -> tuple[WorkerProcess, Address]:
        """Returns a worker that is ready: in the node's own environment the spare one, else one started for it.

        Args:
            environment: what it must run in; None for the node's own.
            driver: whom to tell how the making of an environment goes.

        Raises:
            RuntimeEnvError: the environment cannot be made, or no worker can start in it.
            RuntimeError: a worker cannot be started; the message holds what it printed.
        """
        if environment is not None:
            return await self._take_in(environment, driver)
        try:
            spare = await self._spare_worker()
            if spare is not None:
                with contextlib.suppress(RuntimeError):  # what it could not start by may be over
                    return spare, await self._readied(spare)
            worker = await self._start(PLAIN)
            return worker, await self._readied(worker)
        except OSError as error:
            raise RuntimeError(no_process(str(self._orders["node_name"]), error)) from error
        finally:
            self.prepare()

    async def _take_in(self, environment: Environment, driver: Address | None) -> tuple[WorkerProcess, Address]:
        lease = await self.environments.lease(environment, driver)
        try:
            worker = await self._start(lease.launch)
        except BaseException as error:
            lease.end()
            if isinstance(error, OSError):
                raise lease.refused(str(error)) from error
            raise
        worker.lease = lease
        try:
            return worker, await self._readied(worker)
        except RuntimeError as error:
            raise lease.refused(str(error)) from error

    async def _readied(self, worker: WorkerProcess) -> Address:
        try:
            async with asyncio.timeout(READY_SECONDS):
                address = await asyncio.shield(worker.ready)
        except TimeoutError:
            self.kill(worker, "it did not start in time")
            raise RuntimeError(f"a worker did not start within {READY_SECONDS:g} s") from None
        except asyncio.CancelledError:
            self.kill(worker, "nobody needs it any more")
            raise
        worker.taken = asyncio.get_running_loop().time()
        return address

    async def _spare_worker(self) -> WorkerProcess | None:
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        try:
            worker = await asyncio.shield(spare)
        except OSError:
            return None
        return worker if worker.id in self._all else None  # it may have ended while nobody needed it

    async def _start(self, launch: Launch) -> WorkerProcess:
        id = new_id("worker")
        first, self._first = (self._first, None) if launch is PLAIN else (None, self._first)
        started = first or await start(launch.python, launch.variables, launch.folder)
        subprocess = started.subprocess
        ready = asyncio.get_running_loop().create_future()
        worker = WorkerProcess(id, subprocess, started.transport, started.exited, ready)
        self._all[id] = worker
        worker.watch = asyncio.create_task(self._watch(worker))
        assert subprocess.stdin is not None
        ahead = self.loads_ahead and launch is PLAIN
        orders = {**self._orders, "id": id, "path": launch.path, "loads_ahead": ahead}
        subprocess.stdin.write(orders_line(orders))
        return worker

    def became_ready(self, address: Address) -> None:
        """A worker says where it listens."""
        worker = self._all.get(address.process)
        if worker is not None and not worker.ready.done():
            worker.ready.set_result(address)

    def pids(self) -> list[int]:
        """Returns the process numbers of the workers that live."""
        return [worker.subprocess.pid for worker in self._all.values()]

    def of_pid(self, pid: int) -> WorkerProcess | None:
        """Returns the worker with this process number, while it lives."""
        return next((worker for worker in self._all.values() if worker.subprocess.pid == pid), None)

    def get(self, process: str) -> WorkerProcess | None:
        """Returns the worker with this process id, while it lives."""
        return self._all.get(process)

    def find_actor(self, actor: str) -> WorkerProcess | None:
        """Returns the worker that is this actor."""
        return next((w for w in self._all.values() if w.spec is not None and w.spec.id == actor), None)

    def actors(self) -> list[WorkerProcess]:
        """Returns the workers that are actors."""
        return [worker for worker in self._all.values() if worker.spec is not None]

    def ready(self) -> list[Address]:
        """Returns where the workers are that have said so."""
        futures = [worker.ready for worker in self._all.values()]
        return [f.result() for f in futures if f.done() and not f.cancelled() and f.exception() is None]

    def condemn(self, worker: WorkerProcess, verdict: str, *, intended: bool, moved: bool = False) -> None:
        """A worker is about to end; the first reason counts, and any wish that it stays so."""
        worker.moved = worker.moved or (moved and worker.verdict is None)
        worker.verdict = worker.verdict or verdict
        worker.intended = worker.intended or intended

    def kill(self, worker: WorkerProcess, verdict: str, *, intended: bool = False) -> None:
        """Ends a worker at once."""
        self.condemn(worker, verdict, intended=intended)
        if worker.subprocess.returncode is None:
            # With whatever it has started: it leads a session, and so a group, of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.subprocess.pid, signal.SIGKILL)

    async def _watch(self, worker: WorkerProcess) -> None:
        subprocess = worker.subprocess
        assert subprocess.stdout is not None
        assert subprocess.stderr is not None
        readers = [
            asyncio.create_task(self._read(worker, "stdout", subprocess.stdout)),
            asyncio.create_task(self._read(worker, "stderr", subprocess.stderr)),
        ]
        await worker.exited
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(subprocess.pid, signal.SIGKILL)  # it led a session of its own: what it has started ends too
        _, late = await asyncio.wait(readers, timeout=0.5)
        for reader in late:  # what has left that session may hold the pipes open
            reader.cancel()
        worker.transport.close()
        self._bury(worker, subprocess.returncode or 0)

    def _bury(self, worker: WorkerProcess, code: int) -> None:
        del self._all[worker.id]
        if worker.lease is not None:
            worker.lease.end()
        lines = tuple(worker.tail) if code != 0 and worker.verdict is None else ()
        death = Death(
            _how(code, worker), node=str(self._orders["node_name"]), last_lines=lines, intended=worker.intended,
            moved=worker.moved,
        )  # fmt: skip
        self._deaths[worker.id] = death
        if len(self._deaths) > REMEMBERED_DEATHS:
            self._deaths.popitem(last=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._folder, f"{worker.id}.sock"))
        shared = arena_dir(Path(self._folder))
        if shared is not None:
            arena.remove(shared, worker.id)
        shutil.rmtree(os.path.join(self._folder, f"parcels-{worker.id}"), ignore_errors=True)  # see actors.parcels
        if not worker.ready.done():
            printed = "".join(f"\n  {line}" for line in lines)
            worker.ready.set_exception(
                RuntimeError(f"a worker could not start: {death.reason}, on node {death.node}{printed}")
            )
            worker.ready.exception()
        self._ended(worker, death)

    async def _read(self, worker: WorkerProcess, stream: str, pipe: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await pipe.readline()
            except ValueError:  # longer than the pipe's limit
                line = b"(a line of over 1 MiB was left out)\n"
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\n")
            if (origin := read_origin(text)) is not None:
                worker.origins[stream] = origin
                continue
            if Progress.read(text) is None:  # a bar is not what it said last
                worker.tail.append(text)
            self._printed(worker, stream, text)

    async def autopsy(self, process: str) -> Death | None:
        """Returns how a worker ended; waits a moment for one whose end is just being noticed."""
        worker = self._all.get(process)
        if worker is not None and worker.watch is not None:
            await asyncio.wait({worker.watch}, timeout=STOP_SECONDS)
        return self._deaths.get(process)

    async def close(self) -> None:
        """Ends all workers: asks first, then does not."""
        self._closing = True
        await self.environments.close()
        if self._spare is not None:
            await asyncio.wait({self._spare})
        workers = list(self._all.values())
        for worker in workers:
            worker.verdict = worker.verdict or "its node was stopped"
            assert worker.subprocess.stdin is not None
            worker.subprocess.stdin.close()
        watches = {worker.watch for worker in workers if worker.watch is not None}
        if watches:
            _, late = await asyncio.wait(watches, timeout=STOP_SECONDS)
            if late:
                for worker in workers:
                    self.kill(worker, "it did not stop in time")
                await asyncio.wait(late, timeout=STOP_SECONDS)


def _how(code: int, worker: WorkerProcess) -> str:
    if worker.verdict is not None:
        return worker.verdict
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        how = f"its process was ended by signal {-code} ({name})"
        if -code == signal.SIGKILL:
            how += ", by the system where memory ran out or by somebody's kill -9"
    else:
        how = f"its process ended with exit code {code}"
    return how
