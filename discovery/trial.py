"""A trial of this machine's own multicast: does what is sent from an interface to the group come in again?"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass

from . import interfaces
from .question import GROUP

HEARD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of the trial on one interface.

    Attributes:
        interface: Its name.
        address: Its IPv4 address.
        seconds: After which it was heard; None for never, within one second.
        error: With which it could not be sent.
    """

    interface: str
    address: str
    seconds: float | None = None
    error: OSError | None = None


def own_multicast() -> list[Heard]:
    """Try each IPv4 address of this machine, except for the loopback ones.

    Raises:
        DiscoveryError: The system does not list its interfaces.
    """
    mine = sorted((name, ip) for name, ip in interfaces.own() if ":" not in ip and not ip.startswith("127."))
    return [_try(name, address) for name, address in mine]


def _try(name: str, address: str) -> Heard:
    # A question of no type that anybody would answer; its number tells it from others'.
    number = secrets.token_bytes(2)
    question = number + b"\0\0\0\1\0\0\0\0\0\0" + b"\x0bactors-test\5local\0" + b"\0\x10\0\1"
    try:
        with _socket(address) as sock:
            begun = time.monotonic()
            sock.sendto(question, GROUP)
            while (left := begun + HEARD_SECONDS - time.monotonic()) > 0:
                if select.select([sock], [], [], left)[0] and sock.recv(9000) == question:
                    return Heard(name, address, time.monotonic() - begun)
    except OSError as error:
        return Heard(name, address, error=error)
    return Heard(name, address)


def _socket(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        sock.bind(("", GROUP[1]))
        membership = struct.pack("4s4s", socket.inet_aton(GROUP[0]), socket.inet_aton(address))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError:
        sock.close()
        raise
    return sock
