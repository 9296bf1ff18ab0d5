"""What comes of a knock at a door: how a firewall, a sleeping host and a wrong address differ. Plain sockets."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
import time
from dataclasses import dataclass
from enum import Enum

KNOCK_SECONDS = 4.5
"""Longer than the three seconds in which a system gives up to look for a host in its own network."""

_AT_ONCE_SECONDS = 0.5
_MACOS_NO_ROUTE = 65
"""EHOSTUNREACH there, with which macOS also refuses a program that may not use the local network."""


class Way(Enum):
    """How a door answers."""

    OPEN = "open"
    REFUSED = "refused"  # the host is there, and nothing listens
    SILENT = "silent"  # something drops the packets
    PROHIBITED = "prohibited"  # something on the way says no
    NOBODY = "nobody"  # no host with this address answers in its network
    NO_ROUTE = "no route"  # this machine knows no way there
    FORBIDDEN = "forbidden"  # this machine itself does not let it out
    PERMISSION = "permission"  # macOS has not let this program use the local network
    UNKNOWN_NAME = "unknown name"


@dataclass(frozen=True, slots=True)
class Knock:
    """One knock.

    Attributes:
        door: ``"HOST:PORT"``.
        way: what came of it.
        seconds: how long that took.
    """

    door: str
    way: Way
    seconds: float


def meaning(error: OSError, seconds: float, platform: str = sys.platform) -> Way:
    """Says what an error of connecting means.

    Args:
        error: of ``connect``.
        seconds: after which it came.
        platform: as `sys.platform` has it.
    """
    if isinstance(error, TimeoutError):
        return Way.SILENT
    if isinstance(error, socket.gaierror):
        return Way.UNKNOWN_NAME
    if platform == "darwin" and error.errno == _MACOS_NO_ROUTE:
        return Way.PERMISSION if seconds < _AT_ONCE_SECONDS else Way.NOBODY
    if error.errno == errno.ECONNREFUSED:
        return Way.REFUSED
    if error.errno in {errno.EPERM, errno.EACCES}:
        return Way.FORBIDDEN
    if error.errno in {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.ENODEV}:
        return Way.NO_ROUTE
    if error.errno == errno.EHOSTUNREACH:
        return Way.PROHIBITED if seconds < _AT_ONCE_SECONDS else Way.NOBODY
    return Way.SILENT


def knock(door: str, timeout: float = KNOCK_SECONDS) -> Knock:
    """Connects to ``"HOST:PORT"`` and hangs up."""
    host, port = split(door)
    begun = time.monotonic()
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        took = time.monotonic() - begun
        return Knock(door, meaning(error, took), took)
    return Knock(door, Way.OPEN, time.monotonic() - begun)


def split(door: str) -> tuple[str, int]:
    """Host and port of ``"HOST:PORT"`` or ``"[IPv6]:PORT"``."""
    host, _, port = door.rpartition(":")
    return host.strip("[]"), int(port)


def shown_at(door: str, timeout: float = KNOCK_SECONDS) -> str | None:
    """Returns the node id of whoever answers at ``"HOST:PORT"``; None where it shows no certificate of a device's.

    Nothing is proved to the other side, so this is an id only for a person's eyes.
    """
    from actors.certificate import node_id_of
    from actors.exceptions import AuthenticationError

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(split(door), timeout) as plain, context.wrap_socket(plain) as secure:
            shown = secure.getpeercert(binary_form=True)
        return node_id_of(ssl.DER_cert_to_PEM_cert(shown).encode()) if shown is not None else None
    except (OSError, AuthenticationError):
        return None
