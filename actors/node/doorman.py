"""The doorman: who has knocked at a node's door and was refused, and no more of them at once than the node can bear.

gRPC refuses strangers in the TLS handshake and tells nobody. It asks for its certificates at each connection, though,
and that is when this looks who is there; who has not proved by the handshake's end that it belongs was refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

log = logging.getLogger(__name__)

JUDGE_SECONDS = 10.0
"""After which gRPC has hung up on whoever has not ended the handshake, and a member is known by its address."""

LOOK_SECONDS = 0.25 if sys.platform == "linux" else 1.0
"""At most, between two looks at the connections."""

REST = 20
"""Times as long as a look took is waited before the next one, up to `LOOK_SECONDS`: looking is not free."""

AWAY_SECONDS = 0.5

MOST_UNPROVED = 32
"""Connections that one address may have open without having proved anything."""

SILENCE_SECONDS = 600.0
"""After an address was told of, before it is again."""

MOST_ADDRESSES = 1000

_LISTENS = "0A"

Peer = tuple[str, int]


class Doorman:
    """Watches one door.

    Args:
        loop: the I/O loop.
        friends: the IP addresses of members, and their names. A member looks whether the door is there before it comes
            in by it, so one that is let in about then was not refused.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, friends: Callable[[], dict[str, str]]) -> None:
        self.port: int | None = None
        self._loop = loop
        self._friends = friends
        self._looked = self._sent_away = 0.0
        self._rest = 0.0  # after the last look
        self._later: asyncio.TimerHandle | None = None
        self._proved: dict[Peer, float] = {}
        self._waiting: dict[Peer, float] = {}
        self._told: dict[str, float] = {}

    def knocked(self) -> None:
        """Somebody connects. On a thread of gRPC's, which must not be kept, nor meet an error."""
        if self.port is None:
            return
        if time.monotonic() - self._looked < self._rest:  # there are many at once: the last of them are seen then
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._look_later)
            return
        self._look()

    def _look_later(self) -> None:
        if self._later is None:
            self._later = self._loop.call_later(2 * self._rest, self._look_now)

    def _look_now(self) -> None:
        self._later = None
        self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        with contextlib.suppress(psutil.Error, OSError, ValueError, RuntimeError):
            assert self.port is not None
            here = _connected(self.port)
            self._rest = min(LOOK_SECONDS, REST * (time.monotonic() - self._looked))
            unproved = [peer for peer in here if peer not in self._proved]
            counted = Counter(host for host, _ in unproved)
            many = {host for host, count in counted.items() if count > MOST_UNPROVED}
            if many and time.monotonic() - self._sent_away > AWAY_SECONDS:
                self._sent_away = time.monotonic()
                self._send_away({peer for peer in unproved if peer[0] in many})
            self._loop.call_soon_threadsafe(self._seen, here)

    def _send_away(self, unproved: set[Peer]) -> None:
        """Hangs up on those of whom there are too many."""
        found = [c for c in psutil.Process().net_connections("tcp") if c.laddr and c.laddr[1] == self.port and c.raddr]
        here = {_peer(*c.raddr[:2]): c.fd for c in found}
        left: Counter[str] = Counter()
        for peer in unproved & here.keys():
            left[peer[0]] += 1
            if left[peer[0]] > MOST_UNPROVED:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(here[peer])) as theirs:
                    if _peer(*theirs.getpeername()[:2]) == peer:  # the number may be another's by now
                        theirs.shutdown(socket.SHUT_RDWR)

    def _seen(self, peers: list[Peer]) -> None:
        now = self._loop.time()
        present = set(peers)
        self._proved = {peer: at for peer, at in self._proved.items() if peer in present or now - at < 60}
        for peer in peers:
            known = peer in self._proved or peer in self._waiting
            if not known and len(self._waiting) < MOST_ADDRESSES:
                self._waiting[peer] = now
                self._loop.call_later(JUDGE_SECONDS, self._judge, peer)

    def proved(self, peer: str) -> None:
        """A stream has come in from here: ``"ipv4:HOST:PORT"``, as gRPC writes it. On the I/O loop."""
        kind, _, rest = peer.partition(":")
        host, _, port = rest.rpartition(":")
        if kind in {"ipv4", "ipv6"} and port.isdigit():
            self._proved[_peer(host.replace("%25", "%"), int(port))] = self._loop.time()

    def _judge(self, peer: Peer) -> None:
        since = self._waiting.pop(peer)
        host, now = peer[0], self._loop.time()
        if peer in self._proved:
            return
        friends = self._friends()
        name = friends.get(host)
        if name is not None and any(
            friends.get(other) == name and at >= since for (other, _), at in self._proved.items()
        ):
            return
        if now - self._told.get(host, -SILENCE_SECONDS) < SILENCE_SECONDS or len(self._told) >= MOST_ADDRESSES:
            return
        self._told[host] = now
        if name is None:
            log.warning(
                "a connection from %s was refused at the door: it did not show that it belongs to the cluster. If it "
                "is a device of yours, run `actors invite` here and `actors join CODE` there; if not, find out whose "
                "address that is. More of the same within %g minutes are not told of",
                host, SILENCE_SECONDS / 60,
            )  # fmt: skip
        else:
            log.info(
                "a connection from %s, where %s is, did not get through the door: it did not show the key of a member. "
                "`actors doctor` there looks like this too; if nobody runs it, find out which program there tries, or "
                "shut the device out by `actors revoke %s`. More of the same within %g minutes are not told of",
                host, name, name, SILENCE_SECONDS / 60,
            )  # fmt: skip


def _connected(port: int) -> list[Peer]:
    """Who is connected to a port of this process's network."""
    if sys.platform != "linux":
        found = psutil.Process().net_connections("tcp")
        return [_peer(*c.raddr[:2]) for c in found if c.laddr and c.laddr[1] == port and c.raddr]
    peers, suffix = [], f":{port:04X}"
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state, *_ = line.split()
            if local.endswith(suffix) and state != _LISTENS:
                host, _, at = remote.partition(":")
                words = (int(host[start : start + 8], 16) for start in range(0, len(host), 8))
                packed = b"".join(struct.pack("=I", word) for word in words)
                family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
                peers.append(_peer(socket.inet_ntop(family, packed), int(at, 16)))
    return peers


def _peer(host: str, port: int) -> Peer:
    bare = host.strip("[]").removeprefix("::ffff:")
    return bare.partition("%")[0], port
