"""The cluster of this program: joined by `init`, left by `shutdown`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, Self, cast

from actors import engine as engines
from actors import face, launched, runtime
from actors.address import host_key
from actors.demand import check_labels
from actors.environment import check_environment
from actors.exceptions import ActorDiedError, ActorsError, ClusterTimeoutError, NoClusterError
from actors.ids import new_id
from actors.initarguments import InitArguments, check, engine_of, meant, offered
from actors.launched import LaunchedNode
from actors.local import LocalNodes
from actors.sealed import of_error
from actors.waiting import Waiting

if TYPE_CHECKING:
    from types import TracebackType

    from actors.address import Address
    from actors.console import Console
    from actors.environment import Environment
    from actors.launched import Launched
    from actors.nodeinfo import NodeInfo
    from actors.process import Process
    from actors.residing import DeviceNode

START_SECONDS = 30.0
LEAVE_SECONDS = 8.0
INSIDE = "this code runs inside an actor, which is in a cluster already: leave actors.init out"
FLUSH_SECONDS = 2.0

_lock = threading.RLock()
_cluster: Cluster | None = None
_ending = False


class Cluster:
    """The nodes this program uses. Leaving the ``with`` block, or `shutdown`, ends what the program started."""

    def __init__(self, request: InitArguments, timeout: float) -> None:
        self.request = request
        self._local: LocalNodes | DeviceNode | LaunchedNode
        rank = launched.here()
        if request.address == "local":
            self._local = LocalNodes(request.local_nodes, timeout, request.resources, request.labels)
        elif request.address is None and rank is not None:
            self._local = _launched_node(rank, request)
        else:
            self._local = _device_node(request, timeout)
        self._process: Process | None = None
        self._console: Console | None = None
        try:
            self._join(timeout)
        except BaseException:
            self.close()
            raise

    def _join(self, timeout: float) -> None:
        # Late: the nodes start while this program loads what it needs itself.
        from actors.console import Console
        from actors.process import Process

        if isinstance(self._local, LocalNodes):
            self._local.wait_until_ready()
        first = self._local
        credentials = None
        if self._local.identity is not None:
            from actors.membership import credentials_from

            credentials = credentials_from(self._local.identity)
        process = Process(new_id("driver"), self._local.folder, first.address.node, first.name, credentials)
        self._process = process
        process.namespace = self.request.namespace
        process.warns_of_detached = isinstance(self._local, LocalNodes)
        process.parcels.base = process.parcels.prepare(self.request.runtime_env, None)
        process.home = first.address
        for address in self._local.addresses:
            process.directory[address.node] = address
        if self.request.log_to_driver:
            self._console = Console(process)
            process.serve("console", self._console)
        process.portal.run(self._meet(process, timeout))

    async def _meet(self, process: Process, timeout: float) -> None:
        await process.listen()
        for address in self._local.addresses:
            await process.ask(address, "node", "attach", process.address)
        if isinstance(self._local, LaunchedNode):  # the launcher has seen to the rest
            return
        if not isinstance(self._local, LocalNodes):
            await self._settle(process, timeout)
            return
        count = len(self._local.nodes)
        search = asyncio.ensure_future(process.ask_home("wait_for_nodes", count, timeout, timeout=timeout + 5))
        while not search.done():
            await asyncio.wait({search}, timeout=0.1)
            self._local.check_running()
        found: list[NodeInfo] = search.result()
        if len(found) < count:
            seen = ", ".join(info.name for info in found)
            raise ClusterTimeoutError(
                f"{count} nodes were started and {len(found)} found each other within {timeout:g} s: {seen}. "
                "Is multicast on the loopback interface blocked by a firewall?"
            )

    async def _settle(self, process: Process, timeout: float) -> None:
        """Waits for the devices that this one is paired with."""
        home, wanted = self._local.address, self.request.expect_nodes
        if self.request.seeds:
            await process.ask(home, "trust", "reach", self.request.seeds, timeout=timeout)
        search = asyncio.ensure_future(process.ask(home, "trust", "settle", wanted, timeout, timeout=timeout + 5))
        if wanted is not None:
            line = Waiting(wanted, timeout)
            while not search.done():
                await asyncio.wait({search}, timeout=0.2)
                line.show(await process.ask(home, "node", "nodes"))
        found, missing = await search
        for address in await process.ask(home, "node", "addresses"):
            process.directory.setdefault(address.node, address)
        if wanted is not None and len(found) < wanted:
            raise ClusterTimeoutError(
                f"{wanted} nodes were expected and {len(found)} answer after {timeout:g} s: "
                f"{', '.join(sorted(info.name for info in found))}. {_absent(wanted - len(found), missing)}"
            )

    @property
    def process(self) -> Process:
        """This program's own part in the cluster."""
        assert self._process is not None
        return self._process

    def shutdown(self) -> None:
        """Leaves the cluster; same as `actors.shutdown`."""
        if _cluster is self:
            leave()

    def close(self) -> None:
        """Ends the nodes this program started, and all actors on them."""
        process = self._process
        try:
            if process is not None:
                self._leave(process)
        finally:
            self._local.close()

    def _leave(self, process: Process) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                process.portal.run(self._farewell(process), timeout=LEAVE_SECONDS)
        finally:
            process.portal.close()
            if process.arena is not None and not isinstance(self._local, LocalNodes):  # its folder stays with the node
                process.arena.clear()

    async def _farewell(self, process: Process) -> None:
        if self._console is not None:
            await self._flush(process)
            await self._console.closed(FLUSH_SECONDS)
        if not isinstance(self._local, LocalNodes):
            with contextlib.suppress(TimeoutError, ActorDiedError):
                self._local.others_stay = await process.ask(
                    self._local.address, "node", "detach", process.id, timeout=FLUSH_SECONDS
                )
        process.keeper.close(of_error(NoClusterError("the cluster was shut down before the value came")))
        await process.close("the program has ended")

    def flush_output(self, timeout: float) -> None:
        """Returns once what actors have printed so far is shown, or ``timeout`` seconds are over."""
        with contextlib.suppress(TimeoutError):
            self.process.portal.run(self._flush(self.process), timeout=timeout)

    async def _flush(self, process: Process) -> None:
        if self._console is not None:
            nodes = await self._nodes_to_flush(process)
            asks = [process.ask(node, "node", "flush", process.id, timeout=FLUSH_SECONDS) for node in nodes]
            await asyncio.gather(*asks, return_exceptions=True)  # a node that is gone has nothing to show
            await self._console.summed_up()

    async def _nodes_to_flush(self, process: Process) -> list[Address]:
        if isinstance(self._local, LocalNodes):
            return self._local.addresses
        with contextlib.suppress(TimeoutError, ActorDiedError):
            infos = await process.ask(self._local.address, "node", "nodes", timeout=FLUSH_SECONDS)
            addresses = await process.ask(self._local.address, "node", "addresses", timeout=FLUSH_SECONDS)
            alive = {info.id for info in infos if info.alive}
            return [address for address in addresses if address.node in alive]
        return self._local.addresses

    def abandon(self) -> None:
        """Lets go of the cluster without ending it: in a forked child."""
        self._local.abandon()

    def __enter__(self) -> Self:
        if _cluster is not self:
            raise NoClusterError("this cluster was left by shutdown: call actors.init() for a new one")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"Cluster({', '.join(address.node_name for address in self._local.addresses)})"


