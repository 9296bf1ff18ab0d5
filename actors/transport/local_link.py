"""Links within one host: frames over a Unix socket, each after its length, without gRPC between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, cast

from actors._wire.distributed_comm_pb2 import Frame
from actors.courtesy import bustle
from actors.refusals import refused
from actors.transport.gate import Gate
from actors.transport.glance import Glances
from actors.transport.knock import DIAL_SECONDS
from actors.transport.link import GoneError, LinkLostError, UnreachableError
from actors.transport.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.bell import Bell

HEAD_BYTES = 4  # the length of a frame, little-endian
MAX_FRAME_BYTES = 64 << 20  # frames are of a few MiB at most; whoever says otherwise is not one of us
READ_AHEAD_BYTES = 8 << 20  # frames that wait to be read; the socket's other end is held up beyond that
JOIN_BYTES = 1 << 16  # a longer frame is not copied to stand behind its length
RECEIVE_BYTES = 1 << 16  # at once; more where so much was there
RECEIVE_MUCH_BYTES = 1 << 18
CLOSE_SECONDS = 1.0  # for what was written last, where the other side does not read


class LocalLink(asyncio.Protocol):
    """One end of a connection. See `actors.transport.link.QuickLink`.

    The socket is read by one thread at a time: by the I/O loop, or by one that waits for an answer and so spares
    itself the way over the loop (see `lead`). It is written to by any.

    Args:
        met: called when the connection is up; at the serving side, which has not asked for it.
    """

    def __init__(self, met: Callable[[LocalLink], None] | None = None) -> None:
        self.node: str | None = None
        self._traffic = Traffic(None, "socket")
        self._met = met
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None  # the transport's, by another number
        self._gate: Gate | None = None
        self._poll = select.poll()
        self._glances = Glances()
        self._bell: Bell | None = None
        self._reading = threading.Lock()  # by whom it is held, the socket and all that has been read belongs to
        self._size = RECEIVE_BYTES
        self._rest = bytearray()  # of a frame that has not come whole
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._hung_up = False  # the other side has
        self._hostile = False
        self._torn = False
        self._reader: asyncio.Future[None] | None = None
        self._ended = False
        self._writing = threading.Lock()
        self._late: deque[bytes] = deque()  # what the socket did not take from another thread
        self._lent = False  # the transport may still have something to write
        self._full: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], None] | None = None
        self._take_here: Callable[[bytes], bool] | None = None
        self._taken: asyncio.Future[None] | None = None  # the end of it

    # -- what asyncio tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        own = transport.get_extra_info("socket")
        if own is not None:
            # The transport writes what has to wait; it never reads.
            self._transport.pause_reading()
            self._socket = socket.socket(fileno=os.dup(own.fileno()))
            self._socket.setblocking(False)
            self._poll.register(self._socket, select.POLLIN)
            self._gate = Gate(self._socket.fileno())
            self._loop.add_reader(self._gate, self._readable)
        if self._met is not None:
            self._met(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._traffic.received += len(data)
        self._cut(data)
        self._came()

    def _readable(self) -> None:
        """There may be something to read, or something has been read by another thread that is for the loop."""
        if not self._reading.acquire(blocking=False):
            return  # who holds it has the loop come back
        try:
            if self._socket is not None and not self._frames and not self._torn:
                self._fill()
            self._came()
        finally:
            self._reading.release()
        if self._ended:
            self._retire()

    def _fill(self) -> bool:
        """Reads what there is; returns False where that is nothing."""
        assert self._socket is not None
        try:
            data = self._socket.recv(self._size)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._hung_up = True
            return False
        bustle.messages += 1
        self._traffic.received += len(data)
        self._size = RECEIVE_MUCH_BYTES if len(data) == self._size else RECEIVE_BYTES
        self._cut(data)
        return True

    def _cut(self, data: bytes) -> None:
        """Cuts what has come into frames."""
        if self._rest:
            self._rest += data
            if not self._is_whole():
                self._hostile = self._hostile or self._rest_is_hostile()
                return
            data = bytes(self._rest)
            self._rest.clear()
        start, end = 0, len(data)
        while end - start >= HEAD_BYTES:
            stop = start + HEAD_BYTES + int.from_bytes(data[start : start + HEAD_BYTES], "little")
            if stop - start > MAX_FRAME_BYTES:
                self._hostile = True
                return
            if stop > end:
                break
            self._frames.append(data[start + HEAD_BYTES : stop])
            self._waiting_bytes += stop - start
            start = stop
        if start < end:
            self._rest += data[start:]
            self._hostile = self._hostile or self._rest_is_hostile()

    def _came(self) -> None:
        """Something may have been read: passes it on. On the loop."""
        if self._frames:
            if self._take is not None:
                self._give()
            else:
                self._wake()
        if self._hostile and not self._ended:
            refused("a frame that is too long")
        if self._hostile or self._torn:
            self._abort()
        elif self._hung_up and not self._ended and self._transport is not None:
            self._transport.close()  # what was written before goes out, if anybody takes it
            self._ended = True
            self._wake()
        elif self._waiting_bytes > READ_AHEAD_BYTES and not self._ended:
            self._pause(True)

    def _pause(self, yes: bool) -> None:
        if self._gate is not None:
            self._gate.shut() if yes else self._gate.open()
        elif self._transport is not None:
            self._transport.pause_reading() if yes else self._transport.resume_reading()

    def _give(self) -> None:
        while self._frames and self._take is not None:
            try:
                self._take(self._pop())
            except Exception as error:
                self._take = self._take_here = None
                if self._taken is not None and not self._taken.done():
                    self._taken.set_exception(error)

    # -- what others read ---------------------------------------------------------------------------------------

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell | None = None) -> None:
        """See `actors.transport.link.QuickLink`."""
        got: list[bool] = []
        try:
            # An interrupt between the two would leave it locked for ever, were it not one step.
            got.extend(map(self._reading.acquire, (False,)))
            if got[0] and self._gate is not None and self._take_here is not None:
                try:
                    self._gate.shut()
                    self._lead(done, time.monotonic() + seconds, bell)
                finally:
                    if self._waiting_bytes <= READ_AHEAD_BYTES:
                        self._gate.open()
        finally:
            if got and got[0]:
                try:
                    self._reading.release()
                finally:  # also where an interrupt comes just then, or what it left would be looked at by nobody
                    if self._frames or self._hung_up or self._hostile or self._torn or self._ended:
                        self._loop.call_soon_threadsafe(self._readable)

    def _lead(self, done: Callable[[], bool], until: float, bell: Bell | None) -> None:
        if bell is not self._bell:
            self._poll_with(bell)
        while True:
            while self._frames:
                if self._take_here is None or not self._take_here(self._frames[0]):
                    return
                self._pop()
            if done() or self._hung_up or self._hostile or self._torn or self._ended:
                return
            left = until - time.monotonic()
            if left <= 0 or not (self._glances.at(self._poll, moves=bell is None) or self._poll.poll(left * 1000)):
                return
            self._torn = True  # an interrupt now may lose what has been read: then another link brings it again
            self._fill()
            self._torn = False

    def _poll_with(self, bell: Bell | None) -> None:
        if self._bell is not None:
            self._poll.unregister(self._bell)
        if bell is not None:
            self._poll.register(bell, select.POLLIN)
        self._bell = bell

    def _retire(self) -> None:
        """The socket is not read any more. On the loop."""
        if self._socket is None:
            return
        if not self._reading.acquire(blocking=False):
            with contextlib.suppress(OSError):  # the other side was quicker
                self._socket.shutdown(socket.SHUT_RD)  # whoever waits at it lets go, and has the loop come back
            return
        try:
            if self._gate is not None:
                self._loop.remove_reader(self._gate)
                self._gate.close()
                self._gate = None
            with self._writing:
                self._socket.close()
                self._socket = None
        finally:
            self._reading.release()

    def _pop(self) -> bytes:
        data = self._frames.popleft()
        self._waiting_bytes -= HEAD_BYTES + len(data)
        return data

    def _is_whole(self) -> bool:
        """Whether the frame that has begun has come whole; else nothing needs to be copied yet."""
        if len(self._rest) < HEAD_BYTES:
            return False
        return len(self._rest) >= HEAD_BYTES + int.from_bytes(self._rest[:HEAD_BYTES], "little")

    def _rest_is_hostile(self) -> bool:
        return len(self._rest) >= HEAD_BYTES and int.from_bytes(self._rest[:HEAD_BYTES], "little") > MAX_FRAME_BYTES

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter: the session goes on
        """See `asyncio.Protocol`."""
        self._ended = True
        self._traffic.over()
        self._wake()
        self.resume_writing()
        self._retire()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        full, self._full = self._full, None
        if full is not None and not full.done():
            full.set_result(None)

    def _wake(self) -> None:
        if self._ended and self._taken is not None and not self._taken.done():
            self._taken.set_result(None)
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _abort(self) -> None:
        self._ended = True
        self._wake()
        self.resume_writing()
        if self._transport is not None:
            self._transport.abort()

    # -- as a link ----------------------------------------------------------------------------------------------

    async def read(self) -> Frame | None:
        """See `actors.transport.link.Link`."""
        data = await self.read_bytes()
        return None if data is None else Frame.FromString(data)

    async def read_bytes(self) -> bytes | None:
        """See `actors.transport.link.RawLink`."""
        while not self._frames:
            if self._ended:
                return None
            self._reader = self._loop.create_future()
            await self._reader
        data = self._pop()
        if self._waiting_bytes <= READ_AHEAD_BYTES and not self._ended:
            self._pause(False)
        return data

    async def write(self, frame: Frame) -> None:
        """See `actors.transport.link.Link`."""
        await self.write_bytes(frame.SerializeToString())

    def receive(
        self, take: Callable[[bytes], None], take_here: Callable[[bytes], bool] | None = None
    ) -> asyncio.Future[None]:
        """See `actors.transport.link.QuickLink`."""
        self._taken = self._loop.create_future()
        self._take = take
        self._readable()  # what waits already
        if self._ended:
            self._wake()
        else:
            self._pause(False)
            self._take_here = take_here
        return self._taken

    async def write_bytes(self, data: bytes) -> None:
        """See `actors.transport.link.RawLink`."""
        self.send(data)
        await self.drained()

    async def drained(self) -> None:
        """See `actors.transport.link.QuickLink`."""
        while self._full is not None:
            await asyncio.shield(self._full)  # several may wait for it
            if self._ended:
                raise LinkLostError("the connection has ended")

    def send(self, data: bytes) -> bool:
        """See `actors.transport.link.QuickLink`."""
        transport = self._transport
        if self._ended or transport is None or transport.is_closing():
            raise LinkLostError("the connection has ended")
        head = len(data).to_bytes(HEAD_BYTES, "little")
        with self._writing:
            self._write_late()
            self._traffic.sent += HEAD_BYTES + len(data)
            self._lent = True
            if len(data) <= JOIN_BYTES:
                transport.write(head + data)
            else:
                transport.write(head)
                transport.write(data)
        return self._full is None

    def send_here(self, data: bytes) -> bool:
        """See `actors.transport.link.QuickLink`."""
        transport = self._transport
        data = len(data).to_bytes(HEAD_BYTES, "little") + data
        with self._writing:
            if self._ended or transport is None or self._socket is None:
                raise LinkLostError("the connection has ended")
            sent = 0
            if self._lent and not transport.get_write_buffer_size():
                self._lent = False
            if not self._late and not self._lent:
                try:
                    sent = self._socket.send(data)
                except (BlockingIOError, InterruptedError):
                    pass
                except OSError as error:
                    raise LinkLostError(f"the connection has ended: {error}") from error
            self._traffic.sent += len(data)
            if sent == len(data):
                return True
            self._late.append(data[sent:])
        self._loop.call_soon_threadsafe(self._late_goes_out)
        return False

    def _late_goes_out(self) -> None:
        with self._writing:
            self._write_late()

    def _write_late(self) -> None:
        while self._late and self._transport is not None:
            self._lent = True
            self._transport.write(self._late.popleft())

    async def close(self) -> None:
        """See `actors.transport.link.Link`."""
        if self._transport is not None and not self._transport.is_closing():
            self._late_goes_out()
            self._transport.close()
            self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
        self._ended = True
        self._wake()
        self._retire()


async def dial_local(path: str) -> LocalLink:
    """Connects to the process that listens on a Unix socket.

    Raises:
        GoneError: it has ended.
        UnreachableError: it does not answer.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, link = await loop.create_unix_connection(LocalLink, path)
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise GoneError("its process has ended") from error
    except OSError as error:  # TimeoutError is one
        raise UnreachableError(f"{path}: {error.strerror or error}") from error
    return link
