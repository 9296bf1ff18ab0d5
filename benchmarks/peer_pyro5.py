"""Pyro5: a daemon in a process of its own; arrays as bytes by msgpack. Runs in its own environment."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import Pyro5
import Pyro5.api
from children import Child, ask_all
from programs import loading
from samples import Count, check, timed
from target import Block, Target, digest
from workloads import BATCH, DRIVERS, EACH, TARGETS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

Pyro5.config.MAX_MESSAGE_SIZE = 2**31 - 1


@Pyro5.api.expose
class Exposed:
    """What a daemon serves: the target, with arrays as bytes, and a call passed on."""

    def __init__(self, peer: str | None) -> None:
        self._target = Target()
        self._peer = Pyro5.api.Proxy(peer) if peer else None

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return self._target.echo(value)

    def take(self, data: bytes) -> tuple[int, int, int]:
        """Takes an array."""
        return self._target.take(np.frombuffer(data, np.uint32))

    def make(self, stamp: int) -> bytes:
        """Returns the array."""
        return self._target.make(stamp).tobytes()

    def relay(self, value: int) -> Any:
        """Returns what the peer's echo returns."""
        assert self._peer is not None
        self._peer._pyroClaimOwnership()
        return self._peer.echo(value)


def serve(connection: Connection, peer: str | None) -> None:
    """Is a daemon's process."""
    daemon = Pyro5.api.Daemon(host="127.0.0.1")
    connection.send(str(daemon.register(Exposed(peer))))
    daemon.requestLoop()


def crowd(connection: Connection, addresses: list[str]) -> None:
    """Is one of several callers: a thread for each target, one message for its calls."""
    proxies = [Pyro5.api.Proxy(address) for address in addresses]

    def call(proxy: Any) -> None:
        proxy._pyroClaimOwnership()
        many = Pyro5.api.BatchProxy(proxy)
        for _ in range(EACH):
            many.echo(1)
        done.append(sum(many()))

    while True:
        connection.recv()
        done: list[int] = []
        threads = [threading.Thread(target=call, args=(proxy,)) for proxy in proxies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connection.send(sum(done))


class Pyro:
    """See `side.Side`."""

    version = Pyro5.__version__

    def __init__(self) -> None:
        self._block = Block()
        self._children: list[Child] = []
        self._crowds: list[Child] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        address = self._serve(None)
        self._target = Pyro5.api.Proxy(address)
        self._bytes = Pyro5.api.Proxy(address)
        self._bytes._pyroSerializer = "msgpack"
        self._relay = Pyro5.api.Proxy(self._serve(address))
        check(self._relay.relay(1), 1)

    def _serve(self, peer: str | None) -> str:
        child = Child(serve, peer)
        self._children.append(child)
        return str(child.hear())

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._target.echo(stamp), stamp))

    def batch(self, count: Count) -> list[float]:
        """By a batch proxy: one message."""

        def many(stamp: int) -> None:
            values = list(range(stamp, stamp + BATCH))
            proxy = Pyro5.api.BatchProxy(self._target)
            for value in values:
                proxy.echo(value)
            check(list(proxy()), values)

        return timed(count, many)

    def argument(self, count: Count) -> list[float]:
        """As bytes."""

        def send(stamp: int) -> None:
            data = self._block.stamped(stamp).tobytes()
            check(tuple(self._bytes.take(data)), self._block.expected(stamp))

        return timed(count, send)

    def result(self, count: Count) -> list[float]:
        """As bytes."""

        def fetch(stamp: int) -> None:
            check(digest(np.frombuffer(self._bytes.make(stamp), np.uint32)), self._block.expected(stamp))

        return timed(count, fetch)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._relay.relay(stamp), stamp))

    def many_to_many(self, count: Count) -> list[float]:
        """Processes with batch proxies."""
        if not self._crowds:
            addresses = [self._serve(None) for _ in range(TARGETS)]
            self._crowds = [Child(crowd, addresses) for _ in range(DRIVERS)]
            ask_all(self._crowds, None)
        return timed(count, lambda _: check(ask_all(self._crowds, None), [TARGETS * EACH] * DRIVERS))

    def loading(self, count: Count) -> list[float]:
        """See `programs.loading`."""
        return [loading("Pyro5.api") for _ in range(count.measured)]

    def stop(self) -> None:
        """See `side.Side`."""
        for child in [*self._crowds, *self._children]:
            child.end()
