"""Ask a question by multicast from ports of one's own, and hear the answers that come back to those ports.

Whoever asks from port 5353 is answered by multicast, at most once a second and with other programs listening on that
same port; whoever asks from another port is answered directly and at once (RFC 6762, section 6.7).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

GROUP = ("224.0.0.251", 5353)


class _Ear(asyncio.DatagramProtocol):
    def __init__(self, hear: Callable[[bytes], None]) -> None:
        self._hear = hear

    def datagram_received(self, data: bytes, addr: object) -> None:  # noqa: ARG002 - asyncio names it
        self._hear(data)

    def error_received(self, exc: Exception) -> None:
        """A network that is down is no error here: the caller asks again later."""


async def ask(question: bytes, addresses: Iterable[str], hear: Callable[[bytes], None], seconds: float) -> None:
    """Send a DNS message from each IPv4 address and hand over every datagram that is answered.

    Args:
        question: The message.
        addresses: This machine's own addresses; those of IPv6, and those just gone, are passed over.
        hear: Called with each datagram, from anybody and unchecked.
        seconds: How long to listen.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as open_endpoints:
        for address in addresses:
            if ":" in address:
                continue
            with contextlib.suppress(OSError):
                transport, _ = await loop.create_datagram_endpoint(lambda: _Ear(hear), sock=_socket(address))
                open_endpoints.callback(transport.close)
                transport.sendto(question, GROUP)
        await asyncio.sleep(seconds)


def _socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.bind((address, 0))
    except OSError:
        sock.close()
        raise
    return sock
