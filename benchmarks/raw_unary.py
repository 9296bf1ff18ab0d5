"""The plainest way: a unary gRPC call with a pickle for each method call."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import grpc
from raw_process import Server
from raw_wire import OPTIONS, PROTOCOL, SERVICE, UNARY
from samples import Count, check, timed
from target import Block, digest
from workloads import IN_FLIGHT, SPAWN_MANY

if TYPE_CHECKING:
    from pathlib import Path


class Client:
    """Calls the object behind a server."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._call = self._channel.unary_unary(f"/{SERVICE}/{UNARY}", None, None)

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method and returns its result."""
        return pickle.loads(self._call(pickle.dumps((method, args), PROTOCOL)))

    def begin(self, method: str, *args: Any) -> grpc.Future[bytes]:
        """Calls a method and returns the future of its pickled result."""
        return self._call.future(pickle.dumps((method, args), PROTOCOL))

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


class Unary:
    """See `side.Side`."""

    version = grpc.__version__
    tcp = False

    def __init__(self) -> None:
        self._block = Block()
        self._servers: list[Server] = []
        self._clients: list[Client] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        self._folder = None if self.tcp else folder
        address = self._serve()
        self._target = self._reach(address)
        self._relay = self._reach(self._serve(("unary", address)))
        check([self._target.call("echo", 1), self._relay.call("relay", 2)], [1, 2])

    def _serve(self, peer: tuple[str, str] | None = None) -> str:
        server = Server(self._folder, peer)
        self._servers.append(server)
        return server.address()

    def _reach(self, address: str) -> Client:
        client = Client(address)
        self._clients.append(client)
        return client

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._target.call("echo", stamp), stamp))

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def batch(stamp: int) -> None:
            values = list(range(stamp, stamp + IN_FLIGHT))
            futures = [self._target.begin("echo", value) for value in values]
            check([pickle.loads(future.result()) for future in futures], values)

        return timed(count, batch)

    def argument(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def send(stamp: int) -> None:
            check(self._target.call("take", self._block.stamped(stamp)), self._block.expected(stamp))

        return timed(count, send)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(digest(self._target.call("make", stamp)), self._block.expected(stamp)))

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._relay.call("relay", stamp), stamp))

    def spawn(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._spawn(count, 1)

    def spawn_many(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._spawn(count, SPAWN_MANY)

    def _spawn(self, count: Count, size: int) -> list[float]:
        born: list[Server] = []
        clients: list[Client] = []

        def bear(stamp: int) -> None:
            new = [Server(self._folder) for _ in range(size)]
            born.extend(new)
            reached = [Client(server.address()) for server in new]
            clients.extend(reached)
            check([client.call("echo", stamp) for client in reached], [stamp] * size)

        try:
            return timed(count, bear)
        finally:
            _close(clients, born)

    def stop(self) -> None:
        """See `side.Side`."""
        _close(self._clients, self._servers)


class UnaryTcp(Unary):
    """The same over TCP."""

    tcp = True


def _close(clients: list[Client], servers: list[Server]) -> None:
    for client in clients:
        client.close()
    for server in servers:
        server.stop()
