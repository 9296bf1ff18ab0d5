"""A twin: another device that has this one's key, as a copy of its disk has."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from actors import device
from actors.address import Address
from actors.transport.inquiry import process_at
from actors.transport.link import GoneError, LinkLostError, UnreachableError

if TYPE_CHECKING:
    from actors.node.members import Members
    from actors.process import Process
    from discovery import NodeRecord

log = logging.getLogger(__name__)

ASK_SECONDS = 4.0
MOST_LOOKED_AT = 100  # anybody may announce anything
PAUSE_SECONDS = 1.0  # a node that was started anew may still be announced as it was


class Twins:
    """Looks for nodes that show this device's key and are not this node. All of it runs on the I/O loop.

    Args:
        process: the node's.
        members: which keep what is wrong, for `actors doctor`.
    """

    def __init__(self, process: Process, members: Members) -> None:
        self._process = process
        self._members = members
        self._seen: set[str] = set()
        self._looks: set[asyncio.Task[None]] = set()

    def seen(self, record: NodeRecord) -> None:
        """Discovery shows a node of this device's id."""
        if record.boot in {"", self._process.id, *self._seen} or len(self._seen) >= MOST_LOOKED_AT:
            return
        self._seen.add(record.boot)
        look = self._process.loop.create_task(self._look(record))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)

    def close(self) -> None:
        """Looks no more."""
        for look in self._looks:
            look.cancel()

    async def _look(self, record: NodeRecord) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        me = self._members.me.info
        doors = tuple(device.at(host, record.port) for host in record.addresses)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                process = await process_at(Address("", "", "", me.id, doors), self._process.dialer)
        except (GoneError, UnreachableError, LinkLostError, OSError):  # nobody there has the key
            return
        if process == self._process.id:
            return
        self._members.failures[me.id] = said = (
            f"another device, at {', '.join(doors)}, has this one's key: its disk, or its ACTORS_HOME, is a copy of "
            "this one's"
        )
        log.error(
            "%s. Members take the two for one that moves to and fro: run `actors leave` on both, then pair each anew",
            said,
        )
