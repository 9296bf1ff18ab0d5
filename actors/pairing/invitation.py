"""An invitation that waits: its port, its three tries, and whom it lets in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorsError, AuthenticationError
from actors.pairing.exchange import Inviter, PairingError, WrongCodeError, bytes_in, text_in, to_text
from actors.pairing.wire import receive, send
from actors.refusals import refused
from actors.trust.statement import NAME_BYTES
from actors.trust.store import to_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.identity import Identity
    from actors.pairing.code import Code
    from actors.trust import Member, Roll

log = logging.getLogger(__name__)

LIFE_SECONDS = 600.0
TRIES = 3
PEER_SECONDS = 10.0
LIMIT_BYTES = 128 << 10
MOST_PEERS = 8
"""Connections at once; one more, and the oldest is hung up on: one that says nothing must not keep others out."""


@dataclass(slots=True)
class Tally:
    """What is left of an invitation; a pure state machine.

    A try is spent when the answer is sent, not when the proof comes: whoever hangs up before has had it too. It is
    given back by the right code.

    Attributes:
        uses: how many devices may still come.
        expires: when it ends, by the clock of who asks.
        tries: how many answers may still go to those who do not prove the code.
    """

    uses: int
    expires: float
    tries: int = TRIES

    def over(self, now: float) -> str | None:
        """Why nobody is let in any more; None while somebody may be."""
        if self.uses <= 0:
            return "used"
        if self.tries <= 0:
            return "spent"
        return "expired" if now >= self.expires else None

    def spend(self, now: float) -> bool:
        """Takes a try; False where there is none."""
        if self.over(now):
            return False
        self.tries -= 1
        return True

    def proved(self) -> None:
        """The one who took a try has the code."""
        self.tries += 1

    def used(self) -> None:
        """A device has come."""
        self.uses -= 1


@dataclass(slots=True)
class Invitation:
    """Waits for devices on a port of its own.

    Args:
        code: to be shown to a person.
        identity: this device's.
        admit: vouches for a device (certificate, name); returns the new roll once it is in force here.
        tally: what may still happen.
        hints: what else a new member is told: where to reach the others.
        joined: told of each device that has come.
    """

    code: Code
    identity: Identity
    cluster: str
    admit: Callable[[bytes, str], Awaitable[Roll]]
    tally: Tally
    hints: Callable[[], Awaitable[dict[str, Any]]]
    joined: Callable[[Member], None]
    _peers: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _let_in: set[str] = field(default_factory=set, init=False)  # ids of those who have come
    _answered: int = field(default=0, init=False)  # who may still prove the code, or is just being let in
    _server: asyncio.Server | None = field(default=None, init=False)

    async def open(self, host: str | None) -> int:
        """Listens, on all addresses where no host is given; returns the port."""
        if host is None:
            # One socket: asyncio would take another port for each family, and only one can be told.
            both = socket.has_dualstack_ipv6()
            listener = socket.create_server(
                ("", 0), family=socket.AF_INET6 if both else socket.AF_INET, backlog=MOST_PEERS, dualstack_ipv6=both
            )
            self._server = await asyncio.start_server(self._came, sock=listener, limit=LIMIT_BYTES)
        else:
            self._server = await asyncio.start_server(self._came, host, 0, limit=LIMIT_BYTES, backlog=MOST_PEERS)
        sockets = self._server.sockets
        return int(sockets[0].getsockname()[1])

    async def wait(self) -> str:
        """Returns why it is over: ``"used"``, ``"spent"`` or ``"expired"``; nothing listens any more then."""
        try:
            while (why := self.tally.over(time.monotonic())) is None or (why != "expired" and self._answered):
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, self.tally.expires - time.monotonic()) + 0.01):
                        await self._changed.wait()
            return why
        finally:
            await self.close()

    async def close(self) -> None:
        """Stops listening and hangs up on everybody."""
        if self._server is not None:
            self._server.close()
        for task in list(self._peers):
            task.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._peers[task] = writer
        if len(self._peers) > MOST_PEERS:
            next(iter(self._peers)).cancel()
        where = str((writer.get_extra_info("peername") or ("?",))[0]).removeprefix("::ffff:")
        try:
            async with asyncio.timeout(PEER_SECONDS):
                await self._serve(reader, writer, where)
        except WrongCodeError:
            refused("a pairing with a wrong code")
            log.warning("a device at %s tried a wrong code; %s", where, self._left())
            await _say(writer, "wrong code")
        except (PairingError, AuthenticationError, TypeError) as error:
            refused("a pairing that does not keep to the protocol", error)
            log.warning("a device at %s was not let in: %s; %s", where, error, self._left())
            await _say(writer, "refused")
        except (TimeoutError, OSError, EOFError, asyncio.CancelledError):
            log.info("a device at %s hung up or said nothing; %s", where, self._left())
        except ActorsError as error:
            log.warning("a device at %s was not let in: %s", where, error)
            await _say(writer, "refused")
        finally:
            self._peers.pop(task, None)
            self._changed.set()
            writer.close()

    def _left(self) -> str:
        count = max(0, self.tally.tries)
        if not count:
            return "no tries are left: the invitation is void, run `actors invite` again"
        left = f"{count} {'try is' if count == 1 else 'tries are'} left"
        return f"{left}. If that was nobody of yours, end the invitation (Ctrl-C) and show another"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        exchange = Inviter(self.code)
        answer = exchange.answer(await receive(reader))
        if not self.tally.spend(time.monotonic()):
            raise PairingError("no tries are left")
        self._answered += 1
        try:
            await send(writer, answer)
            await self._admit(reader, writer, exchange, where)
        finally:
            self._answered -= 1

    async def _admit(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, exchange: Inviter, where: str
    ) -> None:
        proof = exchange.prove(await receive(reader), self.identity, cluster=self.cluster)
        self.tally.proved()
        await send(writer, proof)
        keys = exchange.keys
        assert keys is not None
        certificate, card = keys.read_card("joiner", bytes_in(await receive(reader), "sealed"))
        if self.tally.uses <= 0:  # another has come meanwhile
            raise PairingError("the code has been used")
        self.tally.used()
        try:
            roll = await self.admit(certificate, readable(text_in(card, "name")))
            from actors.certificate import node_id_of

            member = roll.members[node_id_of(certificate)]
            welcome = {"statements": json.loads(to_bytes(roll)), **await self.hints()}
            await send(writer, {"sealed": to_text(keys.seal("welcome", welcome))})
            keys.open("done", bytes_in(await receive(reader), "sealed"))
        except BaseException:
            self.tally.uses += 1
            raise
        if member.id in self._let_in:  # somebody typed the code twice there: that takes no other's place
            self.tally.uses += 1
        self._let_in.add(member.id)
        log.info("%s at %s has joined", member.name, where)
        self.joined(member)


def readable(name: str) -> str:
    """A name as it may be shown: what is not printable goes, and so does what is too long.

    No slash either: it stands between a node's name and that of an actor there.
    """
    bare = "".join(c for c in name if c.isprintable()).replace("/", "-").strip()
    while len(bare.encode()) > NAME_BYTES - 8:
        bare = bare[:-1]
    return bare or "device"


async def _say(writer: asyncio.StreamWriter, word: str) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            await send(writer, {"error": word})
