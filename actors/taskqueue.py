"""The task queue: tasks of one kind that wait for a worker, and the warm workers that run them."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from actors import runtime
from actors.charge import Charge
from actors.demand import demand_of
from actors.exceptions import ActorError, NoClusterError, PendingCallsLimitExceeded, Verdict, WorkerCrashedError
from actors.ids import new_id
from actors.line import MAX_PENDING_BYTES, in_event_loop, of_death
from actors.messages import Outcome
from actors.room import Room
from actors.runner import Runner
from actors.sealed import Filled, of_error
from actors.serialize import dumps, dumps_arguments
from actors.spec import ActorSpec, Construction, Manner
from actors.transport.portal import SLICE_SECONDS

if TYPE_CHECKING:
    import asyncio

    from actors.address import Address
    from actors.environment import Environment
    from actors.exceptions import RemoteError
    from actors.holdings import Hold
    from actors.nodeinfo import NodeInfo
    from actors.opencall import OpenCall
    from actors.options import TaskOptions
    from actors.process import Process
    from actors.transport.peer import Death, Peer

MAX_WAITING = 100_000  # tasks of one process
MOST_WORKERS = 100  # of one kind
GRACE_SECONDS = 0.1  # a task may end by itself at its deadline
IDLE_SECONDS = 1.0  # a warm worker that has nothing to do ends, so that others have its CPU


class TaskQueue:
    """Tasks of this process with the same needs, first come, first served. See `actors.opencall.Way`.

    Args:
        process: this process.
        options: what the tasks need to be placed.
        environment: what their workers run in.
        python: minor version of Python that runs their code, where that travels by value.
    """

    def __init__(
        self, process: Process, options: TaskOptions, environment: Environment | None, python: str | None
    ) -> None:
        self.label = "task"
        self.manner = Manner(restarts=True)
        self.process = process
        self.hold: Hold | None = None  # its workers end when they are idle
        self._options = options
        self._environment = environment
        self._python = python
        self._room = Room(MAX_WAITING, MAX_PENDING_BYTES)
        self._lock = threading.Lock()
        self._waiting: deque[OpenCall] = deque()
        self._calls = 0
        self._runners: dict[str, _Worker] = {}
        self._most = 1  # workers at once; more once it is known how many CPUs there are
        self._asking: asyncio.Task[None] | None = None

    def submit(self, call: OpenCall) -> None:
        """Puts a task in the queue.

        Raises:
            PendingCallsLimitExceeded: too many wait, and this thread runs an event loop that must not block.
        """
        self._enter(call)
        call.in_room = True
        with self._lock:
            call.place = self._calls = self._calls + 1
            self._waiting.append(call)
        for need in call.needs:
            need.add_done_callback(lambda _: self.process.portal.soon(self._pump))
        try:
            self.process.portal.soon(self._pump)
            if call.deadline is not None:
                self.process.portal.soon(self._watch_deadline, call)
        except RuntimeError as error:  # the I/O loop is closed
            raise NoClusterError("the cluster was shut down while the task was submitted") from error

    def _enter(self, call: OpenCall) -> None:
        if self._room.enter(call.nbytes):
            return
        if self.process.portal.is_current or in_event_loop():
            raise PendingCallsLimitExceeded(f"{self._room.count} tasks wait: await some of them before making more")
        while not self._room.enter(call.nbytes, SLICE_SECONDS):
            pass

    def _watch_deadline(self, call: OpenCall) -> None:
        """A task that nobody waits for any more shall not keep its worker."""
        assert call.deadline is not None
        self.process.loop.call_later(max(0.0, call.deadline - time.monotonic()) + GRACE_SECONDS, self._overdue, call)

    @staticmethod
    def _overdue(call: OpenCall) -> None:
        if call.number is not None:
            call.cancel(force=True)

    # -- as the way of its calls --------------------------------------------------------------------------------

    def answered(self, call: OpenCall) -> None:
        """See `actors.opencall.Way`: its worker is free for the next."""
        call.payload = None
        self._room.leave(call.nbytes)
        self._freed(call)

    def take_back(self, call: OpenCall) -> None:
        """See `actors.opencall.Way`."""
        self._freed(call)
        with self._lock:
            self._waiting = deque(sorted([call, *self._waiting], key=lambda call: call.place))
        self.process.portal.soon(self._pump)

    def drop(self, call: OpenCall) -> bool:
        """See `actors.opencall.Way`."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
                return True
        return False

    def died_of(self, death: Death, method: str, verdict: Verdict) -> RemoteError:
        """See `actors.opencall.Way`."""
        return of_death(death, "the worker of a task", None, verdict, method=method, kind=WorkerCrashedError)

    def _freed(self, call: OpenCall) -> None:
        self.process.portal.soon(self._free, call)

    # -- on the I/O loop ----------------------------------------------------------------------------------------

    def _free(self, call: OpenCall) -> None:
        for worker in self._runners.values():
            if worker.call is call:
                worker.call = None
                if call.forced:  # its process is about to end
                    self._retire(worker)
                    break
                worker.idle = self.process.loop.call_later(IDLE_SECONDS, self._retire, worker)
        self._pump()

    def _pump(self) -> None:
        """Gives tasks to free workers; where there are too few, has more of them made."""
        while (call := self._next()) is not None:
            if call.over:  # it has expired meanwhile
                call.release()
                continue
            failed = next((s for n in call.needs if (s := n.result()).outcome is not Outcome.VALUE), None)
            if failed is not None:
                call.end(failed)
                continue
            worker = next((w for w in self._runners.values() if w.peer is not None and w.call is None), None)
            if worker is None:
                with self._lock:
                    self._waiting.appendleft(call)
                break
            self._send(worker, call)
        self._make_workers()

    def _next(self) -> OpenCall | None:
        with self._lock:
            for call in self._waiting:  # a task need not wait for those before it
                if call.ready:
                    self._waiting.remove(call)
                    return call
        return None

    def _send(self, worker: _Worker, call: OpenCall) -> None:
        assert worker.peer is not None
        assert call.payload is not None
        worker.call = call
        if worker.idle is not None:
            worker.idle.cancel()
        if call.needs:
            call.payload = dumps(Filled(call.payload, tuple(need.result().payload for need in call.needs)))
            call.needs = []
        call.peer = worker.peer
        call.sent(worker.peer, worker.id, worker.peer.call(worker.id, "run", call.payload, call, call.terms()))

    async def _ask_most(self) -> None:
        """Finds out how many workers could run at once: more would only wait for their place."""
        found: list[NodeInfo] = await self.process.ask_home("nodes")
        cpus = sum(info.resources.get("CPU", 0.0) for info in found if info.alive)
        each = 1.0 if self._options.num_cpus is None else self._options.num_cpus
        self._most = max(1, min(MOST_WORKERS, int(cpus / each) if each else MOST_WORKERS))
        self._make_workers()

    def _make_workers(self) -> None:
        if self._asking is None:
            self._asking = self.process.loop.create_task(self._ask_most())
        with self._lock:
            wanted = sum(call.ready for call in self._waiting)
        coming = sum(worker.peer is None for worker in self._runners.values())
        for _ in range(min(wanted - coming, self._most - len(self._runners))):
            worker = _Worker(self.process, self._options, self._environment, self._python, self)
            self._runners[worker.id] = worker
            worker.begin()

    def came(self, worker: _Worker) -> None:
        """A worker has its place."""
        worker.idle = self.process.loop.call_later(IDLE_SECONDS, self._retire, worker)
        self._pump()

    def went(self, worker: _Worker, error: ActorError) -> None:
        """A worker has ended, or could not be had; then a task that waits for it is told so."""
        self._runners.pop(worker.id, None)
        if worker.peer is None and (call := self._next()) is not None:
            call.end(of_error(error.__cause__ or error))
        self._pump()

    def _retire(self, worker: _Worker) -> None:
        if worker.call is None and self._runners.pop(worker.id, None) is not None:
            worker.retire()


