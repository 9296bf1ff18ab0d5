"""A relay between two ends of a connection, over TCP or a Unix socket, that can do all that a bad network does.

It stands where a caller takes the other process to be. Within a connection nothing is ever left out or changed: what a
real network loses is sent again by TCP or the connection ends, so a connection that has lost something stays silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import actors
from actors import calls
from actors.cluster import current
from actors.handle import line_of
from actors.line import Line
from actors.spec import Manner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from actors.address import Address

THERE, BACK = 0, 1  # from the caller, and to it
PIECE = 1 << 16


@dataclass(eq=False)
class Connection:
    """One connection: its two sockets, and whether it has lost something."""

    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    lost: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def abort(self) -> None:
        """Ends it at once, as a reset does: what is on its way is lost."""
        for writer in self.writers:
            own = writer.get_extra_info("socket")
            if own is not None and own.family != socket.AF_UNIX:
                with contextlib.suppress(OSError):
                    own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(AttributeError):  # asyncio's own, where it has ended with something unsent
                writer.transport.abort()


class Relay:
    """Passes connections on to ``target``, from a thread of its own. Its methods may be called from any thread.

    Args:
        target: ``"HOST:PORT"``, or the path of a Unix socket.
        path: where to listen, if that is a Unix socket.

    Attributes:
        address: where it listens.
        passed: bytes that were passed on, there and back.
        held: bytes that have come and wait, there and back.
    """

    def __init__(self, target: str, path: str | None = None) -> None:
        self._target = target
        self._path = path
        self.address = path or ""
        self.passed = [0, 0]
        self.held = [0, 0]
        self._loop = asyncio.new_event_loop()
        self._open = [asyncio.Event(), asyncio.Event()]
        self._fuses: list[int | None] = [None, None]
        self._loses = False
        self._delay = 0.0
        self._rate = 0.0
        self._connections: set[Connection] = set()
        self._arriving = 0  # that are not among them yet
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._run(self._listen())

    # -- what the network does ----------------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def cut(self) -> None:
        """Resets all connections; new ones may come."""
        self._do(lambda: [connection.abort() for connection in list(self._connections)])

    def cut_after(self, way: int, count: int) -> None:
        """Lets so many more bytes pass that way, wherever within a frame that is, and ends all connections then."""
        self._do(lambda: self._fuses.__setitem__(way, count))

    @property
    def has_cut(self) -> bool:
        """Whether what `cut_after` was to do has been done."""
        return self._fuses == [None, None]

    def half_close(self, way: int) -> None:
        """Ends one direction of all connections; the other goes on."""
        self._do(lambda: [connection.writers[way].write_eof() for connection in self._connections])

    def hold(self, *ways: int) -> None:
        """Lets nothing through; what comes waits."""
        self._do(lambda: [self._open[way].clear() for way in ways or (THERE, BACK)])

    def let_go(self) -> None:
        """What was held goes on."""
        self._do(lambda: [event.set() for event in self._open])

    def lose(self, yes: bool = True) -> None:
        """All that comes is lost from now on, as with a pulled cable; new connections come to nothing as well."""

        def do() -> None:
            self._loses = yes
            if yes:
                for connection in self._connections:
                    connection.lost = True

        self._do(do)

    def delay(self, seconds: float) -> None:
        """Each piece comes so much later."""
        self._delay = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Lets so much through each second; 0 for all."""
        self._rate = bytes_per_second

    # -- how -----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        for event in self._open:
            event.set()
        if self._path is not None:
            self._server = await asyncio.start_unix_server(self._came, self._path)
        else:
            self._server = await asyncio.start_server(self._came, "127.0.0.1", 0)
            self.address = "{}:{}".format(*self._server.sockets[0].getsockname())

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._arriving += 1
        try:
            if self._path is not None:
                onward = await asyncio.open_unix_connection(self._target)
            else:
                host, _, port = self._target.rpartition(":")
                onward = await asyncio.open_connection(host, int(port))
        except OSError:
            self._listen_no_more()  # where nobody listens, neither does this
            writer.transport.abort()
            return
        finally:
            self._arriving -= 1
        connection = Connection((onward[1], writer), self._loses)
        self._connections.add(connection)
        connection.tasks = [
            asyncio.create_task(self._pump(connection, THERE, reader, onward[1])),
            asyncio.create_task(self._pump(connection, BACK, onward[0], writer)),
        ]
        try:
            await asyncio.wait(connection.tasks)
        finally:
            connection.abort()
            self._connections.discard(connection)

    async def _pump(
        self, connection: Connection, way: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(PIECE):
                self.held[way] += len(data)
                try:
                    await self._open[way].wait()
                    await asyncio.sleep(self._delay + (len(data) / self._rate if self._rate else 0.0))
                finally:
                    self.held[way] -= len(data)
                if not connection.lost:
                    last = self._burn(way, len(data))
                    writer.write(data if last is None else data[:last])
                    self.passed[way] += len(data)
                    await writer.drain()
                    if last is not None:
                        for each in self._connections:  # what has passed arrives
                            for end in each.writers:
                                end.close()
                        return
            if not connection.lost:
                writer.write_eof()
                return
            await asyncio.Event().wait()  # a cable that was pulled does not tell that one end has hung up
        connection.abort()

    def _burn(self, way: int, count: int) -> int | None:
        """Returns how many of so many bytes may pass before the cut; None if that is not due."""
        left = self._fuses[way]
        if left is None:
            return None
        if count < left:
            self._fuses[way] = left - count
            return None
        self._fuses[way] = None
        return left

    def _do(self, what: Callable[[], Any]) -> None:
        async def work() -> None:
            what()

        self._run(work())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # closed already
            work.close()
            raise
        return future.result(10)

    def _listen_no_more(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    async def _end(self) -> None:
        self._listen_no_more()
        while self._connections or self._arriving:
            for connection in list(self._connections):
                for task in connection.tasks:
                    task.cancel()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)

    def close(self) -> None:
        """Ends all connections, and listens no more."""
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Byway:
    """A second way to an actor: by a relay that stands before its process or its node's door.

    Args:
        handle: the actor's, which has answered before.
        relay: the address of a relay, its ``HOST:PORT`` or path; the lane is TLS by the door, or the Unix socket.
    """

    def __init__(self, handle: actors.ActorHandle[Any], relay: str) -> None:
        self._process = current()
        self._handle = handle
        self._near = near = whereabouts(handle)
        if relay.startswith("/"):
            where = replace(near, socket=relay)
        else:
            where = replace(near, host="elsewhere", socket="", doors=(relay,))
        self._forget()  # else the peer that is there already would be used

        async def locate(_: str | None) -> Address:
            return where

        self.line = Line(self._process, line_of(handle).actor, "the actor behind a relay", Manner(), locate)
        self.line.find()

    def call(self, method: str, *args: Any) -> actors.ObjectRef[Any]:
        """Calls a method by the relay."""
        return calls.call(self.line, self._handle._spec.methods[method], args, {})

    def close(self) -> None:
        """Ends the connection by the relay; the actor is to be found on the direct way again."""
        if self.line.peer is not None:
            peer = self.line.peer
            self._process.portal.run(peer.close("the test is over"))
        self._forget()

    def _forget(self) -> None:
        self._process.forget(self._near.process)
        self._process._dead.pop(self._near.process, None)


class Detour(Byway):
    """A second way to an actor, with its relay; the actor is to lie on another host than the one where the test runs.

    Args:
        handle: the actor's, which has answered before.
        lane: ``"door"`` for TLS by the door of its node, ``"socket"`` for the Unix socket of its process.
    """

    def __init__(self, handle: actors.ActorHandle[Any], lane: str) -> None:
        self.relay = relay_to(handle, lane)
        super().__init__(handle, self.relay.address)

    def close(self) -> None:
        """Ends the relay as well."""
        super().close()
        self.relay.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whereabouts(handle: actors.ActorHandle[Any]) -> Address:
    """Where an actor is."""
    return current().portal.run(line_of(handle).located())


def relay_to(handle: actors.ActorHandle[Any], lane: str) -> Relay:
    """A relay to an actor: to the door of its node, or to the Unix socket of its process."""
    near = whereabouts(handle)
    if lane == "door":
        return Relay(next(info.address for info in actors.nodes() if info.id == near.node))
    return Relay(near.socket, near.socket.removesuffix(".sock") + "-relay")
