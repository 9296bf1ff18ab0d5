"""The acceptor: this process's side of conversations that others began."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Protocol

from actors._wire import distributed_comm_pb2 as pb
from actors.refusals import refused
from actors.transport.answers import Answers
from actors.transport.conversation import Conversation
from actors.transport.link import LinkLostError
from actors.transport.standstill import Standstill
from actors.version import MINOR, PROTOCOL, __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.arena import Arena
    from actors.holdings import Passage
    from actors.messages import Message
    from actors.transport.bell import Bell
    from actors.transport.link import Link, RawLink

# A caller that is silent for longer is taken for gone. It waits for 30 s itself, and either side may notice a cut up
# to 5 s before the other: so no call of its starts after it has been told that the call failed.
RESUME_SECONDS = 20.0


class Receiver(Protocol):
    """What becomes of messages that arrive. Called on the I/O loop; must be quick and must not raise."""

    def received(self, message: Message, visitor: Visitor) -> None:
        """A message came; answers go to ``visitor.post``."""

    def anywhere(self, message: Message) -> bool:
        """Whether `received` may be called on any thread with this message."""

    def link_lost(self, visitor: Visitor) -> None:
        """The visitor's connection broke; it may come back."""

    def gone(self, visitor: Visitor) -> None:
        """The visitor will not come back."""