def init(
    address: str | None = None,
    *,
    namespace: str = "default",
    local_nodes: int = 1,
    expect_nodes: int | None = None,
    timeout: float = START_SECONDS,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: dict[str, float] | None = None,
    labels: dict[str, str] | None = None,
    runtime_env: dict[str, Any] | None = None,
    engine: str | None = None,
    log_to_driver: bool = True,
    ignore_reinit_error: bool = False,
) -> Cluster:
    """Joins the cluster, and returns it.

    Args:
        address: None: the cluster this device is paired with, found by zeroconf; where it is paired with none, or
            for ``"local"``: this machine alone, always a fresh cluster, closed to everybody else. ``"HOST:PORT"``, or
            several with commas: nodes of the paired devices, where multicast does not reach them. ``"auto"`` is None
            on a paired device, and an error on one that is not. In a rank of `actors launch` both are the cluster
            that the job runs in.
        namespace: where the names of this program's actors hold.
        local_nodes: how many nodes to start here, as separate processes: a LAN in miniature. More than one is always
            this machine alone.
        expect_nodes: wait until so many nodes answer, this one included, for at most ``timeout``.
        timeout: seconds the nodes may take to start and to find each other.
        log_to_driver: whether what actors print is shown here.
        runtime_env: environment of all actors of this program; what an actor's own says goes before it, and
            ``env_vars`` are merged. See `actors.environment`.
        ignore_reinit_error: another `init` with other arguments returns the cluster there is instead of raising.
        num_cpus: CPUs of each node that is started here; None: those of this machine.
        num_gpus: GPUs of each; None: 1 where MLX can use one.
        resources: further resources of each, by name, such as ``{"camera": 1}``. ``"memory"``, in bytes, goes before
            what the machine has.
        labels: of each, to be asked for by ``label_selector=``.
        engine: what runs the actors: ``"lan"``, which None is, or ``"ray"``: a Ray cluster that runs already. An
            address ``"ray://HOST:PORT"`` is one too; see docs/ray-engine.md for what differs there.

    Raises:
        NotImplementedError: an argument that the engine does not honour.
        ValueError: an argument is out of range.
        RuntimeEnvError: a folder or file that ``runtime_env`` names cannot be sent.
        ActorsError: this program is in another cluster already.
        ClusterTimeoutError: the nodes did not find each other in time, or none answers at ``address``.
        AuthenticationError: this device is not paired with the one at ``address``.
        NoClusterError: ``address="auto"`` on a device that is paired with none.
    """
    global _cluster  # noqa: PLW0603 - one cluster a process
    check_environment(runtime_env)
    if labels is not None:
        check_labels(labels)
    switches = {"log_to_driver": log_to_driver, "ignore_reinit_error": ignore_reinit_error}
    if (name := engine_of(address, engine)) != engines.OWN:
        check(None, namespace, local_nodes, timeout, expect_nodes, **switches)
        offered(num_cpus, num_gpus, resources)
        with _lock:
            if _cluster is not None:
                raise ActorsError(f"leave {_cluster!r} by shutdown() before it goes to another engine")
            return cast("Cluster", engines.connect(name, {
                "address": address, "namespace": namespace, "local_nodes": local_nodes, "expect_nodes": expect_nodes,
                "timeout": timeout, "num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources,
                "labels": labels, "runtime_env": runtime_env, "log_to_driver": log_to_driver,
                "ignore_reinit_error": ignore_reinit_error,
            }))  # fmt: skip
    check(address, namespace, local_nodes, timeout, expect_nodes, **switches)
    request = InitArguments(
        meant(address, local_nodes), namespace, local_nodes, log_to_driver,
        offered(num_cpus, num_gpus, resources), dict(labels or {}), runtime_env, expect_nodes,
    )  # fmt: skip
    if (other := engines.other()) is not None:
        if other.context().get_actor_id() is not None:
            raise ActorsError(INSIDE)
        raise ActorsError(f"leave the engine {other.name!r} by shutdown() before it joins a LAN")
    if request.address == "local" and expect_nodes is not None and expect_nodes > local_nodes:
        more = "local_nodes= says how many it has." if address == "local" or local_nodes > 1 else _absent(1, {})
        raise ClusterTimeoutError(
            f"expect_nodes={expect_nodes}, but this cluster is this machine alone, with {local_nodes}: nobody joins "
            f"it. {more}"
        )
    with _lock:
        if _ending:
            raise NoClusterError("the program is ending: no cluster can be started any more")
        if runtime.myself() is not None:
            raise ActorsError(INSIDE)
        if _cluster is not None:
            if _cluster.request == request or ignore_reinit_error:
                face.current.joined(_cluster)
                return _cluster
            raise ActorsError(
                f"actors.init was called before with other arguments ({_cluster.request}): call actors.shutdown() first"
            )
        host_key.cache_clear()  # ACTORS_HOME may be another than that of the cluster before
        cluster = Cluster(request, timeout)
        _cluster = cluster
        runtime.join(cluster.process)
    face.current.joined(cluster)
    return cluster


