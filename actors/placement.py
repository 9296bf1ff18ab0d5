"""Placement: finds a process for an actor that is to be made, by asking the nodes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors.exceptions import NodeDiedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from actors.address import Address
    from actors.process import Process
    from actors.spec import ActorSpec

LOST_NODES = 20  # that died while the actor was on its way there
LOST_SECONDS = 0.25
PLACE_SECONDS = 120.0  # longer than a node takes to give up on a worker


class Placement:
    """Finds the places of one actor, one after the other. On the I/O loop.

    Args:
        process: this process, which owns the actor.
        give_back: gives a place back in which nothing was made.
    """

    def __init__(self, process: Process, give_back: Callable[[Address], Awaitable[None]]) -> None:
        self._process = process
        self._give_back = give_back
        self._returning: asyncio.Task[None] | None = None

    async def find(self, spec: ActorSpec, seat: tuple[str, int, int] | None = None) -> Address:
        """Waits until there is room for an actor; returns the process that is to be it.

        Args:
            spec: what it is.
            seat: of a member of a group, its group, its rank and how many there are.

        Raises:
            PlacementError: there will be none.
        """
        began, lost = self._process.loop.time(), 0
        while True:
            waited = self._process.loop.time() - began
            node = await self._process.ask_home("schedule", spec, seat, waited, timeout=None)
            try:
                place = await self._at(node, spec)
            except NodeDiedError:
                lost += 1
                if lost > LOST_NODES:
                    raise
                await asyncio.sleep(LOST_SECONDS)  # soon the home node knows it too, and chooses another
            else:
                if place is not None:
                    return place
            seat = None  # another was quicker there: it comes alone now, as one who has waited

    async def _at(self, node: Address, spec: ActorSpec) -> Address | None:
        environment = spec.environment
        patience = PLACE_SECONDS + (environment.seconds if environment is not None else 0.0)
        asked: Coroutine[Any, Any, Address | None] = self._process.ask(node, "node", "place", spec, timeout=patience)
        placing = self._process.loop.create_task(asked)
        try:
            return await asyncio.shield(placing)
        except BaseException:
            # Given up while the node was choosing a process: that one goes back as soon as it is known.
            placing.add_done_callback(self._taken_too_late)
            raise

    def _taken_too_late(self, placing: asyncio.Task[Address | None]) -> None:
        if not placing.cancelled() and placing.exception() is None and (address := placing.result()) is not None:
            self._returning = self._process.loop.create_task(self._return(address))

    async def _return(self, address: Address) -> None:
        await self._give_back(address)
