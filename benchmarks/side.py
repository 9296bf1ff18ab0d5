"""Sides: what is compared, and what each must be able to do."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from pathlib import Path

    from samples import Count


class Side(Protocol):
    """One way of calling an object in another process.

    It lives in a driver process of its own. Besides `start` and `stop` it has one method for each workload that it can
    do, of that name: it does the operation as often as it is told and returns the seconds of each, by `samples.timed`;
    each operation checks its result. Those that every side has are named here.
    """

    @property
    def version(self) -> str:
        """Of the package that carries the calls."""

    def start(self, folder: Path) -> None:
        """Starts what is called, up to a first answer; ``folder`` is its own and is removed afterwards."""

    def sync_call(self, count: Count) -> list[float]:
        """Calls ``echo`` and waits, one call at a time."""

    def in_flight(self, count: Count) -> list[float]:
        """Makes `workloads.IN_FLIGHT` calls of ``echo``, then takes all answers: that is one operation."""

    def argument(self, count: Count) -> list[float]:
        """Sends the array to ``take``."""

    def result(self, count: Count) -> list[float]:
        """Gets the array from ``make`` and digests it."""

    def nested(self, count: Count) -> list[float]:
        """Calls an object that calls another one's ``echo``."""

    def stop(self) -> None:
        """Ends all that was started, also after a `start` that failed half way."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a side is found.

    Attributes:
        name: in tables and on the command line.
        about: what it is, in a line.
        module: that holds its class; imported only in the side's own process.
        cls: name of the class, which takes no arguments.
        requires: what its own environment holds, as pip's requirements; none: it runs in the one the harness is in.
    """

    name: str
    about: str
    module: str
    cls: str
    requires: tuple[str, ...] = ()

    def load(self) -> Side:
        """Makes the side."""
        return cast("Side", getattr(import_module(self.module), self.cls)())


OURS = "ours"
SIDES = (
    Entry(OURS, 'this package: actors.init("local"), handle.method.remote(), actors.get()', "ours", "Ours"),
    Entry("unary", "a unary gRPC call with a pickle for each method call, Unix socket", "raw_unary", "Unary"),
    Entry("unary-tcp", "the same over TCP on loopback", "raw_unary", "UnaryTcp"),
    Entry("stream", "a raw bidirectional gRPC stream: a message a call, 1 MiB chunks; Unix", "raw_stream", "Stream"),
    Entry("stream-tcp", "the same over TCP on loopback", "raw_stream", "StreamTcp"),
)  # fmt: skip

PEERS = (
    Entry("ours-grpc", "this package with ACTORS_TRANSPORT=grpc: all by gRPC, Unix socket", "ours", "OursGrpc"),
    Entry("ours-tcp", "the same over TCP on loopback, without TLS", "ours", "OursTcp"),
    Entry("socket", "no framework: a pickle each way over a Unix socket", "raw_socket", "Socket"),
    Entry("session", "the same, each call numbered, kept, acknowledged, run once", "raw_session", "Session"),
    Entry("handed", "the same, its threads that read hand over to those that wait", "raw_session", "Handed"),
    Entry("copy", "no call: one copy of the array into shared memory that is used again", "raw_copy", "Copy"),
    Entry("managers", "multiprocessing.managers of the standard library, TCP", "peer_managers", "Managers"),
    Entry("ray", "Ray", "peer_ray", "Ray", ("ray==2.60.0", "numpy", "psutil", "mlx[cpu]")),
    Entry("pyro5", "Pyro5; arrays as bytes", "peer_pyro5", "Pyro", ("Pyro5==5.17", "msgpack", "numpy", "psutil")),
    Entry("xoscar", "xoscar", "peer_xoscar", "Xoscar", ("xoscar==0.12.2", "numpy", "psutil")),
    Entry("rpyc", "rpyc, methods looked up once", "peer_rpyc", "Rpyc", ("rpyc==6.0.2", "numpy", "psutil")),
)  # fmt: skip
"""Measured with ``--peers``. Each has an environment of its own, made on first use."""
