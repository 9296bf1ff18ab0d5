"""Lodging: the processes in which this process's light actors live."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from actors.charge import Charge
from actors.demand import Demand
from actors.ids import new_id
from actors.placement import PLACE_SECONDS
from actors.serialize import dumps, dumps_arguments
from actors.spec import ActorSpec, Construction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from actors.address import Address
    from actors.exceptions import ActorError
    from actors.process import Process
    from actors.sealed import Sealed
    from actors.transport.peer import Death

MOST_GUESTS = 20_000  # of one process; then another is taken
IDLE_SECONDS = 2.0  # a process without light actors is kept for more to come


class Lodging:
    """Finds room for light actors: one process of this owner's on each node. All methods belong to the I/O loop.

    Args:
        process: this process, which owns them.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._usual: Address | None = None  # the node for those that may go anywhere
        self._houses: dict[tuple[str, ...], House] = {}

    async def enter(self, spec: ActorSpec) -> House:
        """Returns a process with room for one more light actor, who is counted from now on.

        Raises:
            ActorError: there is none, and none can be had.
        """
        while True:
            known = self._usual
            node = await self._node_for(spec)
            house = self._house(node, spec)
            try:
                await asyncio.shield(house.opened)
            except Exception:
                if node is not known or known is self._usual:
                    raise
                continue  # that node has gone since
            if not house.lost:
                house.guests += 1
                house.rest()
                return house

    async def _node_for(self, spec: ActorSpec) -> Address:
        demand = spec.demand
        anywhere = demand.node is None and not demand.selector and demand.strategy in {"DEFAULT", "PACK"}
        if anywhere and self._usual is not None:
            return self._usual
        node: Address = await self._process.ask_home("schedule", spec, timeout=None)
        if anywhere:
            self._usual = self._usual or node
            return self._usual
        return node

    def _house(self, node: Address, spec: ActorSpec) -> House:
        driver = spec.driver.process if spec.driver is not None else ""
        key = (node.node, spec.namespace, driver, repr(spec.environment))
        house = self._houses.get(key)
        if house is None or house.lost or house.guests >= MOST_GUESTS:
            house = House(self._process, node, spec, lambda house: self._left(key, house))
            self._houses[key] = house
        return house

    def _left(self, key: tuple[str, ...], house: House) -> None:
        """A process will not take anybody in any more."""
        if self._houses.get(key) is house:
            del self._houses[key]
        if self._usual is not None and self._usual.node == house.node.node:
            self._usual = None


class House:
    """One process that hosts light actors.

    Attributes:
        node: where it is.
        opened: done when it can take actors in, with where it is.
        guests: how many live there or are about to.
        lost: it takes nobody in any more.
    """

    def __init__(self, process: Process, node: Address, spec: ActorSpec, left: Callable[[House], None]) -> None:
        self.node = node
        self.guests = 0
        self.lost = False
        self._process = process
        self._left = left
        self._numbers = 0
        self._idle: asyncio.TimerHandle | None = None
        self._retiring: asyncio.Task[None] | None = None
        from actors.host import Host  # late: most who could have light actors have none

        host = ActorSpec(
            id=new_id("actor"), label="the host of light actors", class_name="light", name=None,
            namespace=spec.namespace, owner=process.id, driver=spec.driver, handle=None,
            demand=Demand({}, {}, node.node), environment=spec.environment, host=True,
        )  # fmt: skip
        construction = Construction(
            code=dumps(Host), spec=host, arguments=dumps_arguments((), {}), max_concurrency=None, is_async=False,
            group=None,
        )  # fmt: skip
        self._charge = Charge(process, construction, 0, (), self._ended)
        self._charge.begin()
        self.opened: asyncio.Task[Address] = process.loop.create_task(self._open(host.id))
        self.opened.add_done_callback(_looked_at)

    async def _open(self, id: str) -> Address:
        try:
            address = await self._charge.located(None)
            await self._process.ask(address, id, "pid", timeout=PLACE_SECONDS)
        except BaseException:
            self._leave()
            raise
        self._process.peer(address).when_dead(self._died)
        return address

    def seat(self) -> Address:
        """Returns where the next light actor is made, which must be done at once."""
        self._numbers += 1
        return replace(self.opened.result(), guest=f"light-{self._numbers}")

    def leave(self) -> None:
        """One light actor less."""
        self.guests -= 1
        self.rest()

    def rest(self) -> None:
        """Sees to it that the process ends once nobody has lived there for a while."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self.guests and not self.lost:
            self._idle = self._process.loop.call_later(IDLE_SECONDS, self._close)

    def _close(self) -> None:
        self._leave()
        self._retiring = self._process.loop.create_task(self._charge.retire())

    def _died(self, _: Death) -> None:
        self._leave()

    def _ended(self, _: ActorError) -> None:
        self._leave()

    def _leave(self) -> None:
        if not self.lost:
            self.lost = True
            if self._idle is not None:
                self._idle.cancel()
            self._left(self)


def _looked_at(task: asyncio.Task[Address]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waited for it may have given up


class Lodger(Charge):
    """One light actor of this process's; see `Charge`.

    Args:
        lodging: finds room for it.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        process: Process,
        construction: Construction,
        max_restarts: int,
        needs: Sequence[Future[Sealed]],
        ended: Callable[[ActorError], None],
        lodging: Lodging,
    ) -> None:
        super().__init__(process, construction, max_restarts, needs, ended)
        self._lodging = lodging
        self._house: House | None = None

    async def _take_place(self) -> Address:
        house = self._house = await self._lodging.enter(self.spec)
        try:
            if self.spec.name is not None:
                await self._process.ask(house.node, "node", "claim_name", self.spec)
        except BaseException:
            self._move_out()
            raise
        return house.opened.result()

    def _seat(self, _: Address, /) -> Address:
        assert self._house is not None
        return self._house.seat()

    async def _give_back(self, _: Address, /) -> None:
        self._move_out()

    async def _construct(self, address: Address) -> Death:
        try:
            return await super()._construct(address)
        finally:
            self._move_out()

    def _move_out(self) -> None:
        house, self._house = self._house, None
        if house is not None:
            house.leave()


_lodgings: WeakKeyDictionary[Process, Lodging] = WeakKeyDictionary()


def take_charge(
    process: Process,
    construction: Construction,
    max_restarts: int,
    needs: Sequence[Future[Sealed]],
    ended: Callable[[ActorError], None],
) -> Charge:
    """Returns the charge of an actor, which has a process of its own or shares one."""
    if not construction.spec.light:
        return Charge(process, construction, max_restarts, needs, ended)
    lodging = _lodgings.get(process)
    if lodging is None:
        lodging = _lodgings.setdefault(process, Lodging(process))
    return Lodger(process, construction, max_restarts, needs, ended, lodging)