def _launched_node(rank: Launched, request: InitArguments) -> LaunchedNode:
    if request.resources or request.labels:
        raise ActorsError(
            "this rank joins the cluster that `actors launch` has started it in: leave num_cpus=, num_gpus=, "
            "resources= and labels= out"
        )
    return LaunchedNode(rank)


def _device_node(request: InitArguments, timeout: float) -> DeviceNode:
    from actors.residing import DeviceNode

    node = DeviceNode(timeout, request.resources, request.labels)
    if not node.is_ours and (request.resources or request.labels):
        raise ActorsError(
            "a node of this device runs already, and resources and labels are those it was started with: leave "
            "num_cpus=, num_gpus=, resources= and labels= out, or run `actors stop` first"
        )
    return node


def _absent(lacking: int, missing: dict[str, str]) -> str:
    """Says why so many nodes are lacking, by why each that is known of cannot be used."""
    said = []
    if missing:
        each = "; ".join(f"{name}: {why}" for name, why in sorted(missing.items()))
        said.append(f"Not there: {each}. `actors doctor` looks for the cause.")
    if len(missing) < lacking:
        said.append("No other device is paired: run `actors invite` here and `actors join CODE` there.")
    return " ".join(said)


def current_cluster() -> Cluster:
    """Returns the cluster of this program, joining this machine's own if there is none yet."""
    return _cluster or init()


