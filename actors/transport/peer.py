"""A peer: this process's side of a conversation that it began, kept up over lost connections."""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING, Any, Protocol, cast

from google.protobuf.message import DecodeError

from actors._wire import distributed_comm_pb2 as pb
from actors.address import host_key
from actors.exceptions import Verdict
from actors.frozen import travelling
from actors.ids import new_id
from actors.messages import PLAIN, VALUE, Call, Calls, Cancel, Credit, Item, Outcome, Payload, Replies, Reply
from actors.refusals import refused
from actors.serialize import loads
from actors.transport.conversation import Conversation
from actors.transport.link import GoneError, LinkLostError, MuteError, UnreachableError
from actors.version import MINOR, PROTOCOL, __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from actors.address import Address
    from actors.arena import Arena
    from actors.holdings import Passage
    from actors.messages import Message, Terms
    from actors.transport.lane import Lane
    from actors.transport.link import Dialer, RawLink

log = logging.getLogger(__name__)

RESUME_SECONDS = 30.0  # silence up to here is not death
HELLO_SECONDS = 5.0
REDIAL_SECONDS = 0.1
ROOTS = 4  # see `actors.version.MINOR`
_KEPT = Outcome.KEPT  # see `VALUE`


@travelling
@dataclass(frozen=True, slots=True)
class Death:
    """What is known of the end of a process.

    Attributes:
        reason: a clause such as "its process ended with exit code 3".
        node_too: the whole node is gone.
        node: name of the node, where known.
        last_lines: what it printed last.
        intended: somebody wanted it, or it would come again: the actor is not to be made anew.
        moved: the actor lives elsewhere; what it has not answered here, it has not begun here.
        silent: nobody has seen it end: it was waited for in vain.
    """

    reason: str
    node_too: bool = False
    node: str | None = None
    last_lines: tuple[str, ...] = ()
    intended: bool = False
    moved: bool = False
    silent: bool = False


class Caller(Protocol):
    """Who waits for the answer to a call. All methods are called on the I/O loop and must be quick.

    Attributes:
        anywhere: ``replied`` may be called on any thread with a value, once more if an interrupt cut it short.
    """

    @property
    def anywhere(self) -> bool:
        """See above."""

    def replied(self, reply: Reply) -> None:
        """The one answer came."""

    def yielded(self, item: Item) -> None:
        """A generator method gave a value."""

    def lost(self, death: Death, verdict: Verdict) -> None:
        """No answer will come."""


class Partner(Caller, Protocol):
    """Who waits for the answer to one of several calls that were made together."""

    def returned(self, callers: Sequence[Caller | None], values: Sequence[object]) -> None:
        """These calls, of whom this is one, have given plain values; None in place of one that is over.

        On any thread, and once more if an interrupt cut it short.
        """


class Party(Protocol):
    """Who can be called: a process, or a light actor in one. See `Peer`."""

    address: Address
    death: Death | None

    @property
    def roots(self) -> str:
        """What the ids of a trace that a call begins follow from, beside its number; empty where it has to be told.

        See `actors.traceids.of_call`.
        """

    def call(self, target: str, method: str, payload: Payload, caller: Caller, terms: Terms = PLAIN) -> int:
        """Sends a call."""

    def numbers(self, count: int) -> tuple[int, ...]:
        """Returns numbers for calls to come."""

    def call_together(  # noqa: PLR0917 - as `call`
        self, numbers: tuple[int, ...], target: str, method: str, payload: Payload, callers: Sequence[Caller],
        terms: Terms = PLAIN,
    ) -> None:  # fmt: skip
        """Sends calls of one method in one message; see `actors.messages.Calls`."""

    def credit(self, number: int, upto: int) -> None:
        """Lets a stream yield up to ``upto`` items in all."""

    def cancel(self, number: int, *, force: bool = False, recursive: bool = True) -> None:
        """Says that the answer is no longer wanted."""

    def when_dead(self, watcher: Callable[[Death], None]) -> None:
        """Calls ``watcher`` when it is known to be gone, now if it is. Only on the I/O loop."""

    def lead(self, done: Callable[[], bool], seconds: float) -> None:
        """Reads on this thread what comes from there, until ``done``; see `actors.transport.link.QuickLink`."""


