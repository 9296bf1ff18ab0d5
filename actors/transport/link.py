"""A link: one connection that carries frames both ways until it breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors._wire.distributed_comm_pb2 import Frame
    from actors.address import Address
    from actors.transport.bell import Bell


INQUIRY = "inquiry"
"""The lane of a link by which is only asked who is there."""


class Link(Protocol):
    """What a session rides on. Used from the I/O loop only."""

    node: str | None
    """Id of the device at the other end as its certificate proves it; None on this host's own sockets."""

    async def read(self) -> Frame | None:
        """Returns the next frame, or None when the link has ended or broken."""

    async def write(self, frame: Frame) -> None:
        """Hands a frame over; waits while the link is full.

        Raises:
            LinkLostError: the link has ended.
        """

    async def close(self) -> None:
        """Ends the link; the other side's read returns None."""


class RawLink(Link, Protocol):
    """A link whose frames can be passed on unread."""

    async def read_bytes(self) -> bytes | None:
        """Returns the next frame unparsed, or None at the end."""

    async def write_bytes(self, data: bytes) -> None:
        """Writes a frame that is already serialised.

        Raises:
            LinkLostError: the link has ended.
        """


class QuickLink(RawLink, Protocol):
    """A link that takes and gives frames without a task between."""

    def send(self, data: bytes) -> bool:
        """Hands a serialised frame over at once; returns whether there is room for more.

        Raises:
            LinkLostError: the link has ended.
        """

    def send_here(self, data: bytes) -> bool:
        """Hands a small frame over from any thread; returns whether the other side has it already, in its socket.

        Where it returns False, the frame goes out later, and the loop is to wait for room before more is sent.

        Raises:
            LinkLostError: the link has ended.
        """

    async def drained(self) -> None:
        """Waits until there is room.

        Raises:
            LinkLostError: the link has ended.
        """

    def receive(self, take: Callable[[bytes], None], take_here: Callable[[bytes], bool]) -> Awaitable[None]:
        """Gives each frame, unparsed, to ``take`` as it comes, those that wait first.

        Args:
            take: called on the loop.
            take_here: called by a thread that leads; returns False for a frame that only the loop can take.

        Returns:
            Done when the link has ended; raises what ``take`` has raised, after which nothing more is given.
        """

    def lead(self, done: Callable[[], bool], seconds: float, bell: Bell | None = None) -> None:
        """Reads on this thread, not the loop's, until ``done``; if another thread does so already, returns at once.

        What is awaited arrives with one waking of a thread instead of two. What comes for others meanwhile is taken
        in too; at a frame that only the loop can take, it goes back to the loop, with whatever follows.

        Args:
            done: whether what this thread waits for is there.
            seconds: how long at most: that something else may make it done is seen no sooner.
            bell: ends the wait when it is rung.
        """


def as_quick(link: RawLink) -> QuickLink | None:
    """Returns a link as a quick one; None where it is none.

    By one of its methods: ``isinstance`` with a protocol takes Python 3.11 a quarter of a millisecond.
    """
    return cast("QuickLink", link) if hasattr(link, "send_here") else None


class Dialer(Protocol):
    """Opens links."""

    async def dial(self, address: Address, lane: str) -> RawLink:
        """Opens a link to the process at ``address``.

        Raises:
            GoneError: nothing is there any more: the process, or its node, has ended.
            UnreachableError: no answer; it may still be there.
        """

    async def close(self) -> None:
        """Gives back what the dialer holds open."""


class LinkLostError(Exception):
    """The link broke; the session may go on over another one."""


class UnreachableError(Exception):
    """The other side did not answer. Silence is not death: it may come back."""


class MuteError(UnreachableError):
    """Somebody has taken the connection, and says nothing: it may be busy."""


class GoneError(Exception):
    """The other side has ended for certain.

    Attributes:
        node_too: whether the whole node is gone, not only the process.
    """

    def __init__(self, reason: str, *, node_too: bool = False) -> None:
        super().__init__(reason)
        self.node_too = node_too
