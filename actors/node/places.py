"""The places of one node: set aside for actors on their way, held by processes, lent while those wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.demand import Demand, Parts
    from actors.node.stock import Stock

RESERVED_SECONDS = 30.0  # what its owner does not fetch by then is free again


class Places:
    """Keeps a node's stock. On the I/O loop.

    Args:
        stock: what the node has.
        loop: for the ends of what was set aside.
        freed: told when something may be free that was not.
    """

    def __init__(self, stock: Stock, loop: asyncio.AbstractEventLoop, freed: Callable[[], None]) -> None:
        self._stock = stock
        self._loop = loop
        self._freed = freed
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def reserve(self, actors: list[str], demand: Demand) -> bool:
        """Sets places aside for actors that are about to come; returns whether there is room for all."""
        for number, actor in enumerate(actors):
            if not self._stock.take(actor, demand.needs, demand.holds):
                for taken in actors[:number]:
                    self.release(taken)
                return False
            self._forget_expiry(actor)
            self._expiries[actor] = self._loop.call_later(RESERVED_SECONDS, self.release, actor)
        return True

    def _forget_expiry(self, actor: str) -> None:
        expiry = self._expiries.pop(actor, None)
        if expiry is not None:
            expiry.cancel()

    def claim(self, actor: str, demand: Demand) -> bool:
        """An actor has come: it gets the place set aside for it, or one that is free; returns whether there is one."""
        self._forget_expiry(actor)
        return self._stock.take(actor, demand.needs, demand.holds)

    def settle(self, actor: str, process: str) -> None:
        """An actor has a process: what it holds is that one's from now on."""
        self._stock.pass_on(actor, process)

    def release(self, holder: str) -> None:
        """Takes back what a process holds, or an actor that has none yet."""
        self._forget_expiry(holder)
        if self._stock.give_back(holder):
            self._freed()

    def blocked(self, process: str) -> None:
        """A thread of a process waits: others may have its CPUs for so long."""
        if self._stock.wait(process):
            self._freed()

    def unblocked(self, process: str) -> None:
        """A thread of a process goes on, with its CPUs."""
        self._stock.resume(process)

    def report(self) -> tuple[int, Parts]:
        """Returns how many are here or on their way, and what is free, in parts."""
        return self._stock.holders, self._stock.free()

    def close(self) -> None:
        """Lets nothing expire any more."""
        for expiry in self._expiries.values():
            expiry.cancel()
