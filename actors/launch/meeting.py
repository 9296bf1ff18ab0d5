"""Where the ranks of a job meet when they first use `actors.collective`: at the process that started them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from actors import device
from actors.exceptions import CollectiveError
from actors.ids import new_id
from actors.spec import GroupSpec

if TYPE_CHECKING:
    from actors.address import Address
    from actors.transport.acceptor import Visitor

SERVICE = "launch"


class Meeting:
    """Service of the launcher: gives each rank its place in the group of all, once all are there.

    Args:
        size: how many ranks there are.
        script: what they run.
    """

    def __init__(self, size: int, script: str) -> None:
        self._id = new_id("group")
        self._script = script
        self._costs = device.costs()
        self._here: list[Address | None] = [None] * size
        self._full = asyncio.Event()
        self._ended: dict[int, str] = {}

    async def meet(self, _: Visitor, rank: int, address: Address, seconds: float) -> GroupSpec:
        """Service call of a rank: it is here, and waits so long for the others."""
        self._here[rank] = address
        if all(self._here) or self._ended:
            self._full.set()
        try:
            async with asyncio.timeout(seconds):
                await self._full.wait()
        except TimeoutError:
            pass
        members = tuple(address for address in self._here if address is not None)
        if len(members) < len(self._here):
            missing = [other for other, found in enumerate(self._here) if found is None]
            cause, why = next(iter(self._ended.items()), (missing[0], f"has called no collective within {seconds:g} s"))
            raise CollectiveError(f"rank {cause} of {self._script} {why}")
        labels = tuple(f"{self._script} on node {address.node_name}" for address in members)
        return GroupSpec(self._id, rank, members, labels, costs=self._costs)

    def ended(self, rank: int, how: str) -> None:
        """A rank has ended: if it had not come, nobody waits for it. On the I/O loop."""
        if self._here[rank] is None:
            self._ended[rank] = how
            if any(self._here):
                self._full.set()
