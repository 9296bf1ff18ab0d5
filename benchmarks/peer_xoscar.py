"""xoscar: a pool of processes with one actor each. Runs in its own environment."""

from __future__ import annotations

import asyncio
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xoscar
from children import Child, ask_all
from programs import loading
from samples import Count, check, timed_async
from target import Block, Target, digest
from workloads import BATCH, DRIVERS, EACH, IN_FLIGHT, TARGETS
from xoscar.backends.allocate_strategy import ProcessIndex

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from multiprocessing.connection import Connection

PROCESSES = 2 + TARGETS


class Exposed(xoscar.Actor):
    """The target, a call passed on, and calls that may come many at once."""

    def __init__(self, peer: tuple[str, bytes] | None = None) -> None:
        self._target = Target()
        self._where = peer
        self._peer: Any = None

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return self._target.echo(value)

    @xoscar.extensible
    async def echo_of_many(self, value: int) -> int:
        """Returns what it is given."""
        return value

    def take(self, array: Any) -> tuple[int, int, int]:
        """Takes an array."""
        return self._target.take(array)

    def make(self, stamp: int) -> Any:
        """Returns the array."""
        return self._target.make(stamp)

    async def relay(self, value: int) -> Any:
        """Returns what the peer's echo returns."""
        if self._peer is None:
            self._peer = await xoscar.actor_ref(*self._where)
        return await self._peer.echo(value)


def pool(connection: Connection) -> None:
    """Is the pool's process."""

    async def serve() -> None:
        running = await xoscar.create_actor_pool("127.0.0.1:0", n_process=PROCESSES)
        connection.send(running.external_address)
        await asyncio.get_running_loop().run_in_executor(None, connection.recv)
        await running.stop()
        connection.send(None)

    asyncio.run(serve())


async def _many(actor: Any, values: list[int]) -> list[int]:
    found: list[int] = await actor.echo_of_many.batch(*[actor.echo_of_many.delay(value) for value in values])
    return found


def crowd(connection: Connection, where: list[tuple[str, bytes]]) -> None:
    """Is one of several callers: a batch for each target."""

    async def serve() -> None:
        actors = [await xoscar.actor_ref(*address) for address in where]
        while True:
            await asyncio.get_running_loop().run_in_executor(None, connection.recv)
            found = await asyncio.gather(*[_many(actor, [1] * EACH) for actor in actors])
            connection.send(sum(map(sum, found)))

    asyncio.run(serve())


class Xoscar:
    """See `side.Side`."""

    version = xoscar.__version__

    def __init__(self) -> None:
        self._block = Block()
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._pool: Child | None = None
        self._crowds: list[Child] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # the pool's processes load this module
        self._pool = Child(pool)
        self._address = self._pool.hear()
        self._target = self._actor()
        self._relay = self._actor((self._target.address, self._target.uid))
        check(self._loop.run_until_complete(self._relay.relay(1)), 1)

    def _actor(self, peer: tuple[str, bytes] | None = None) -> Any:
        number = next(self._numbers)
        place = ProcessIndex(number)
        making = xoscar.create_actor(Exposed, peer, address=self._address, uid=f"a{number}", allocate_strategy=place)
        return self._loop.run_until_complete(making)

    def _timed(self, count: Count, operation: Callable[[int], Awaitable[None]]) -> list[float]:
        return self._loop.run_until_complete(timed_async(count, operation))

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def one(stamp: int) -> None:
            check(await self._target.echo(stamp), stamp)

        return self._timed(count, one)

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def many(stamp: int) -> None:
            values = list(range(stamp, stamp + IN_FLIGHT))
            check(await asyncio.gather(*[self._target.echo(value) for value in values]), values)

        return self._timed(count, many)

    def batch(self, count: Count) -> list[float]:
        """By its batch interface: one message."""

        async def many(stamp: int) -> None:
            values = list(range(stamp, stamp + BATCH))
            check(list(await _many(self._target, values)), values)

        return self._timed(count, many)

    def argument(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def send(stamp: int) -> None:
            check(tuple(await self._target.take(self._block.stamped(stamp))), self._block.expected(stamp))

        return self._timed(count, send)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def fetch(stamp: int) -> None:
            check(digest(await self._target.make(stamp)), self._block.expected(stamp))

        return self._timed(count, fetch)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def one(stamp: int) -> None:
            check(await self._relay.relay(stamp), stamp)

        return self._timed(count, one)

    def many_to_many(self, count: Count) -> list[float]:
        """Processes with batches."""
        if not self._crowds:
            found = [self._actor() for _ in range(TARGETS)]
            self._crowds = [Child(crowd, [(one.address, one.uid) for one in found]) for _ in range(DRIVERS)]
            ask_all(self._crowds, None)

        async def call(_: int) -> None:
            check(ask_all(self._crowds, None), [TARGETS * EACH] * DRIVERS)

        return self._timed(count, call)

    def loading(self, count: Count) -> list[float]:
        """See `programs.loading`."""
        return [loading("xoscar") for _ in range(count.measured)]

    def stop(self) -> None:
        """See `side.Side`."""
        for child in self._crowds:
            child.end()
        if self._pool is not None:
            self._pool.tell(None)
            self._pool.hear()
            self._pool.end()
        self._loop.close()
