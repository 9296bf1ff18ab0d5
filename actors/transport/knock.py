"""Knocking: connects and hangs up, which tells a process that has ended from one that is silent."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

from actors.transport.link import GoneError, UnreachableError

DIAL_SECONDS = 5.0
KNOCK_SECONDS = 2.0
"""After which a connection is tried afresh: the system itself waits longer and longer between its own tries."""


async def probe_socket(path: str) -> None:
    """Looks whether a process listens on its Unix socket.

    Raises:
        GoneError: it has ended.
        UnreachableError: it cannot be told.
    """
    try:
        await _knock(socket.AF_UNIX, path)
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise GoneError("its process has ended") from error
    except OSError as error:
        raise UnreachableError(f"{path}: {error.strerror or error}") from error


async def probe_door(door: str) -> None:
    """Looks whether a node listens at ``"HOST:PORT"``.

    Raises:
        GoneError: it has ended.
        UnreachableError: it cannot be told.
    """
    host, _, port = door.rpartition(":")
    host, _, scope = host.strip("[]").partition("%")
    where: tuple[Any, ...] = (host, int(port))
    try:
        if scope:  # asyncio would look a scoped address up on a thread
            where = (host, int(port), 0, socket.if_nametoindex(scope))
        await _knock(socket.AF_INET6 if ":" in host else socket.AF_INET, where)
    except ConnectionRefusedError as error:
        raise GoneError(f"nothing listens at {door}: its node has ended", node_too=True) from error
    except OSError as error:
        # A host that has been switched off answers nothing, or its router does: that is silence.
        name = errno.errorcode.get(error.errno or 0, "")
        raise UnreachableError(f"{door}: {name} {error}") from error


def target(door: str) -> str:
    """Returns a door as gRPC names it: a link-local address with its interface is written as in a URL."""
    return f"ipv6:{door.replace('%', '%25')}" if "%" in door else door


async def _knock(family: socket.AddressFamily, where: Any) -> None:
    """Connects and hangs up. Not on a thread: there may be none to be had while the program ends."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DIAL_SECONDS
    while True:
        left = until - loop.time()
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            try:
                async with asyncio.timeout(min(left, KNOCK_SECONDS)):  # TimeoutError is an OSError
                    return await loop.sock_connect(probe, where)
            except TimeoutError:
                if left <= KNOCK_SECONDS:
                    raise
