"""A simulated LAN: devices with addresses, connections between them that break, and announcements that all hear.

A connection brings what is written in order, as TCP does: what is under way on a path that is cut arrives once it is
whole again, unless an end has given the connection up before, since its pings were not answered.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from typing import TYPE_CHECKING, Any

from actors.transport.framing import Framing
from actors.transport.knock import DIAL_SECONDS
from actors.transport.link import GoneError, LinkLostError, UnreachableError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from actors.address import Address
    from actors.transport.link import RawLink
    from discovery import NodeRecord

    from .virtual import Machines

NOTICED_SECONDS = (2.0, 4.9)
"""After which an end of a silent connection gives it up; the keep-alive of gRPC is set to that."""

HANDSHAKE_SECONDS = 0.003
SLOWEST_SECONDS = 0.1
ANNOUNCED_SECONDS = (0.05, 0.5)

NOWHERE = contextvars.Context()  # what the network does is no machine's work


class End(Framing):
    """One end of a connection; see `actors.transport.link.RawLink`."""

    def __init__(self, lan: Lan, here: Host, there: Host, node: str) -> None:
        self.node: str | None = node
        self.here = here
        self.there = there
        self.other: End
        self.lost = False
        self._lan = lan
        self._frames: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._arrives = 0.0
        self._under_way: deque[Callable[[], None]] = deque()

    async def read_bytes(self) -> bytes | None:
        """See `RawLink`."""
        while not self._frames:
            if self.lost:
                return None
            self._reader = self._lan.loop.create_future()
            await self._reader
        return self._frames.popleft()

    async def write_bytes(self, data: bytes) -> None:
        """See `RawLink`."""
        if self.lost:
            raise LinkLostError("the connection is lost")
        self.send(lambda: self.other.take(data))

    def send(self, deliver: Callable[[], None]) -> None:
        """Has something happen at the other end, after all that was sent before."""
        lan = self._lan
        self._under_way.append(deliver)
        self._arrives = max(self._arrives, lan.loop.time() + lan.delay())
        lan.at(self._arrives, self._next_arrives)

    def _next_arrives(self) -> None:
        lan = self._lan
        if lan.is_cut(self.here, self.there):  # it is sent again and again until the path is whole
            lan.when_whole(self.here, self.there, lambda: lan.at(lan.loop.time() + lan.delay(), self._next_arrives))
        else:
            self._under_way.popleft()()

    def take(self, data: bytes) -> None:
        """A frame has come."""
        if not self.lost:
            self._lan.frames += 1
            self._lan.sent_bytes += len(data)
            self._frames.append(data)
            self._wake()

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def lose(self) -> None:
        """The connection is over for this end."""
        if not self.lost:
            self.lost = True
            self._wake()
            self._lan.links.discard(self)

    async def close(self) -> None:
        """See `Link`."""
        if not self.lost:
            self.lose()
            self.send(self.other.lose)


class Host:
    """A device as the network sees it.

    Attributes:
        number: which one it is.
        id: its node id.
        address: how often it has had another one.
        listening: takes connections; None while its door is shut.
        until: it stands still.
        on: whether its process lives.
    """

    def __init__(self, number: int, id: str) -> None:
        self.number = number
        self.id = id
        self.address = 0
        self.listening: Callable[[End], None] | None = None
        self.until = 0.0
        self.on = False

    def lets_in(self, id: str) -> bool:
        """Whether its door opens to a node."""
        raise NotImplementedError

    @property
    def door(self) -> str:
        """Where it listens."""
        return f"10.0.{self.address}.{self.number}:50099"


class Lan:
    """All of it.

    Args:
        loop: has the time.
        chance: decides all that is left to chance.

    Attributes:
        hosts: the devices on it.
        links: ends of connections that are up.
        frames: how many have come.
        sent_bytes: of these.
    """

    def __init__(self, loop: Machines, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.hosts: list[Host] = []
        self.links = _Ordered()
        self.frames = self.sent_bytes = 0
        self._cut: dict[tuple[int, int], int] = {}
        self._whole: dict[tuple[int, int], list[Callable[[], None]]] = {}
        self._heard: dict[int, tuple[NodeRecord, Callable[[NodeRecord], None]]] = {}

    # -- time ---------------------------------------------------------------------------------------------------

    def delay(self) -> float:
        """Returns how long a frame takes: mostly little, at times much."""
        chance = self.chance
        return chance.expovariate(1000) if chance.random() < 0.95 else chance.uniform(0, SLOWEST_SECONDS)

    def at(self, when: float, what: Callable[..., None], *args: Any) -> None:
        """Has something happen, on no machine."""
        self.loop.call_at(when, what, *args, context=NOWHERE)

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def is_cut(self, a: Host, b: Host) -> bool:
        """Whether nothing passes between two."""
        return bool(self._cut) and _pair(a, b) in self._cut

    def cut(self, a: Host, b: Host, seconds: float) -> None:
        """Nothing passes between two for so long."""
        pair = _pair(a, b)
        self._cut[pair] = self._cut.get(pair, 0) + 1
        self.silent(lambda end: _pair(end.here, end.there) == pair)
        self.at(self.loop.time() + seconds, self._heal, pair)

    def _heal(self, pair: tuple[int, int]) -> None:
        self._cut[pair] -= 1
        if not self._cut[pair]:
            del self._cut[pair]
            for waiting in self._whole.pop(pair, []):
                waiting()

    def when_whole(self, a: Host, b: Host, then: Callable[[], None]) -> None:
        """Does something when the path between two is whole again."""
        self._whole.setdefault(_pair(a, b), []).append(then)

    def silent(self, which: Callable[[End], bool]) -> None:
        """Nothing is heard on some connections from now on: each end gives them up at its own time if that lasts."""
        for end in [end for end in self.links if which(end)]:
            self.at(self.loop.time() + self.chance.uniform(*NOTICED_SECONDS), self._unanswered, end)

    def _unanswered(self, end: End) -> None:
        """Pings of this end were not answered; were they answered before, there was a later silence, or none."""
        if end.lost or not self._mute(end):
            return
        end.lose()
        end.send(end.other.lose)  # once something passes again

    def _mute(self, end: End) -> bool:
        return self.is_cut(end.here, end.there) or end.there.until > self.loop.time()

    def off(self, host: Host) -> None:
        """The process of a device is killed: its system ends its connections."""
        host.on, host.listening = False, None
        for end in [end for end in self.links if end.here is host]:
            end.lose()
            end.send(end.other.lose)

    def moved(self, host: Host) -> None:
        """A device has another address: its connections are heard of no more."""
        host.address += 1
        for end in [end for end in self.links if end.here is host]:
            for each in (end, end.other):
                self.at(self.loop.time() + self.chance.uniform(*NOTICED_SECONDS), each.lose)

    # -- connections --------------------------------------------------------------------------------------------

    async def dial(self, here: Host, id: str, where: Address, trusts: Callable[[str], bool]) -> RawLink:
        """Opens a connection to a door of a node, as `actors.transport.grpc_link` does.

        Args:
            here: who dials.
            id: its node id.
            where: what it dials.
            trusts: whether it trusts a node.
        """
        if not trusts(where.node):
            raise GoneError(f"device {where.node} is not trusted by this one", node_too=True)
        if not where.doors:
            raise UnreachableError("its node has no door that is open to other hosts")
        found = [host for host in self.hosts if host.door in where.doors]
        error: Exception = UnreachableError(f"{where.doors[0]} did not answer")
        for there in found:
            try:
                return await self._dial(here, id, there, where.node)
            except (GoneError, UnreachableError) as failed:
                error = failed
        if not found:
            await asyncio.sleep(DIAL_SECONDS)
        raise error

    async def _dial(self, here: Host, id: str, there: Host, node: str) -> RawLink:
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                while self.is_cut(here, there) or there.until > self.loop.time():  # noqa: ASYNC110 - as SYNs are sent
                    await asyncio.sleep(self.chance.uniform(0.3, 1.0))
                await asyncio.sleep(self.delay())
        except TimeoutError:
            raise UnreachableError(f"{there.door} did not answer within {DIAL_SECONDS:g} s") from None
        if there.listening is None:
            raise GoneError("nothing listens there", node_too=True)
        await asyncio.sleep(HANDSHAKE_SECONDS + self.delay())
        if there.listening is None or there.id != node or not there.lets_in(id):
            raise UnreachableError(f"no connection to {there.door}")
        mine, theirs = End(self, here, there, node), End(self, there, here, id)
        mine.other, theirs.other = theirs, mine
        for end in (mine, theirs):
            self.links.add(end)
        there.listening(theirs)
        if self._mute(mine) or self._mute(theirs):
            self.silent(lambda end: end in {mine, theirs})
        return mine

    # -- announcements ------------------------------------------------------------------------------------------

    def announce(self, host: Host, record: NodeRecord, hears: Callable[[NodeRecord], None]) -> None:
        """A node is announced, and hears of others; some announcements are heard twice, and late."""
        self._heard[host.number] = record, hears
        for number, (other, other_hears) in list(self._heard.items()):
            if number != host.number and not self.is_cut(host, self.hosts[number]):
                for _ in range(1 if self.chance.random() < 0.7 else 2):
                    self.at(self.loop.time() + self.chance.uniform(*ANNOUNCED_SECONDS), other_hears, record)
                    self.at(self.loop.time() + self.chance.uniform(*ANNOUNCED_SECONDS), hears, other)

    def unannounce(self, host: Host) -> None:
        """A node is announced no more, and hears nothing."""
        self._heard.pop(host.number, None)


class _Ordered(dict[End, None]):
    """A set that keeps its order, as the order of what happens must not depend on where objects lie."""

    def add(self, end: End) -> None:
        """Adds one."""
        self[end] = None

    def discard(self, end: End) -> None:
        """Removes one."""
        self.pop(end, None)


def _pair(a: Host, b: Host) -> tuple[int, int]:
    return (a.number, b.number) if a.number < b.number else (b.number, a.number)
