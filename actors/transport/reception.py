"""The reception: reads the first frame of each link that comes in, and takes it to whom it is meant for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from actors._wire import distributed_comm_pb2 as pb
from actors.refusals import refused
from actors.transport.acceptor import say_goodbye
from actors.transport.inquiry import introduction
from actors.transport.landing import Landing
from actors.transport.link import GoneError, LinkLostError, UnreachableError
from actors.transport.relay import relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.transport.acceptor import Acceptor
    from actors.transport.link import Dialer, RawLink

HELLO_SECONDS = 5.0


class Reception:
    """Takes links to this process's acceptor and, at a node, relays them to the processes it hosts.

    Args:
        me: id of this process.
        acceptor: takes the links that are meant for this process.
    """

    def __init__(self, me: str, acceptor: Acceptor) -> None:
        self._me = me
        self._acceptor = acceptor
        self._route: Callable[[str], Address | None] | None = None
        self._dialer: Dialer | None = None

    def relay_to(self, route: Callable[[str], Address | None], dialer: Dialer) -> None:
        """Passes links that are meant for another process of this host on to it.

        Args:
            route: gives the address of a process, None for one that is not here.
            dialer: opens the way there.
        """
        self._route = route
        self._dialer = dialer

    async def greet(self, link: RawLink) -> None:
        """Serves a link that has just come in, until it ends."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                first = await link.read_bytes()
        except TimeoutError:
            refused("a connection that said nothing")
            return
        if first is None:
            return
        try:
            frame = pb.Frame.FromString(first)
        except DecodeError as error:
            refused("a connection that began with no frame", error)
            return
        if not frame.HasField("hello"):
            refused("a connection that began with no hello")
            return
        hello = frame.hello
        if not hello.target:  # it asks who is here
            with contextlib.suppress(LinkLostError):
                await link.write(introduction(self._me))
            return
        if hello.target == self._me:
            await self._acceptor.serve(link, hello)
            return
        address = self._route(hello.target) if self._route is not None else None
        if address is None or self._dialer is None:
            refused("a hello to a process that is not here", hello.target)
            await say_goodbye(link, pb.Goodbye(code=1, reason="its process has ended"))
            return
        if link.node is not None:
            # Who comes through the door shares no memory, whatever it says; this node does.
            hello.arena = ""
            hello.landing = self._acceptor.arena.key if self._acceptor.arena is not None else ""
            first = frame.SerializeToString()
        await self._relay(link, first, address, hello.lane)

    async def _relay(self, link: RawLink, first: bytes, address: Address, lane: str) -> None:
        assert self._dialer is not None
        try:
            onward = await self._dialer.dial(address, lane)
        except GoneError as error:
            await say_goodbye(link, pb.Goodbye(code=1, reason=str(error)))
            return
        except UnreachableError:
            return
        try:
            arena = self._acceptor.arena if lane == "bulk" and link.node is not None else None
            await onward.write_bytes(first)
            await relay(link, onward, self._acceptor.standstill.age, Landing(arena) if arena is not None else None)
        except LinkLostError:
            pass
        finally:
            await onward.close()
