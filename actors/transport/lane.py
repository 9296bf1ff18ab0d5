"""A lane: one session over the links that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from actors._wire import distributed_comm_pb2 as pb
from actors.refusals import refused
from actors.slices import ask_to_run_soon
from actors.transport.codec import MalformedMessageError, decode, encode
from actors.transport.link import LinkLostError, as_quick
from actors.transport.manner import CONTROL
from actors.transport.session import ProtocolError, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from actors.messages import Message
    from actors.transport.bell import Bell
    from actors.transport.link import QuickLink, RawLink
    from actors.transport.manner import Manner

log = logging.getLogger(__name__)

FEW = 4  # messages on their way, with no more of which a thread sends its own itself: more are better sent together
TOGETHER = 64  # that wait, which it does not leave to the loop either: the other side is to begin meanwhile
ACK_DELAY = 0.02  # seconds a lone acknowledgement waits for a message to ride on
FAREWELL_SECONDS = 0.5  # for a goodbye over a link that may be full
REASON_LENGTH = 1000  # characters; an error may quote what it does not like at length


class _EnoughError(Exception):
    """Nothing more is to be taken in from this link."""


class Lane:
    """Sends what is posted, delivers what arrives, each exactly once and in order.

    ``post`` and ``lead`` may be called from any thread; everything else belongs to the I/O loop.

    Args:
        loop: the I/O loop.
        deliver: takes the messages that arrive.
        anywhere: whether a message may be delivered on any thread; None where all are for the loop.
        age: see `actors.transport.standstill`; of a link that is of another age nothing is taken in.
        manner: of its frames.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[Message], None],
        anywhere: Callable[[Message], bool] | None = None,
        age: Callable[[], int] = lambda: 0,
        manner: Manner = CONTROL,
    ) -> None:
        self._manner = manner
        self._session: Session[Message] = Session()
        self._loop = loop
        self._deliver = deliver
        self._anywhere = anywhere
        self._age = age
        self._link_age = 0
        self._lock = threading.RLock()  # of the session; re-entered where the end of an object posts a message
        self._taking = threading.RLock()  # held while a frame is taken in: a newer link may bring the same one again
        self._writing = False
        self._posted: deque[tuple[Message, int]] = deque()
        self._scheduled = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room_wanted = 0  # how many wait for it
        self._link: RawLink | None = None
        self._ack_sent = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self._ack_timed = False
        self._ack_due = False
        self._quick: QuickLink | None = None  # the link, where it is one
        self._idle: QuickLink | None = None  # the link, while its writer waits for something to write
        self._broken: Exception | None = None  # what the writer would have met
        self.goodbye: pb.Goodbye | None = None  # why the session is over: the other side's last word, or our own

    @property
    def session(self) -> Session[Message]:
        """The session, with all that has been posted so far."""
        if self._posted:  # seen without the lock: a message leaves it only once it is pushed
            with self._lock:
                self._push()
        return self._session

    def _push(self) -> None:
        # What an object's end posts meanwhile, on this very thread, is pushed after this and sent by the loop.
        writing, self._writing = self._writing, True
        try:
            while self._posted:
                self._session.push(*self._posted[0])
                self._posted.popleft()
        finally:
            self._writing = writing

    @property
    def linked(self) -> bool:
        """Whether a link carries the session now."""
        return self._link is not None

    def post(self, message: Message, size: int = 0, *, at_once: bool = False) -> None:
        """Takes a message over, to be sent as soon as there is a link. Never blocks.

        Args:
            message: the message.
            size: its bytes.
            at_once: it is sent from this thread where it can be, however many are on their way: the other side waits
                for it, and nothing else will come that could go with it.
        """
        self._posted.append((message, size))
        here = self._idle is not None and (at_once or self._session.in_flight < FEW or len(self._posted) >= TOGETHER)
        if here and self._send_here():
            return
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

    def _send_here(self) -> bool:
        """Sends from this thread what waits; returns False where that is for others to do."""
        got: list[bool] = []
        try:
            # One step, since an interrupt may come between two. It is not waited for: another that sends just now may
            # have looked for the last time, but the loop will look again.
            got.extend(map(self._lock.acquire, (False,)))
            link = self._idle
            if not got[0] or self._writing or link is None or link is not self._link:
                return False
            self._write_out(link.send_here)
            return True
        finally:
            if got and got[0]:
                self._lock.release()

    def _flush(self) -> None:
        """Has written what waits: at once, where the link can and its writer has nothing to do."""
        with self._lock:
            link = self._idle
            if link is None or link is not self._link:
                self._wake.set()
            else:
                self._write_out(link.send)

    def _write_out(self, send: Callable[[bytes], bool]) -> None:
        """Writes what waits. Whoever calls this has the lock."""
        self._writing = True
        try:
            while (data := self._next_bytes()) is not None:
                if not send(data):
                    self._to_writer()  # which waits for room, then goes on
                    break
        except Exception as error:
            self._broken = error
            self._to_writer()
        except BaseException:  # an interrupt, and nobody knows how much has gone out: another link brings it again
            self._mend()
            self._broken = LinkLostError("a message was interrupted")
            self._to_writer()
            raise
        finally:
            self._writing = False

    def _mend(self) -> None:
        newest = self._session.newest
        if self._posted and newest is not None and newest is self._posted[0][0]:
            self._posted.popleft()
        self._session.mend_taking()

    def _to_writer(self) -> None:
        self._idle = None
        self._loop.call_soon_threadsafe(self._wake.set)

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell | None = None) -> None:
        """Reads the link on this thread until ``done``, where it can be; see `actors.transport.link.QuickLink`."""
        quick = self._quick
        if quick is not None and self._anywhere is not None:
            ask_to_run_soon()
            quick.lead(done, seconds, bell)

    async def room(self, limit_bytes: int) -> None:
        """Waits until fewer than ``limit_bytes`` are pushed and not acknowledged; no longer than until it is closed."""
        await self._until(lambda: self.session.pending_bytes < limit_bytes)

    async def drained(self) -> None:
        """Waits until the other side has acknowledged everything that was posted, or this lane is closed."""
        await self._until(lambda: self.session.idle)

    async def _until(self, enough: Callable[[], bool]) -> None:
        self._room_wanted += 1
        try:
            while not enough():
                self._room.clear()
                if not enough():  # else another thread has taken an acknowledgement in just now
                    await self._room.wait()
        finally:
            self._room_wanted -= 1

    async def run(self, link: RawLink, peer_received: int, first: pb.Frame | None = None) -> None:
        """Carries the session over ``link`` until that ends, says goodbye, or another link takes its place.

        Args:
            link: an open link whose hello has been read.
            peer_received: what the hello says the other side has received.
            first: a frame to write first, such as the answering hello.
        """
        if self._link is not None:
            await self._link.close()
        with self._lock:
            self._link = link
            self._link_age = self._age()
            self._broken = None
            self._quick = as_quick(link)
            self._ack_sent = 0
        reader = asyncio.create_task(self._read(link))
        try:
            with self._lock:
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
                self._link = self._quick = None
            await link.close()

    async def farewell(self, reason: str, code: int = 0) -> None:
        """Tells the other side that this session is over, if there is a link to tell it on."""
        if self._link is not None:
            with contextlib.suppress(LinkLostError, TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._link.write(pb.Frame(goodbye=pb.Goodbye(reason=reason, code=code)))

    async def _read(self, link: RawLink) -> None:
        try:
            quick = as_quick(link)
            if quick is not None:
                await quick.receive(partial(self._take_bytes, link), partial(self._take_here, link))
                return
            while (data := await link.read_bytes()) is not None:
                self._take_bytes(link, data)
                del data  # or its payloads would be kept until the next one comes
        except _EnoughError:
            pass
        except (ProtocolError, MalformedMessageError, DecodeError) as error:
            refused("a frame against the rules of its session", error)
            await self._break_off(link, str(error))
        except Exception as error:  # of the receiver's; a session that stood still now would leave callers waiting
            log.exception("a message could not be taken in")
            await self._break_off(link, f"it failed at a message: {type(error).__name__}: {error}")

    def _take_bytes(self, link: RawLink, data: bytes) -> None:
        plain = self._manner.read(data)
        if plain is None or self._link is not link or self._age() != self._link_age:
            self._take(link, pb.Frame.FromString(data))
            return
        self._take_in(*plain)
        self._schedule_ack()

    def _take(self, link: RawLink, frame: pb.Frame) -> None:
        if self._link is not link or self._age() != self._link_age:
            raise _EnoughError  # a newer link, here already or yet to come, will bring these again
        self._take_in(frame.ack, ((envelope.seq, decode(envelope.data)) for envelope in frame.envelopes))
        if frame.HasField("goodbye"):
            self.goodbye = frame.goodbye
        if self.goodbye is not None:
            raise _EnoughError
        self._schedule_ack()

    def _take_here(self, link: RawLink, data: bytes) -> bool:
        """Takes a frame in on a thread other than the loop's; returns False for one that is for the loop.

        An interrupt may come at any step. Then the loop takes the same frame: what was delivered here may be so again.
        """
        anywhere, session = self._anywhere, self._session
        if anywhere is None or self._link is not link or self._age() != self._link_age:
            return False
        messages: Sequence[tuple[int, Message]]
        plain = self._manner.read(data)
        if plain is not None:
            ack, messages = plain
        else:
            try:
                frame = pb.Frame.FromString(data)
                if frame.HasField("goodbye") or frame.HasField("hello"):
                    return False
                ack, messages = frame.ack, [(envelope.seq, decode(envelope.data)) for envelope in frame.envelopes]
            except (DecodeError, MalformedMessageError):
                return False
        with self._taking:
            if self._link is not link or not self._are_next(messages, anywhere) or not self._acknowledged_here(ack):
                return False
            try:
                for number, message in messages:
                    self._deliver(message)
                    session.accept(number)
            except Exception:  # the receiver's: the loop meets it too, and ends the session
                return False
        if messages and not self._ack_timed:
            self._ack_timed = True
            self._loop.call_soon_threadsafe(self._time_ack)
        return True

    def _are_next(self, messages: Sequence[tuple[int, Message]], anywhere: Callable[[Message], bool]) -> bool:
        number = self._session.received
        for its_number, message in messages:
            number += 1
            if its_number != number or not anywhere(message):
                return False
        return True

    def _acknowledged_here(self, ack: int) -> bool:
        if not ack:
            return True
        session = self._session
        with self._lock:
            if ack > session.sent:
                return False
            try:
                session.acknowledged(ack)
            except BaseException:
                session.mend_acknowledged()
                raise
        if self._room_wanted:
            self._loop.call_soon_threadsafe(self._room.set)
        return True

    def _take_in(self, ack: int, messages: Iterable[tuple[int, Message]]) -> None:
        session = self.session
        if ack:
            with self._lock:
                session.acknowledged(ack)
            self._room.set()
        with self._taking:
            for number, message in messages:
                if session.accept(number):
                    self._deliver(message)

    async def _write(self, link: RawLink) -> None:
        quick = as_quick(link)
        try:
            while True:
                # First look, then wait: the wake-up may have gone to the writer of the link that this one replaces.
                while self.session.has_unsent or self._ack_due:
                    if self._link is not link:
                        return  # what were taken now would be lost to the link that has taken over
                    with self._lock:
                        data = self._next_bytes()
                    if data is not None:
                        await link.write_bytes(data)
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
        if self._broken is not None:
            raise self._broken
        if quick is not None:
            await quick.drained()

    def _next_bytes(self) -> bytes | None:
        """Returns the next frame, None where there is nothing to write. Whoever calls this has the lock."""
        if self._broken is not None:
            raise self._broken
        session, manner = self._session, self._manner
        if self._posted:
            self._push()
        elif not (self._ack_due or session.has_unsent):
            return None
        messages = session.take(manner.messages, manner.nbytes)
        self._ack_due = False
        self._ack_sent = ack = session.received
        plain = manner.write(ack, messages)
        return _frame(ack, messages).SerializeToString() if plain is None else plain

    async def _break_off(self, link: RawLink, reason: str) -> None:
        """Ends the session on both sides: over another link it would miss what has gone wrong on this one."""
        goodbye = pb.Goodbye(reason=reason[:REASON_LENGTH], code=4)
        self.goodbye = goodbye
        with contextlib.suppress(LinkLostError, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await link.write(pb.Frame(goodbye=goodbye))

    def _schedule_ack(self) -> None:
        outstanding = self.session.received - self._ack_sent
        if outstanding >= self._manner.ack_after:
            self._send_ack()
        elif outstanding and not self._ack_timed:
            self._ack_timed = True
            self._time_ack()

    def _time_ack(self) -> None:
        self._ack_timer = self._loop.call_later(ACK_DELAY, self._ack_is_due)

    def _ack_is_due(self) -> None:
        self._ack_timed = False
        self._send_ack()

    def _send_ack(self) -> None:
        if self._session.received > self._ack_sent:
            self._ack_due = True
            self._flush()

    def close(self) -> None:
        """Drops what is unsent and stops the timer; the link is closed by whoever runs it."""
        with self._lock:
            self.session.drop()
        self._room.set()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None


def _frame(ack: int, messages: Sequence[tuple[int, Message]]) -> pb.Frame:
    frame = pb.Frame(ack=ack)
    for number, message in messages:
        envelope = frame.envelopes.add()
        envelope.seq = number
        encode(message, envelope.data)
    return frame


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
