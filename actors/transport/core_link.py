"""Links over gRPC whose stream is read by whoever waits for an answer, as `local_link` does it with a socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from actors._wire.distributed_comm_pb2 import Frame
from actors.shortage import NoThreadError, begin
from actors.transport.core_call import Event
from actors.transport.link import LinkLostError
from actors.transport.traffic import Traffic
from actors.transport.uninterrupted import Uninterrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.bell import Bell
    from actors.transport.core_call import CoreCall

log = logging.getLogger(__name__)

READ_AHEAD_BYTES = 8 << 20  # frames that wait to be read; gRPC holds the other side up beyond that
TICK_SECONDS = 0.001
LINGER_SECONDS = 0.001  # who has read until now mostly does so again at once
CLOSE_SECONDS = 1.0  # for what was written last, where the other side does not read


class CoreLink:
    """One end of a `Stream` call. See `actors.transport.link.QuickLink`.

    Its events are waited for by one thread at a time: by a thread of its own, or by one that waits for an answer and
    so spares itself being woken by that (see `lead`). The link's own thread stands aside then, and sees to it that the
    other does not wait for longer than it wants.

    Args:
        call: to be used by this link alone.
        loop: the I/O loop.

    Raises:
        NoThreadError: its thread cannot be begun; the call is cancelled then.
    """

    def __init__(self, call: CoreCall, loop: asyncio.AbstractEventLoop) -> None:
        self.node: str | None = None
        self._traffic = Traffic(None, "grpc")
        self._call = call
        self._loop = loop
        self._lock = threading.RLock()  # of the next nine; re-entered where the end of an object posts a message
        self._over = False  # the call has ended, nothing may be begun
        self._sending = False
        self._late: deque[bytes] = deque()  # what is to be sent then
        self._full = False  # the loop waits until that is so
        self._finishing = False
        self._frames: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._held_up = False  # no message is wanted until some have been read
        self._closed = False
        self._ended = False  # no frame will come
        self._taking = threading.Lock()  # held by whoever delivers frames
        self._reading = threading.Lock()  # and by whoever waits for events
        self._leading = threading.Lock()  # and by whoever is not the link's own thread
        self._until = 0.0  # when who leads has waited for long enough
        self._left_at = 0.0  # when somebody led last
        self._take: Callable[[bytes], None] | None = None
        self._take_here: Callable[[bytes], bool] | None = None
        self._taken: asyncio.Future[None] | None = None  # the end of it
        self._came_in = asyncio.Event()
        self._gone_out = asyncio.Event()
        call.receive()
        try:
            begin(self._run, "actors-grpc-link")
        except NoThreadError:
            call.cancel()
            call.drain()
            raise

    # -- who waits for events -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._over:
                if self._leading.locked() or time.monotonic() - self._left_at < LINGER_SECONDS:
                    time.sleep(TICK_SECONDS)
                    if self._leading.locked() and time.monotonic() >= self._until:
                        self._nudge()
                    continue
                with self._reading:
                    if not self._leading.locked():
                        self._happened(*self._call.next())
                self._pass_on()
        except Exception:
            log.exception("a link failed in a way it should not")
            self._cut()
        with self._reading:
            self._call.drain()
        self._ended = True
        self._tell_loop()

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell | None = None) -> None:
        """See `actors.transport.link.QuickLink`."""
        # grpc has a lock of its own, which an interrupt in the wrong place would leave locked for ever.
        with Uninterrupted():
            if self._take_here is None or self._over or not self._leading.acquire(blocking=False):
                return
            try:
                self._until = time.monotonic() + seconds
                if bell is not None:
                    bell.also = self._nudge
                self._lead(done)
            except BaseException:  # of who takes; what has been read may be lost: another link brings it again
                self._cut()
                raise
            finally:
                if bell is not None:
                    bell.also = None
                self._left_at = time.monotonic()
                self._leading.release()
                if self._frames or self._ended:
                    self._tell_loop()

    def _lead(self, done: Callable[[], bool]) -> None:
        if not self._reading.acquire(blocking=False):
            self._nudge()
            self._reading.acquire()
        try:
            while self._give_here() and not done() and not self._ended and time.monotonic() < self._until:
                self._happened(*self._call.next())
        finally:
            self._reading.release()

    def _nudge(self) -> None:
        with self._lock:
            if not self._over:
                self._call.nudge()

    def _happened(self, event: Event, data: bytes | None) -> None:
        with self._lock:
            if event is Event.SENT:
                self._sending = False
                self._send_next()
                if self._full and not self._late:
                    self._full = False
                    self._soon(self._gone_out.set)
            elif event is Event.OVER:
                self._over = self._ended = True
            elif event is Event.MESSAGE and data is None:
                self._ended = True
            elif event is Event.MESSAGE and data is not None:
                self._traffic.received += len(data)
                self._frames.append(data)
                self._waiting_bytes += len(data)
                self._held_up = True
                self._want()

    def _want(self) -> None:
        if self._held_up and self._waiting_bytes <= READ_AHEAD_BYTES and not self._over:
            self._held_up = False
            self._call.receive()

    def _send_next(self) -> None:
        if self._over or self._sending:
            return
        if self._late:
            self._sending = True
            self._call.send(self._late.popleft())
        elif self._finishing:
            self._finishing = False
            self._call.finish()

    def _cut(self) -> None:
        with self._lock:
            if not self._over:
                self._over = self._ended = True
                self._call.cancel()

    # -- what has come ------------------------------------------------------------------------------------------

    def _give_here(self) -> bool:
        """Delivers on this thread what can be; returns whether that was all."""
        with self._taking:
            while self._frames:
                if self._take_here is None or not self._take_here(self._frames[0]):
                    return False
                self._pop()
        return True

    def _pop(self) -> bytes:
        with self._lock:
            data = self._frames.popleft()
            self._waiting_bytes -= len(data)
            self._want()
        return data

    def _pass_on(self) -> None:
        left = bool(self._frames) and not self._give_here()
        if left or self._ended:
            self._tell_loop()

    def _tell_loop(self) -> None:
        self._soon(self._came)

    def _soon(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(callback)

    def _came(self) -> None:
        """Something may have come: passes it on. On the loop."""
        if self._take is not None:
            with self._taking:
                self._give()
        self._came_in.set()
        if self._ended:
            self._wake()

    def _give(self) -> None:
        while self._frames and self._take is not None:
            try:
                self._take(self._pop())
            except Exception as error:
                self._take = self._take_here = None
                if self._taken is not None and not self._taken.done():
                    self._taken.set_exception(error)

    def _wake(self) -> None:
        self._traffic.over()
        self._came_in.set()
        self._gone_out.set()
        if self._taken is not None and not self._taken.done():
            self._taken.set_result(None)

    # -- as a link ----------------------------------------------------------------------------------------------

    async def read(self) -> Frame | None:
        """See `actors.transport.link.Link`."""
        data = await self.read_bytes()
        return None if data is None else Frame.FromString(data)

    async def read_bytes(self) -> bytes | None:
        """See `actors.transport.link.RawLink`."""
        while not self._frames:
            if self._ended or self._closed:
                return None
            self._came_in.clear()
            if not self._frames and not self._ended:
                await self._came_in.wait()
        return self._pop()

    def receive(self, take: Callable[[bytes], None], take_here: Callable[[bytes], bool]) -> asyncio.Future[None]:
        """See `actors.transport.link.QuickLink`."""
        self._taken = self._loop.create_future()
        self._take = take
        self._came()  # what waits already
        if not self._ended:
            self._take_here = take_here
        return self._taken

    async def write(self, frame: Frame) -> None:
        """See `actors.transport.link.Link`."""
        await self.write_bytes(frame.SerializeToString())

    async def write_bytes(self, data: bytes) -> None:
        """See `actors.transport.link.RawLink`."""
        self.send(data)
        await self.drained()

    async def drained(self) -> None:
        """See `actors.transport.link.QuickLink`."""
        while self._late:
            with self._lock:
                self._gone_out.clear()
                self._full = bool(self._late) and not self._over and not self._closed
            if self._full:
                await self._gone_out.wait()
            if self._over or self._closed:
                raise LinkLostError("the connection has ended")

    def send(self, data: bytes) -> bool:
        """See `actors.transport.link.QuickLink`."""
        with Uninterrupted(), self._lock:
            if self._over or self._ended or self._closed:
                raise LinkLostError("the connection has ended")
            self._traffic.sent += len(data)
            self._late.append(data)
            self._send_next()
            return not self._late

    send_here = send

    async def close(self) -> None:
        """See `actors.transport.link.Link`."""
        if not self._closed:
            with self._lock:
                self._closed = self._finishing = True
                self._send_next()
            self._loop.call_later(CLOSE_SECONDS, self._cut)
        self._wake()
