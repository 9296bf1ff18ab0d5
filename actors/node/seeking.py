"""How a node finds the members that multicast does not show: where they were last, and where it is told to look."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from typing import TYPE_CHECKING

from actors.address import Address
from actors.certificate import node_id_of
from actors.exceptions import AuthenticationError, ClusterTimeoutError
from actors.node.twin import Twins
from actors.shortage import aside
from actors.transport.inquiry import process_at
from actors.transport.link import GoneError, LinkLostError, UnreachableError

if TYPE_CHECKING:
    from actors.identity import TrustSet
    from actors.node.disk import Disk
    from actors.node.members import Members
    from actors.process import Process
    from discovery import NodeRecord

log = logging.getLogger(__name__)

SEEK_SECONDS = 1.0
SEEK_SECONDS_AT_MOST = 30.0
REST_SECONDS = 5.0
"""Between two looks while all members are here; the loss of one ends the rest."""

STEADY_SECONDS = 600.0
"""For so long after one was lost, it is looked for every `SEEK_SECONDS`: its cable may be put back any time."""

ASK_SECONDS = 4.0
MOST_STRANGERS = 1000
MOST_SOUGHT = 128
"""Members that are looked for at a time. Of more a few, at random: the first to answer tell of the others."""

FEW_SOUGHT = 32
FEWER_SOUGHT = 8
"""The same where some have answered."""


class Seeking:
    """Looks for members of the cluster. All of it runs on the I/O loop.

    Args:
        process: the node's.
        members: told of what is found.
        trust: who is looked for.
        disk: has where members were last reached.
    """

    def __init__(self, process: Process, members: Members, trust: TrustSet, disk: Disk) -> None:
        self._process = process
        self._members = members
        self._trust = trust
        self._disk = disk
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._lost: dict[str, float] = {}  # when members went missing that were here, on the loop's clock
        self._next: dict[str, float] = {}  # when a missing member is looked for again, on the loop's clock
        self._pause: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._strangers: set[str] = set()
        self._twins = Twins(process, members)
        members.on_ended.append(self.look_again)

    def start(self) -> None:
        """Begins to look."""
        if self._task is None:
            self._task = self._process.loop.create_task(self._run())

    def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
        self._twins.close()

    def look_again(self) -> None:
        """There are new members, or new ways."""
        self._again.set()

    def why(self, id: str) -> str:
        """Why a member cannot be used now."""
        here = self._members.why(id)
        there = self._why.get(id, "" if here else "it has not been seen since this node was started")
        return here if here.startswith(there) else "; ".join(said for said in (here, there) if said)

    def seen(self, record: NodeRecord) -> None:
        """Discovery shows a node, which anybody may have announced."""
        if record.cluster:
            return  # a LAN in miniature, or an invitation
        if record.id == self._members.me.info.id:
            self._twins.seen(record)
        elif record.id in self._trust:
            self._members.found(record)
        elif record.id not in self._strangers and len(self._strangers) < MOST_STRANGERS:
            self._strangers.add(record.id)
            log.info(
                "a node that is not paired with this device was seen: %s at %s. To let it in, run `actors invite` here "
                "and `actors join CODE` there",
                record.name, ", ".join(record.addresses),
            )  # fmt: skip

    async def _run(self) -> None:
        while True:
            due = [id for id in self._missing() if self._next.get(id, 0.0) <= self._process.loop.time()]
            if len(due) > MOST_SOUGHT or self._members.sparse:
                due = random.sample(due, min(len(due), FEWER_SOUGHT if self._members.partners() else FEW_SOUGHT))
            if due:
                known = await aside(self._disk.doors)
                await asyncio.gather(*(self._seek(id, tuple(known[id])) for id in due if known.get(id)))
                now = self._process.loop.time()
                for id in due:
                    self._pause[id] = SEEK_SECONDS if self._just_lost(id) else self._longer(id)
                    self._next[id] = now + self._pause[id]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEEK_SECONDS if self._absent() else REST_SECONDS):
                    await self._again.wait()
                    self._next.clear()
                    self._pause.clear()
            self._again.clear()

    def _longer(self, id: str) -> float:
        return min(self._pause.get(id, SEEK_SECONDS) * 1.5, SEEK_SECONDS_AT_MOST)

    def _missing(self) -> list[str]:
        """Who is looked for: not those that are silent, whom their peer still dials, nor who is just being met."""
        members = self._members.all()
        now, lost = self._process.loop.time(), [member.info.id for member in members if member.ended]
        self._lost = {id: self._lost.get(id, now) for id in lost if id in self._trust}
        for member in members:
            if member.info.alive:
                self._why.pop(member.info.id, None)
        return [id for id in self._absent() if not self._members.is_joining(id)]

    def _absent(self) -> list[str]:
        present = {member.info.id for member in self._members.all() if not member.ended}
        return [id for id in self._trust if id not in present]

    def _just_lost(self, id: str) -> bool:
        since = self._lost.get(id)
        return since is not None and self._process.loop.time() - since < STEADY_SECONDS

    async def _seek(self, id: str, doors: tuple[str, ...]) -> None:
        where = Address("", "", "", id, doors)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                process = await process_at(where, self._process.dialer)
        except (GoneError, UnreachableError, LinkLostError, OSError) as error:
            said = str(error) or "no answer"
            named = any(door in said for door in doors)
            self._why[id] = said if named else f"it does not answer at {', '.join(doors)} ({said})"
            return
        self._members.found_at(Address(process, "", "", id, doors), proved=True)

    async def reach(self, door: str) -> str:
        """Looks at one address; returns the node id of the member that is there.

        Raises:
            AuthenticationError: it is not paired with this device.
            ClusterTimeoutError: nothing answers there.
        """
        try:
            async with asyncio.timeout(ASK_SECONDS):
                id = node_id_of(await _certificate_at(door))
        except (OSError, EOFError, ssl.SSLError) as error:
            raise ClusterTimeoutError(
                f"no node answers at {door} ({error or f'silent for {ASK_SECONDS:g} s'}): is `actors start` running "
                "there, and is the port right?"
            ) from error
        if id not in self._trust:
            raise AuthenticationError(
                f"the device at {door} is not paired with this one: run `actors invite` there and `actors join CODE` "
                "here"
            )
        if id != self._members.me.info.id:
            known = await aside(self._disk.doors)
            doors = list(dict.fromkeys([door, *known.get(id, [])]))
            await aside(self._disk.remember_doors, {id: doors})
            await self._seek(id, (door,))
        return id


async def _certificate_at(door: str) -> bytes:
    """Returns the certificate (PEM) that is shown at an address; whether it is to be trusted is not looked at."""
    from discovery.addresses import host_and_port

    host, port = host_and_port(door)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        shown: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    if shown is None:
        raise EOFError("no certificate was shown")
    return ssl.DER_cert_to_PEM_cert(shown).encode()
