"""The floor: bidirectional gRPC streams as they are, one message a call and 1 MiB chunks for what is large.

The client is the event loop's own task, the server has threads: of all pairings in grpcio the quickest. There is no
session, no acknowledgement and no hop between threads at the caller.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from raw_process import Server
from raw_wire import OPTIONS, SERVICE, STREAM, Joining, split
from samples import Count, check, timed_async
from target import Block, digest
from workloads import IN_FLIGHT, SPAWN_MANY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Client:
    """Calls the object behind a server over one stream. Made and used on the event loop."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=OPTIONS)
        self._stream: Any = self._channel.stream_stream(f"/{SERVICE}/{STREAM}", None, None)(None)

    async def call(self, method: str, *args: Any) -> Any:
        """Calls a method and returns its result."""
        await self.write(method, *args)
        return await self.read()

    async def write(self, method: str, *args: Any) -> None:
        """Sends a call."""
        for message in split((method, args)):
            await self._stream.write(message)

    async def read(self) -> Any:
        """Returns the result of the first call whose result was not yet read."""
        joining = Joining(await self._message())
        while joining.missing:
            joining.add(await self._message())
        return joining.value()

    async def _message(self) -> bytes:
        message = await self._stream.read()
        if not isinstance(message, bytes):
            raise ConnectionError(f"the stream ended: {await self._stream.details()}")
        return message

    async def close(self) -> None:
        """Ends the stream and closes the channel."""
        self._stream.cancel()
        await self._channel.close(None)


class Stream:
    """See `side.Side`."""

    version = grpc.__version__
    tcp = False

    def __init__(self) -> None:
        self._block = Block()
        self._loop = asyncio.new_event_loop()
        self._servers: list[Server] = []
        self._clients: list[Client] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        self._folder = None if self.tcp else folder
        self._loop.run_until_complete(self._start())

    async def _start(self) -> None:
        address = self._serve()
        self._target = self._reach(address)
        self._relay = self._reach(self._serve(("stream", address)))
        check([await self._target.call("echo", 1), await self._relay.call("relay", 2)], [1, 2])

    def _serve(self, peer: tuple[str, str] | None = None) -> str:
        server = Server(self._folder, peer)
        self._servers.append(server)
        return server.address()

    def _reach(self, address: str) -> Client:
        client = Client(address)
        self._clients.append(client)
        return client

    def _timed(self, count: Count, operation: Callable[[int], Awaitable[None]]) -> list[float]:
        return self._loop.run_until_complete(timed_async(count, operation))

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def one(stamp: int) -> None:
            check(await self._target.call("echo", stamp), stamp)

        return self._timed(count, one)

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def write(values: list[int]) -> None:
            for value in values:
                await self._target.write("echo", value)

        async def batch(stamp: int) -> None:
            values = list(range(stamp, stamp + IN_FLIGHT))
            writer = asyncio.create_task(write(values))
            check([await self._target.read() for _ in values], values)
            await writer

        return self._timed(count, batch)

    def argument(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def send(stamp: int) -> None:
            check(await self._target.call("take", self._block.stamped(stamp)), self._block.expected(stamp))

        return self._timed(count, send)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def fetch(stamp: int) -> None:
            check(digest(await self._target.call("make", stamp)), self._block.expected(stamp))

        return self._timed(count, fetch)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""

        async def one(stamp: int) -> None:
            check(await self._relay.call("relay", stamp), stamp)

        return self._timed(count, one)

    def spawn(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._spawn(count, 1)

    def spawn_many(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._spawn(count, SPAWN_MANY)

    def _spawn(self, count: Count, size: int) -> list[float]:
        born: list[Server] = []
        clients: list[Client] = []

        async def bear(stamp: int) -> None:
            new = [Server(self._folder) for _ in range(size)]
            born.extend(new)
            reached = [Client(server.address()) for server in new]
            clients.extend(reached)
            check([await client.call("echo", stamp) for client in reached], [stamp] * size)

        try:
            return self._timed(count, bear)
        finally:
            self._close(clients, born)

    def stop(self) -> None:
        """See `side.Side`."""
        self._close(self._clients, self._servers)
        self._loop.close()

    def _close(self, clients: list[Client], servers: list[Server]) -> None:
        for client in clients:
            self._loop.run_until_complete(client.close())
        for server in servers:
            server.stop()


class StreamTcp(Stream):
    """The same over TCP."""

    tcp = True
