"""The service ``"doctor"`` of a node: what other nodes see from where they are, and how fast the way to them is."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

from actors.node.admission import must_be_local
from actors.reach import knock

if TYPE_CHECKING:
    from actors.node.members import Members
    from actors.process import Process
    from actors.transport.acceptor import Visitor

MOST_DOORS = 32
ASK_SECONDS = 6.0
CLOCK_SECONDS = 2.0
_PINGS = 20
_PIECE = 8 * 2**20
_PIECES = 4


class Opinion:
    """Answers what `actors doctor` asks, here and from other nodes.

    Args:
        process: the node's.
        members: the nodes it knows.
    """

    def __init__(self, process: Process, members: Members) -> None:
        self._process = process
        self._members = members

    async def time(self, visitor: Visitor) -> float:
        """Returns this machine's clock (epoch)."""
        del visitor
        return time.time()

    async def take(self, visitor: Visitor, data: bytes) -> int:
        """Returns how many bytes came."""
        del visitor
        return len(data)

    async def knock(self, visitor: Visitor, doors: list[str]) -> list[tuple[str, str]]:
        """Knocks at doors from here; returns what came of it, by door, as the value of `actors.reach.Way`."""
        del visitor
        knocks = await asyncio.gather(*(asyncio.to_thread(knock, door) for door in doors[:MOST_DOORS]))
        return [(each.door, each.way.value) for each in knocks]

    async def failures(self, visitor: Visitor) -> dict[str, str]:
        """Returns what taking in other nodes failed with last, by node id."""
        must_be_local(visitor)
        return dict(self._members.failures)

    async def knock_from_others(self, visitor: Visitor, doors: list[str]) -> dict[str, list[tuple[str, str]]]:
        """Returns what each other node sees at these doors, by node id; those that do not answer are left out."""
        must_be_local(visitor)
        return await self._of_others("knock", doors)

    async def clocks(self, visitor: Visitor) -> dict[str, float]:
        """Returns how far ahead of this machine's clock those of other nodes are (seconds), by node id."""
        must_be_local(visitor)
        begun = time.time()
        told: dict[str, float] = await self._of_others("time", seconds=CLOCK_SECONDS)
        middle = (begun + time.time()) / 2
        return {id: there - middle for id, there in told.items()}

    async def _of_others(self, method: str, *args: Any, seconds: float = ASK_SECONDS) -> dict[str, Any]:
        others = self._members.others()
        asked = [self._process.ask(member.where, "doctor", method, *args, timeout=seconds) for member in others]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return {
            member.info.id: answer
            for member, answer in zip(others, answers, strict=True)
            if not isinstance(answer, BaseException)
        }

    async def measure(self, visitor: Visitor, id: str) -> tuple[float, float]:
        """Returns the latency (seconds there and back) and bandwidth (bytes/s) of the way to another node."""
        must_be_local(visitor)
        where = self._members.get(id).where
        times = []
        for _ in range(_PINGS):
            begun = time.perf_counter()
            await self._process.ask(where, "doctor", "time", timeout=ASK_SECONDS)
            times.append(time.perf_counter() - begun)
        piece = bytes(_PIECE)
        begun = time.perf_counter()
        await asyncio.gather(
            *(self._process.ask(where, "doctor", "take", piece, timeout=4 * ASK_SECONDS) for _ in range(_PIECES))
        )
        return statistics.median(times), _PIECE * _PIECES / (time.perf_counter() - begun)
