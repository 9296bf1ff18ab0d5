"""A lane: one session over the links that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from actors._wire import distributed_comm_pb2 as pb
from actors.transport.codec import MalformedMessageError, decode, encode
from actors.transport.link import LinkLostError, QuickLink
from actors.transport.session import ProtocolError, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.messages import Message
    from actors.transport.link import Link

log = logging.getLogger(__name__)

BATCH_MESSAGES = 512  # measured: larger batches gain little and make the first message wait
BATCH_BYTES = 4 << 20
ACK_DELAY = 0.02  # seconds a lone acknowledgement waits for a message to ride on
FAREWELL_SECONDS = 0.5  # for a goodbye over a link that may be full
REASON_LENGTH = 1000  # characters; an error may quote what it does not like at length


class _EnoughError(Exception):
    """Nothing more is to be taken in from this link."""


class Lane:
    """Sends what is posted, delivers what arrives, each exactly once and in order.

    ``post`` may be called from any thread; everything else belongs to the I/O loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Message], None]) -> None:
        self._session: Session[Message] = Session()
        self._loop = loop
        self._deliver = deliver
        self._posted: deque[tuple[Message, int]] = deque()
        self._scheduled = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._link: Link | None = None
        self._ack_sent = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ack_due = False
        self._idle: QuickLink | None = None  # the link, while its writer waits for something to write
        self._broken: Exception | None = None  # what the writer would have met
        self.goodbye: pb.Goodbye | None = None  # why the session is over: the other side's last word, or our own

    @property
    def session(self) -> Session[Message]:
        """The session, with all that has been posted so far."""
        while self._posted:
            self._session.push(*self._posted.popleft())
        return self._session

    @property
    def linked(self) -> bool:
        """Whether a link carries the session now."""
        return self._link is not None

    def post(self, message: Message, size: int = 0) -> None:
        """Takes a message over, to be sent as soon as there is a link. Never blocks."""
        self._posted.append((message, size))
        # Messages posted before the loop comes round ride on the wake-up of the first one.
        if not self._scheduled:
            try:
                self._scheduled = True
                self._loop.call_soon_threadsafe(self._posts_came)
            except BaseException:  # Ctrl-C just here: the next message shall wake the loop
                self._scheduled = False
                raise

    def _posts_came(self) -> None:
        self._scheduled = False
        self._flush()

    def _flush(self) -> None:
        """Has written what waits: at once, where the link can and its writer has nothing to do."""
        link = self._idle
        if link is None or link is not self._link:
            self._wake.set()
            return
        try:
            while self.session.has_unsent or self._ack_due:
                if not link.send(self._next_frame().SerializeToString()):
                    self._idle = None
                    self._wake.set()  # the writer waits for room, then goes on
                    return
        except Exception as error:
            self._idle = None
            self._broken = error
            self._wake.set()

    async def room(self, limit_bytes: int) -> None:
        """Waits until fewer than ``limit_bytes`` are pushed and not acknowledged; no longer than until it is closed."""
        while self.session.pending_bytes >= limit_bytes:
            self._room.clear()
            await self._room.wait()

    async def drained(self) -> None:
        """Waits until the other side has acknowledged everything that was posted, or this lane is closed."""
        while not self.session.idle:
            self._room.clear()
            await self._room.wait()

    async def run(self, link: Link, peer_received: int, first: pb.Frame | None = None) -> None:
        """Carries the session over ``link`` until that ends, says goodbye, or another link takes its place.

        Args:
            link: an open link whose hello has been read.
            peer_received: what the hello says the other side has received.
            first: a frame to write first, such as the answering hello.
        """
        if self._link is not None:
            await self._link.close()
        self._link = link
        self._ack_sent = 0
        reader = asyncio.create_task(self._read(link))
        try:
            self.session.connected(peer_received)
            self._room.set()  # the hello may have acknowledged what was waited for
            if first is not None:
                await link.write(first)
            self._wake.set()
            writer = asyncio.create_task(self._write(link))
            try:
                await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancelled(writer)
        except LinkLostError:
            pass
        except ProtocolError as error:
            if first is None:
                await self._break_off(link, str(error))
            else:  # an old hello that came late says nothing of the session
                await self.farewell(str(error), code=4)
        finally:
            await _cancelled(reader)
            if self._link is link:
                self._link = None
            await link.close()

    async def farewell(self, reason: str, code: int = 0) -> None:
        """Tells the other side that this session is over, if there is a link to tell it on."""
        if self._link is not None:
            with contextlib.suppress(LinkLostError, TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._link.write(pb.Frame(goodbye=pb.Goodbye(reason=reason, code=code)))

    async def _read(self, link: Link) -> None:
        try:
            if isinstance(link, QuickLink):
                await link.receive(lambda data: self._take(link, pb.Frame.FromString(data)))
                return
            while (frame := await link.read()) is not None:
                self._take(link, frame)
                del frame  # or its payloads would be kept until the next one comes
        except _EnoughError:
            pass
        except (ProtocolError, MalformedMessageError, DecodeError) as error:
            await self._break_off(link, str(error))
        except Exception as error:  # of the receiver's; a session that stood still now would leave callers waiting
            log.exception("a message could not be taken in")
            await self._break_off(link, f"it failed at a message: {type(error).__name__}: {error}")

    def _take(self, link: Link, frame: pb.Frame) -> None:
        if self._link is not link:
            raise _EnoughError  # a newer link has taken over; it will bring these again
        self._take_in(frame)
        if self.goodbye is not None:
            raise _EnoughError

    def _take_in(self, frame: pb.Frame) -> None:
        session, deliver = self.session, self._deliver
        if frame.ack:
            session.acknowledged(frame.ack)
            self._room.set()
        for envelope in frame.envelopes:
            if session.accept(envelope.seq):
                deliver(decode(envelope.data))
        if frame.HasField("goodbye"):
            self.goodbye = frame.goodbye
        else:
            self._schedule_ack()

    async def _write(self, link: Link) -> None:
        quick = link if isinstance(link, QuickLink) else None
        try:
            while True:
                # First look, then wait: the wake-up may have gone to the writer of the link that this one replaces.
                while self.session.has_unsent or self._ack_due:
                    if self._link is not link:
                        return  # what were taken now would be lost to the link that has taken over
                    await link.write(self._next_frame())
                await self._woken(quick)
        except LinkLostError:
            pass
        except Exception as error:
            log.exception("a message could not be written")
            await self._break_off(link, f"a message cannot be written: {type(error).__name__}: {error}")

    async def _woken(self, quick: QuickLink | None) -> None:
        self._idle = quick
        try:
            await self._wake.wait()
        finally:
            self._idle = None
        self._wake.clear()
        broken, self._broken = self._broken, None
        if broken is not None:
            raise broken
        if quick is not None:
            await quick.drained()

    def _next_frame(self) -> pb.Frame:
        session = self.session
        frame = pb.Frame(ack=session.received)
        self._ack_due = False
        self._ack_sent = session.received
        for number, message in session.take(BATCH_MESSAGES, BATCH_BYTES):
            envelope = frame.envelopes.add()
            envelope.seq = number
            encode(message, envelope.data)
        return frame

    async def _break_off(self, link: Link, reason: str) -> None:
        """Ends the session on both sides: over another link it would miss what has gone wrong on this one."""
        goodbye = pb.Goodbye(reason=reason[:REASON_LENGTH], code=4)
        self.goodbye = goodbye
        with contextlib.suppress(LinkLostError, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await link.write(pb.Frame(goodbye=goodbye))

    def _schedule_ack(self) -> None:
        outstanding = self.session.received - self._ack_sent
        if outstanding >= BATCH_MESSAGES:
            self._send_ack()
        elif outstanding and self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_DELAY, self._send_ack)

    def _send_ack(self) -> None:
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        if self.session.received > self._ack_sent:
            self._ack_due = True
            self._flush()

    def close(self) -> None:
        """Drops what is unsent and stops the timer; the link is closed by whoever runs it."""
        self.session.drop()
        self._room.set()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