def is_current(cluster: Cluster) -> bool:
    """Whether this program is in that cluster."""
    return _cluster is cluster


def flush_output(timeout: float) -> None:
    """Returns once what actors have printed so far is shown, or ``timeout`` seconds are over."""
    if (cluster := _cluster) is not None:
        cluster.flush_output(timeout)


def leave() -> None:
    """Leaves the cluster; see `actors.shutdown`."""
    global _cluster
    with _lock:
        cluster, _cluster = _cluster, None
        if cluster is None:
            return
        runtime.join(None)
        cluster.close()


def end() -> None:
    """Leaves the cluster for good: the program is ending."""
    global _ending  # noqa: PLW0603 - one cluster a process
    _ending = True
    if (other := engines.other()) is not None:
        other.shutdown()
    leave()


def current() -> Process:
    """Returns this process's part in the cluster, joining this machine's own cluster if there is none yet."""
    process = runtime.joined()
    if process is None:
        _only_on_our_own()
    return process if process is not None else init().process


def environment_for(process: Process, runtime_env: dict[str, Any] | None) -> Environment | None:
    """Returns what an actor that is made here is to run in; what it does not say is taken from what runs here.

    Raises:
        RuntimeEnvError: a folder or file cannot be sent.
    """
    actor = runtime.myself()
    base = actor.spec.environment if actor is not None else process.parcels.base
    return process.parcels.prepare(runtime_env, base)


def joined() -> Process:
    """Returns this process's part in the cluster.

    Raises:
        NoClusterError: there is none.
    """
    process = runtime.joined()
    if process is None:
        _only_on_our_own()
        raise NoClusterError("this program is in no cluster: call actors.init() first")
    return process


def _only_on_our_own() -> None:
    """Raises where another engine runs this program's actors: it has not what is asked for."""
    if engines.other() is not None:
        engines.refuse("such a thing", "it needs actors.init() on the devices of a LAN; see docs/ray-engine.md")


def is_joined() -> bool:
    """Whether this program is in a cluster of this package's own."""
    return runtime.joined() is not None


def _leave_to_parent() -> None:
    """In a forked child: the cluster is the parent's, and must not live on because the child does."""
    global _cluster, _lock  # noqa: PLW0603 - one cluster a process
    cluster, _cluster = _cluster, None
    _lock = threading.RLock()
    runtime.join(None)
    if cluster is not None:
        cluster.abandon()


os.register_at_fork(after_in_child=_leave_to_parent)