class Visitor:
    """The process at the other end of a conversation that it began.

    Attributes:
        process: its id.
        session: id of the conversation.
        minor: how far it knows what was added to the protocol, see `actors.version`.
        node: id of the device as its certificate proves it; None on this host.
        arena: memory that it shares with this process; None where they share none.
        together: takes the answers to calls that came together.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        hello: pb.Hello,
        node: str | None,
        receiver: Receiver,
        loop: asyncio.AbstractEventLoop,
        passage: Passage | None = None,
        arena: Arena | None = None,
        age: Callable[[], int] = lambda: 0,
        landing: Arena | None = None,
    ) -> None:
        self.process: str = hello.source
        self.session: str = hello.session
        self.minor: int = hello.minor
        self.node = node
        self.arena = arena
        self.conversation = Conversation(
            loop, self._deliver, lambda: None, passage, arena,
            anywhere=receiver.anywhere, age=age, landing=landing,
        )  # fmt: skip
        self.expiry: asyncio.TimerHandle | None = None
        self.together = Answers(self, loop)
        self._receiver = receiver

    def _deliver(self, message: Message) -> None:
        self._receiver.received(message, self)

    def post(self, message: Message) -> None:
        """Sends a message to the visitor, from any thread."""
        self.conversation.post(message)

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell) -> None:
        """Reads on this thread what comes from the visitor; see `actors.transport.link.QuickLink`."""
        self.conversation.control.lead(done, seconds, bell)


class Acceptor:
    """Keeps the visitors of this process and lets them resume after a lost connection.

    Args:
        me: id of this process.
        receiver: gets what arrives.
        loop: the I/O loop.
        new_passage: makes what counts the references inside answers; None where there are none.
        arena: memory that this process shares with others of its host; None where it shares none.

    Attributes:
        arena: see above.
        standstill: whether this process was stopped.
    """

    def __init__(
        self,
        me: str,
        receiver: Receiver,
        loop: asyncio.AbstractEventLoop,
        new_passage: Callable[[], Passage] | None = None,
        arena: Arena | None = None,
    ) -> None:
        self._me = me
        self._receiver = receiver
        self._loop = loop
        self._new_passage = new_passage
        self.arena = arena
        self._visitors: dict[str, Visitor] = {}
        self.has_lost = False  # a visitor has never had all its answers
        self.standstill = Standstill(loop)

    async def serve(self, link: RawLink, hello: pb.Hello) -> None:
        """Carries a visitor's session over ``link``, whose hello has been read, until the link ends."""
        near = self.arena is not None and link.node is None and hello.arena == self.arena.key
        arena = self.arena if near else None
        refusal = self._refuse(hello, link.node, arena)
        if refusal is not None:
            refused("a hello of another protocol" if refusal.code == 3 else "a hello of a session that is not its own")
            await say_goodbye(link, refusal)
            return
        visitor = self._visitors.get(hello.session)
        if visitor is None:
            passage = self._new_passage() if self._new_passage is not None else None
            relayed = self.arena is not None and link.node is None and hello.landing == self.arena.key
            landing = self.arena if relayed else None
            visitor = Visitor(
                hello, link.node, self._receiver, self._loop, passage, arena, self.standstill.age, landing
            )
            self._visitors[hello.session] = visitor
        if hello.lane != "bulk" and visitor.expiry is not None:
            visitor.expiry.cancel()
            visitor.expiry = None
        lane = visitor.conversation.bulk if hello.lane == "bulk" else visitor.conversation.control
        welcome = pb.Frame(
            hello=pb.Hello(
                protocol=PROTOCOL,
                minor=MINOR,
                session=hello.session,
                lane=hello.lane,
                source=self._me,
                target=hello.source,
                received=lane.session.received,
                package_version=__version__,
                python_version="{}.{}.{}".format(*sys.version_info[:3]),
            )
        )
        try:
            await lane.run(link, hello.received, welcome)
        finally:  # where the other side has died, gRPC may cancel this
            control = visitor.conversation.control
            if not control.linked and (hello.lane != "bulk" or visitor.expiry is None):
                self._left(visitor)

    def _left(self, visitor: Visitor) -> None:
        conversation = visitor.conversation
        if conversation.control.goodbye is not None or conversation.bulk.goodbye is not None:
            self._forget(visitor)
        elif visitor.session in self._visitors:
            self._receiver.link_lost(visitor)
            visitor.expiry = self._loop.call_later(RESUME_SECONDS, self._forget, visitor)

    def _refuse(self, hello: pb.Hello, node: str | None, arena: Arena | None) -> pb.Goodbye | None:
        if hello.protocol != PROTOCOL:
            return pb.Goodbye(
                code=3,
                reason=f"it speaks protocol {PROTOCOL} (mlx-actors {__version__}) and the caller {hello.protocol} "
                f"(mlx-actors {hello.package_version}): install the same version on both",
            )
        known = self._visitors.get(hello.session)
        if known is None and hello.resumed:
            return pb.Goodbye(code=2, reason="it has given the session up after a long silence")
        if known is not None and (known.process, known.node, known.arena) != (hello.source, node, arena):
            return pb.Goodbye(code=2, reason="the session belongs to another process")
        return None

    def knows(self, visitor: Visitor) -> bool:
        """Whether this visitor is still expected: connected, or silent for not too long."""
        return visitor.session in self._visitors

    def process_of(self, session: str) -> str:
        """Returns whose session this is; empty for one that is gone."""
        visitor = self._visitors.get(session)
        return visitor.process if visitor is not None else ""

    def expire(self, process: str) -> None:
        """Forgets all visits of a process that is known to have ended."""
        for visitor in [v for v in self._visitors.values() if v.process == process]:
            self._forget(visitor)

    def expel(self, node: str) -> None:
        """Forgets all visits from a device that is trusted no longer."""
        for visitor in [v for v in self._visitors.values() if v.node == node]:
            self._forget(visitor)

    def _forget(self, visitor: Visitor) -> None:
        if self._visitors.pop(visitor.session, None) is None:
            return
        if visitor.expiry is not None:
            visitor.expiry.cancel()
        self.has_lost = self.has_lost or not visitor.conversation.idle
        visitor.conversation.close()
        self._receiver.gone(visitor)

    @property
    def idle(self) -> bool:
        """Whether every visitor has all that was posted to it."""
        return all(visitor.conversation.idle for visitor in self._visitors.values())

    async def flushed(self) -> None:
        """Waits until every visitor that is connected has all its answers."""
        for visitor in self._visitors.values():
            visitor.together.flush()
        linked = [v for v in self._visitors.values() if v.conversation.control.linked]
        await asyncio.gather(*(visitor.conversation.drained() for visitor in linked))

    async def close(self, reason: str) -> None:
        """Says goodbye to every visitor."""
        visitors = list(self._visitors.values())
        await asyncio.gather(*(visitor.conversation.farewell(reason) for visitor in visitors))
        for visitor in visitors:
            if visitor.expiry is not None:
                visitor.expiry.cancel()
            visitor.conversation.close()
        self._visitors.clear()
        self.standstill.close()


async def say_goodbye(link: Link, goodbye: pb.Goodbye) -> None:
    """Ends a link with a reason, as far as it still carries anything."""
    with contextlib.suppress(LinkLostError):
        await link.write(pb.Frame(goodbye=goodbye))
    await link.close()