class _Worker:
    """One warm worker of a queue."""

    def __init__(
        self,
        process: Process,
        options: TaskOptions,
        environment: Environment | None,
        python: str | None,
        queue: TaskQueue,
    ) -> None:
        self.id = new_id("actor")
        self.peer: Peer | None = None
        self.call: OpenCall | None = None
        self.idle: asyncio.TimerHandle | None = None
        self._process = process
        self._queue = queue
        self._ending: asyncio.Task[None] | None = None
        spec = ActorSpec(
            id=self.id, label="task", class_name="task", name=None, namespace=process.namespace, owner=process.id,
            driver=runtime.driver(), handle=None, demand=demand_of(options, runs_at_once=True, python=python),
            task=True, environment=environment,
        )  # fmt: skip
        construction = Construction(
            code=dumps(Runner), spec=spec, arguments=dumps_arguments((), {}), max_concurrency=None, is_async=False,
            group=None,
        )  # fmt: skip
        self._charge = Charge(process, construction, 0, (), lambda error: queue.went(self, error))

    def begin(self) -> None:
        """Has the worker made."""
        self._charge.begin()
        self._coming = self._process.loop.create_task(self._come())

    async def _come(self) -> None:
        try:
            address: Address = await self._charge.located(None)
        except ActorError:
            return  # the queue has been told
        self.peer = self._process.peer(address)
        self._queue.came(self)

    def retire(self) -> None:
        """Ends the worker."""
        self._ending = self._process.loop.create_task(self._charge.retire())


_Kind = tuple[object, ...]
_queues: WeakKeyDictionary[Process, dict[_Kind, TaskQueue]] = WeakKeyDictionary()
_lock = threading.Lock()


def queue_for(process: Process, options: TaskOptions, environment: Environment | None, python: str | None) -> TaskQueue:
    """Returns the queue of this process for tasks with these needs."""
    placed = (
        options.num_cpus, options.num_gpus, options.memory, options.resources, options.node, options.label_selector,
        options.scheduling_strategy, options.placement_timeout, environment,
        python,
    )  # fmt: skip
    kind = tuple(repr(value) for value in placed)
    with _lock:
        queues = _queues.setdefault(process, {})
        if kind not in queues:
            queues[kind] = TaskQueue(process, options, environment, python)
        return queues[kind]
