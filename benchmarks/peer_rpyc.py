"""rpyc: a threaded server in a process of its own; its methods looked up once. Runs in its own environment.

Arrays are left out: as arguments they would be proxies, and as bytes they stall.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import rpyc
from children import Child, ask_all
from programs import loading
from rpyc.utils.server import ThreadedServer
from samples import Count, check, timed
from workloads import BATCH, DRIVERS, EACH, IN_FLIGHT, TARGETS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

CONFIG = {"sync_request_timeout": 60, "allow_public_attrs": True}


class Exposed(rpyc.Service):
    """An echo, and a call passed on."""

    def __init__(self, peer: int | None) -> None:
        self._port = peer
        self._peer: Any = None

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return value

    def relay(self, value: int) -> Any:
        """Returns what the peer's echo returns."""
        if self._peer is None:
            self._peer = connect(self._port).root.echo
        return self._peer(value)


def serve(connection: Connection, peer: int | None) -> None:
    """Is a server's process."""
    server = ThreadedServer(Exposed(peer), hostname="127.0.0.1", port=0, protocol_config=CONFIG)
    connection.send(server.port)
    server.start()


def connect(port: int | None) -> Any:
    """Connects; a server is bound for a moment before it listens."""
    for _ in range(200):
        try:
            return rpyc.connect("127.0.0.1", port, config=CONFIG)
        except ConnectionRefusedError:
            time.sleep(0.005)
    raise ConnectionRefusedError(port)


def _many(call: Any, values: list[int]) -> list[int]:
    answers = [call(value) for value in values]
    return [answer.value for answer in answers]


def crowd(connection: Connection, ports: list[int]) -> None:
    """Is one of several callers."""
    calls = [rpyc.async_(connect(port).root.echo) for port in ports]
    while True:
        connection.recv()
        answers = [call(1) for _ in range(EACH) for call in calls]
        connection.send(sum(answer.value for answer in answers))


class Rpyc:
    """See `side.Side`."""

    version = ".".join(map(str, rpyc.version.version))

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._crowds: list[Child] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        port = self._serve(None)
        self._connections = [connect(port), connect(self._serve(port))]
        target, relay = (connection.root for connection in self._connections)
        self._echo, self._relay, self._begin = target.echo, relay.relay, rpyc.async_(target.echo)
        check(self._relay(1), 1)

    def _serve(self, peer: int | None) -> int:
        child = Child(serve, peer)
        self._children.append(child)
        return int(child.hear())

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._echo(stamp), stamp))

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._timed_many(count, IN_FLIGHT)

    def batch(self, count: Count) -> list[float]:
        """Calls one by one: rpyc has no way of its own for many at once."""
        return self._timed_many(count, BATCH)

    def _timed_many(self, count: Count, number: int) -> list[float]:
        def many(stamp: int) -> None:
            values = list(range(stamp, stamp + number))
            check(_many(self._begin, values), values)

        return timed(count, many)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._relay(stamp), stamp))

    def many_to_many(self, count: Count) -> list[float]:
        """Processes with calls in flight."""
        if not self._crowds:
            ports = [self._serve(None) for _ in range(TARGETS)]
            self._crowds = [Child(crowd, ports) for _ in range(DRIVERS)]
            ask_all(self._crowds, None)
        return timed(count, lambda _: check(ask_all(self._crowds, None), [TARGETS * EACH] * DRIVERS))

    def loading(self, count: Count) -> list[float]:
        """See `programs.loading`."""
        return [loading("rpyc") for _ in range(count.measured)]

    def stop(self) -> None:
        """See `side.Side`."""
        for child in [*self._crowds, *self._children]:
            child.end()
