"""Asks who is behind a door: a node that was met before may have been started anew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors._wire import distributed_comm_pb2 as pb
from actors.transport.link import INQUIRY, LinkLostError
from actors.version import PROTOCOL, __version__

if TYPE_CHECKING:
    from actors.address import Address
    from actors.transport.link import Dialer

ANSWER_SECONDS = 5.0


async def process_at(where: Address, dialer: Dialer) -> str:
    """Returns the id of the node's process at an address; its key is proved by the connection.

    Raises:
        GoneError: nothing listens there.
        UnreachableError: no answer.
        LinkLostError: the connection was refused or lost.
        TimeoutError: it said nothing.
    """
    link = await dialer.dial(where, INQUIRY)
    try:
        await link.write(pb.Frame(hello=pb.Hello(protocol=PROTOCOL, package_version=__version__)))
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await link.read()
        if answer is None or not answer.hello.source:
            raise LinkLostError("it does not say who it is")
        return answer.hello.source
    finally:
        await link.close()


def introduction(me: str) -> pb.Frame:
    """What is answered to one who asks."""
    return pb.Frame(hello=pb.Hello(protocol=PROTOCOL, source=me, package_version=__version__))
