"""Links within one host: frames over a Unix socket, each after its length, without gRPC between."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from actors._wire.distributed_comm_pb2 import Frame
from actors.transport.knock import DIAL_SECONDS
from actors.transport.link import GoneError, LinkLostError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_BYTES = 4  # the length of a frame, little-endian
MAX_FRAME_BYTES = 64 << 20  # frames are of a few MiB at most; whoever says otherwise is not one of us
READ_AHEAD_BYTES = 8 << 20  # frames that wait to be read; the socket's other end is held up beyond that
JOIN_BYTES = 1 << 16  # a longer frame is not copied to stand behind its length
CLOSE_SECONDS = 1.0  # for what was written last, where the other side does not read


class LocalLink(asyncio.Protocol):
    """One end of a connection. See `actors.transport.link.QuickLink`.

    Args:
        met: called when the connection is up; at the serving side, which has not asked for it.
    """

    def __init__(self, met: Callable[[LocalLink], None] | None = None) -> None:
        self.node: str | None = None
        self._met = met
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = bytearray()  # of a frame that has not come whole
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._ended = False
        self._full: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], None] | None = None
        self._taken: asyncio.Future[None] | None = None  # the end of it

    # -- what asyncio tells -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        if self._met is not None:
            self._met(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: cuts what has come into frames."""
        if self._rest:
            self._rest += data
            if not self._is_whole():
                if self._rest_is_hostile():
                    self._abort()
                return
            data = bytes(self._rest)
            self._rest.clear()
        start, end = 0, len(data)
        while end - start >= HEAD_BYTES:
            stop = start + HEAD_BYTES + int.from_bytes(data[start : start + HEAD_BYTES], "little")
            if stop - start > MAX_FRAME_BYTES:
                self._abort()
                return
            if stop > end:
                break
            self._frames.append(data[start + HEAD_BYTES : stop])
            self._waiting_bytes += stop - start
            start = stop
        if start < end:
            self._rest += data[start:]
            if self._rest_is_hostile():
                self._abort()
                return
        if self._frames:
            if self._take is not None:
                self._give()
            else:
                self._wake()
        if self._waiting_bytes > READ_AHEAD_BYTES and self._transport is not None:
            self._transport.pause_reading()

    def _give(self) -> None:
        while self._frames and self._take is not None:
            try:
                self._take(self._pop())
            except Exception as error:
                self._take = None
                if self._taken is not None and not self._taken.done():
                    self._taken.set_exception(error)

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
        self._wake()
        self.resume_writing()

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
        if self._waiting_bytes <= READ_AHEAD_BYTES and self._transport is not None and not self._ended:
            self._transport.resume_reading()
        return data

    async def write(self, frame: Frame) -> None:
        """See `actors.transport.link.Link`."""
        await self.write_bytes(frame.SerializeToString())

    def receive(self, take: Callable[[bytes], None]) -> asyncio.Future[None]:
        """See `actors.transport.link.QuickLink`."""
        self._take = take
        self._taken = self._loop.create_future()
        self._give()
        if self._ended:
            self._wake()
        elif self._transport is not None:
            self._transport.resume_reading()
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
        if len(data) <= JOIN_BYTES:
            transport.write(head + data)
        else:
            transport.write(head)
            transport.write(data)
        return self._full is None

    async def close(self) -> None:
        """See `actors.transport.link.Link`."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
        self._ended = True
        self._wake()


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