class Peer:
    """Calls to one process, answers from it.

    ``call`` and ``post`` may be used from any thread. When the process is known to be gone, every open call is told,
    and so is each later one.

    Attributes:
        minor: how far the process knows what was added to the protocol, see `actors.version`; 0 until it was met.
        roots: see `Party`.
        linked: whether a connection is up now.
        on_link: told on the I/O loop whenever that changes.
    """

    def __init__(
        self,
        address: Address,
        me: str,
        dialer: Dialer,
        loop: asyncio.AbstractEventLoop,
        autopsy: Callable[[Death], Awaitable[Death]] | None = None,
        *,
        vouched: Callable[[], Awaitable[bool]] | None = None,
        passage: Passage | None = None,
        arena: Arena | None = None,
        keep: Callable[[str, int, Payload], None] = lambda *_: None,
    ) -> None:
        """Starts dialling; must be made on the I/O loop.

        Args:
            address: where the process is.
            me: id of this process.
            dialer: opens links.
            loop: the I/O loop.
            autopsy: finds out more about a death, from the node that hosted the process.
            vouched: whether the node that hosts the process vouches that it lives, and is only too busy to answer.
            passage: counts the references inside what is sent; None where there are none.
            arena: memory that this process shares with others of its host; None where it shares none.
            keep: takes the state of an actor that came with a reply, and its number; called on any thread.
        """
        self._keep = keep
        self.address = address
        self.death: Death | None = None
        self.dead = asyncio.Event()
        self._me = me
        self._session = new_id("session")
        self._dialer = dialer
        self._loop = loop
        self._autopsy = autopsy
        self._vouched = vouched
        self._watchers: list[Callable[[Death], None]] = []
        self._numbers = count(1)
        self._calls: dict[int, Caller] = {}
        near = arena is not None and address.host == host_key() and address.arena == arena.key
        self._arena = arena if near else None
        self._conversation = Conversation(
            loop, self._deliver, self._open_bulk, passage, self._arena, anywhere=self._anywhere
        )
        self._bulk: asyncio.Task[None] | None = None
        self._met = False  # a link has been up
        self._said = -1  # how much, when that was asked last; see `rests`
        self.minor = 0
        self.roots = ""
        self.linked = False
        self.on_link: Callable[[bool], None] | None = None
        self._control = loop.create_task(self._keep_up(self._conversation.control, "control"))

    def call(self, target: str, method: str, payload: Payload, caller: Caller, terms: Terms = PLAIN) -> int:
        """Sends a call; ``caller`` hears how it went. Returns the call's number, for `cancel` and `credit`."""
        number = next(self._numbers)
        self._calls[number] = caller
        self._conversation.post(Call(number, target, method, payload, terms))
        if self.death is not None:
            self._loop.call_soon_threadsafe(self._tell, number, self.death)
        return number

    def numbers(self, count: int) -> tuple[int, ...]:
        """Returns numbers for calls to come, for `call_together`."""
        return tuple(islice(self._numbers, count))

    def call_together(  # noqa: PLR0917 - as `call`
        self, numbers: tuple[int, ...], target: str, method: str, payload: Payload, callers: Sequence[Caller],
        terms: Terms = PLAIN,
    ) -> None:  # fmt: skip
        """Sends calls of one method in one message; each of ``callers`` hears how its own went."""
        self._calls.update(zip(numbers, callers, strict=True))
        self._conversation.post(Calls(numbers, target, method, payload, terms))
        if self.death is not None:
            for number in numbers:
                self._loop.call_soon_threadsafe(self._tell, number, self.death)

    def post(self, message: Message, *, at_once: bool = False) -> None:
        """Sends a message that has no answer; ``at_once``, see `Lane.post`."""
        if self.death is None:
            self._conversation.post(message, at_once=at_once)

    def credit(self, number: int, upto: int) -> None:
        """Lets a stream yield up to ``upto`` items in all."""
        self.post(Credit(number, upto))

    def cancel(self, number: int, *, force: bool = False, recursive: bool = True) -> None:
        """Says that the answer is no longer wanted; see `Cancel`."""
        self.post(Cancel(number, force, recursive))

    def when_dead(self, watcher: Callable[[Death], None]) -> None:
        """Calls ``watcher`` when the process is known to be gone, now if it is. Only on the I/O loop."""
        if self.death is not None:
            watcher(self.death)
        else:
            self._watchers.append(watcher)

    def _deliver(self, message: Message) -> None:
        if isinstance(message, Reply):
            if message.outcome is _KEPT:
                message = self._unwrapped(message)
            caller = self._calls.get(message.number)
            if caller is not None:
                caller.replied(message)
                self._calls.pop(message.number, None)  # afterwards: an interrupt may bring the message again
        elif isinstance(message, Replies):
            assert isinstance(message.payload, Payload)
            if message.payload.pickle:
                self._returned(message.numbers, loads(message.payload))
                return
            for number, pickle in zip(message.numbers, message.payload.buffers, strict=True):
                caller = self._calls.pop(number, None)
                if caller is not None:
                    caller.replied(Reply(number, Outcome.VALUE, Payload(bytes(pickle))))
        elif isinstance(message, Item):
            caller = self._calls.get(message.number)
            if caller is not None:
                caller.yielded(message)

    def _returned(self, numbers: tuple[int, ...], values: list[Any]) -> None:
        if len(values) != len(numbers):
            raise ValueError(f"{len(numbers)} replies came with {len(values)} values")
        callers = [self._calls.get(number) for number in numbers]
        first = next((caller for caller in callers if caller is not None), None)
        if first is not None:
            if not hasattr(
                first, "returned"
            ):  # isinstance with a protocol takes Python 3.11 a quarter of a millisecond
                raise ValueError(f"call {numbers[0]} was answered as one of several, and was made alone")
            cast("Partner", first).returned(callers, values)
        for number in numbers:  # afterwards, as above
            self._calls.pop(number, None)

    def _unwrapped(self, reply: Reply) -> Reply:
        """Has the state kept that a reply brings, before anybody sees its value."""
        assert isinstance(reply.payload, Payload)
        actor, number, state = map(bytes, reply.payload.buffers)
        self._keep(actor.decode(), int(number), Payload(state))
        return Reply(reply.number, Outcome.VALUE, Payload(reply.payload.pickle))

    def _anywhere(self, message: Message) -> bool:
        if isinstance(message, Replies):
            return isinstance(message.payload, Payload) and bool(message.payload.pickle)
        if not isinstance(message, Reply) or (message.outcome is not VALUE and message.outcome is not _KEPT):
            return False
        caller = self._calls.get(message.number)
        return caller is None or caller.anywhere

    def lead(self, done: Callable[[], bool], seconds: float) -> None:
        """See `Party`."""
        self._conversation.control.lead(done, seconds)

    def _open_bulk(self) -> None:
        if self._bulk is None and self.death is None:
            self._bulk = self._loop.create_task(self._keep_up(self._conversation.bulk, "bulk"))

    async def _keep_up(self, lane: Lane, name: str) -> None:
        try:
            death = await self._stay_up(lane, name)
        except Exception as error:  # a fault of ours; whoever waits for an answer shall not wait for ever
            log.exception("the %s lane to %s failed", name, self.address.process)
            death = Death(f"the connection to it failed in a way it should not: {error!r}")
        await self._died(death)

    async def _stay_up(self, lane: Lane, name: str) -> Death:
        """Carries the lane over link after link until the other side is known to be gone."""
        verdict_at: float | None = None  # set while it is silent
        last: Exception | None = None  # what the last try met that was not cut short by the verdict
        while True:
            if verdict_at is None:
                verdict_at = self._loop.time() + RESUME_SECONDS
            try:
                # A try that is under way then is not waited for, unless the process is known to be only busy.
                async with asyncio.timeout_at(verdict_at if self._loop.time() < verdict_at else None):
                    link, welcome = await self._connect(lane, name)
            except GoneError as error:
                return Death(str(error), error.node_too)
            except (
                UnreachableError,
                LinkLostError,
                OSError,
            ) as error:  # OSError: this process has run out of something
                last = error if last is None or type(error) is not TimeoutError else last
                if self._loop.time() >= verdict_at and not (isinstance(last, MuteError) and await self._lives()):
                    return Death(f"it was silent for {RESUME_SECONDS:g} s ({last})", silent=True)
                await asyncio.sleep(REDIAL_SECONDS)
                continue
            verdict_at = last = None
            self._met = True
            self.minor = welcome.minor
            self.roots = f"{self._me} {self._session}" if self.minor >= ROOTS else ""
            begun = self._loop.time()
            if name == "control":
                self._link_is(True)
            try:
                await lane.run(link, welcome.received)
            finally:
                if name == "control":
                    self._link_is(False)
            if lane.goodbye is not None:
                return Death(lane.goodbye.reason)
            if self._loop.time() - begun < REDIAL_SECONDS:  # one that drops at once would be dialled without end
                await asyncio.sleep(REDIAL_SECONDS)

    def _link_is(self, up: bool) -> None:
        self.linked = up
        if self.on_link is not None:
            self.on_link(up)

    async def _lives(self) -> bool:
        """Whether a process that does not answer is known to live: one whose method holds the GIL is only busy."""
        try:
            return self._vouched is not None and await self._vouched()
        except Exception:
            log.exception("whether %s lives could not be found out", self.address.process)
            return False

    async def _connect(self, lane: Lane, name: str) -> tuple[RawLink, pb.Hello]:
        link = await self._dialer.dial(self.address, name)
        try:
            hello = pb.Hello(
                protocol=PROTOCOL,
                minor=MINOR,
                session=self._session,
                lane=name,
                source=self._me,
                target=self.address.process,
                received=lane.session.received,
                resumed=self._met,
                package_version=__version__,
                python_version="{}.{}.{}".format(*sys.version_info[:3]),
                arena=self._arena.key if self._arena is not None else "",
            )
            await link.write(pb.Frame(hello=hello))
            async with asyncio.timeout(HELLO_SECONDS):
                answer = await link.read()
            if answer is None:
                raise LinkLostError("the connection ended before the other side said hello")
            if answer.HasField("goodbye"):
                raise GoneError(answer.goodbye.reason)
            if answer.hello.source != self.address.process:
                raise GoneError("another process answers at its address")
        except DecodeError as error:
            refused("a connection that was answered by no frame", error)
            await link.close()
            raise LinkLostError("it answered with what is no frame") from error
        except TimeoutError as error:
            await link.close()
            raise MuteError("it accepted the connection and said nothing") from error
        except BaseException:
            await link.close()
            raise
        return link, answer.hello

    async def _died(self, death: Death) -> None:
        if self._autopsy is not None:
            try:
                death = await self._autopsy(death)
            except Exception:
                log.exception("how %s ended could not be found out", self.address.process)
        if self.death is not None:
            return
        self.death = death
        self.dead.set()
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher(death)
        unsent: set[int] = set()
        for message in self._conversation.control.session.never_written():
            if isinstance(message, Call):
                unsent.add(message.number)
            elif isinstance(message, Calls):
                unsent.update(message.numbers)
        for number in list(self._calls):
            self._tell(number, death, Verdict.NEVER_STARTED if number in unsent else Verdict.MAY_HAVE_RUN)
        self._conversation.close()
        for task in (self._control, self._bulk):
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _tell(self, number: int, death: Death, verdict: Verdict = Verdict.NEVER_STARTED) -> None:
        caller = self._calls.pop(number, None)
        if caller is not None:
            caller.lost(death, verdict)

    async def cut(self, death: Death) -> None:
        """Ends the conversation without a word: the other side is trusted no longer."""
        self._autopsy = None
        await self._died(death)

    def rests(self) -> bool:
        """Whether nothing was said since this was asked last, nothing is open, and nobody waits for its end."""
        said, self._said = self._said, self._conversation.control.session.sent
        silent = said == self._said and self._conversation.idle and self.linked
        return silent and not self._calls and not self._watchers and self.death is None

    async def drained(self) -> None:
        """Waits until the other side has all that was posted, or is gone."""
        await self._conversation.drained()

    async def close(self, reason: str) -> None:
        """Ends the conversation; open calls are lost."""
        await self._conversation.farewell(reason)
        current = asyncio.current_task()
        tasks = [task for task in (self._control, self._bulk) if task is not None and task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._autopsy = None
        await self._died(Death(reason))
