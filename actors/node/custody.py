"""Custody: the detached actors of a node, which it has charge of, and those of others that it would take over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.exceptions import ActorDiedError, ActorError, PlacementError
from actors.handle import kept_by
from actors.life import Life
from actors.lodging import take_charge
from actors.messages import Payload
from actors.node.copies import Copies, Ward, heirs
from actors.node.ring import in_order
from actors.node.wards import Wards
from actors.serialize import dumps, loads
from actors.strategy import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from actors.address import Address
    from actors.charge import Charge
    from actors.node.members import Member, Members
    from actors.process import Process
    from actors.spec import ActorSpec, Construction
    from actors.transport.acceptor import Visitor

log = logging.getLogger(__name__)

REMEMBERED_CHARGES = 1000  # detached actors that have ended, for those who ask how
SETTLE_SECONDS = 0.25  # before another node's actors are taken over: where all end together, nobody shall begin
ASK_SECONDS = 5.0
FIRST_ASKED = 16  # of many nodes, for an actor whose keeper is gone: its heirs are among them


class Custody:
    """The service ``"custody"``. Each method's first argument is who asks. On the I/O loop.

    Args:
        process: the node's.
        members: the nodes that are known.
    """

    def __init__(self, process: Process, members: Members) -> None:
        self._process = process
        self._members = members
        self._charges: dict[str, Charge] = {}
        self._copies: dict[str, Copies] = {}  # of the actors that this node has charge of
        self._wards = Wards()
        self._taking: set[str] = set()
        self._over: deque[str] = deque()  # detached actors that have ended
        self._met: set[str] = set()  # processes of the nodes that stand and were told of what was taken over
        self._background: set[asyncio.Task[None]] = set()
        self._closed = False
        members.watchers.append(self._look)

    def close(self) -> None:
        """Takes nobody over any more."""
        self._closed = True
        for task in self._background:
            task.cancel()

    # -- those in its charge ------------------------------------------------------------------------------------

    async def adopt(
        self, _: Visitor, construction: Construction, max_restarts: int, replicas: int, times: int = 0, term: int = 0
    ) -> None:
        """Takes charge of a detached actor, which outlives its maker; returns once it is made and its copies are kept.

        Args:
            construction: what it is made by, as it was asked for.
            max_restarts: how often it may be made anew.
            replicas: how many other nodes shall be able to take it over.
            times: how often it was.
            term: how often its charge has passed on.

        Raises:
            PlacementError: there are not so many nodes that could take it over; one may be missing.
        """
        asked = construction.spec.demand
        if max_restarts == 0 or asked.node is not None:
            replicas = 0  # it is not made anew, or nowhere else
        elif replicas > 1 and len(found := heirs(self._members, construction.spec)) < replicas:
            raise PlacementError(
                f"{construction.spec.label} asks for replicas={replicas}, and {len(found)} other nodes could take it "
                f"over ({', '.join(member.info.name for member in found) or 'none'}): ask for fewer, or add nodes"
            )
        ward = Ward(construction, max_restarts, times, self._process.id, (), term)
        charge = self._take(ward, Life(max_restarts, times), replicas)
        id = construction.spec.id
        try:
            await charge.located(None)
            await self._copies[id].spread()
            if construction.state is not None:
                await charge.constructed()
        except ActorError as error:
            self._process.keeper.charges.pop(id, None)
            raise error.__cause__ or error from None

    def _take(self, ward: Ward, life: Life, replicas: int) -> Charge:
        spec = ward.construction.spec
        spec = replace(
            spec, demand=self._placed(spec, alone=ward.left == 0), owner=self._process.id, life=life.times,
            handle=_rekeyed(spec, self._process.address),
        )  # fmt: skip
        construction = replace(ward.construction, spec=spec)
        charge = take_charge(self._process, construction, ward.left, (), lambda _: self._charge_ended(spec.id))
        charge.life = life
        ward = replace(ward, holder=self._process.id)
        self._charges[spec.id] = charge
        copies = Copies(self._process, self._members, ward, life, replicas, self._lost, charge.keep)
        self._copies[spec.id] = charge.copies = copies
        charge.before_restart = lambda _: copies.recall()
        self._process.keeper.charges[spec.id] = charge
        charge.begin()
        return charge

    def _placed(self, spec: ActorSpec, *, alone: bool) -> Any:
        """Returns its demand: beside its charge, so that one loss is one loss, but elsewhere if it must."""
        me = self._members.me.info.id
        if alone or spec.demand.node is not None:
            return replace(spec.demand, node=me, strategy="DEFAULT")
        return replace(spec.demand, strategy=NodeAffinitySchedulingStrategy(me, soft=True))

    def _charge_ended(self, actor: str) -> None:
        copies = self._forget(actor)
        if copies is not None and not self._closed:
            self._in_background(copies.end())
        self._over.append(actor)
        if len(self._over) > REMEMBERED_CHARGES:
            self._process.keeper.charges.pop(self._over.popleft(), None)

    def _forget(self, actor: str) -> Copies | None:
        self._charges.pop(actor, None)
        return self._copies.pop(actor, None)

    def _lost(self, actor: str, where: Address) -> None:
        """Another node has taken an actor over, which this one could not be reached to be told."""
        charge = self._charges.get(actor)
        if self._forget(actor) is None or charge is None:
            return
        log.warning("%s was taken over by node %s while this one could not be reached", actor, where.node_name)
        self._process.keeper.charges[actor] = Passed(self._process, actor, where, charge.spec)
        self._in_background(charge.passed_on())

    async def superseded(self, _: Visitor, actor: str, term: int, where: Address) -> None:
        """Another node says that it has had charge of an actor since."""
        copies = self._copies.get(actor)
        if copies is not None and copies.ward.term < term:
            self._lost(actor, where)

    # -- those it would take over -------------------------------------------------------------------------------

    def keep(self, _: Visitor, ward: Ward) -> Address | None:
        """Another node has charge of an actor that this one is to take over if that is lost.

        Returns:
            Who has charge of it since, where the other does not know; else None.
        """
        copies = self._copies.get(ward.construction.spec.id)
        if copies is not None and copies.ward.term > ward.term:
            return self._process.address
        return None if self._wards.keep(ward) else self._kept_by(ward.construction.spec.id)

    def update(self, _: Visitor, actor: str, term: int, serial: int, state: Payload | bytes) -> Address | None:
        """The state of such an actor has been saved; see `keep`. A state of nothing but a pickle may come as that.

        Raises:
            LookupError: nothing is known of it here, or a later state is.
        """
        if actor not in self._wards and actor in self._copies:
            return self._process.address
        kept = self._wards.update(actor, term, serial, Payload(state) if isinstance(state, bytes) else state)
        return None if kept else self._kept_by(actor)

    def recall(self, _: Visitor, actor: str, term: int, serial: int) -> tuple[int, Payload] | None:
        """Whoever has charge of such an actor wants the state that it has sent here last; see `Wards.recall`."""
        return self._wards.recall(actor, term, serial)

    def _kept_by(self, actor: str) -> Address | None:
        ward = self._wards.find(actor)
        return self._holder(ward) if ward is not None else None

    def _holder(self, ward: Ward) -> Address | None:
        standing = self._members.standing()
        return next((member.where for member in standing if member.where.process == ward.holder), None)

    def drop(self, _: Visitor, actor: str, term: int) -> None:
        """Such an actor has ended, or was passed on, in this term."""
        self._wards.drop(actor, term)

    async def holds(self, _: Visitor, actor: str) -> str | None:
        """Returns ``"charge"`` or ``"copy"``, where this node has it of an actor."""
        if actor in self._copies:
            return "charge"
        return "copy" if actor in self._wards else None

    async def custodian(self, _: Visitor, actor: str) -> Address | None:
        """Returns the node that has charge of a detached actor now; waits while one is about to take it over."""
        while True:
            said = await self._asked(actor)
            if found := next((where for where, what in said if what == "charge"), None):
                return found
            if not any(what == "copy" for _, what in said):
                return None
            await asyncio.sleep(0.05)

    async def _asked(self, actor: str) -> list[tuple[Address, str | None]]:
        """Returns what nodes have of an actor: all of them; where they are many, those first that are its heirs."""
        standing = self._members.standing()
        if self._members.sparse:
            said = await self._held_by_each(in_order(actor, standing)[:FIRST_ASKED], actor)
            if any(what is not None for _, what in said):
                return said
        return await self._held_by_each(standing, actor)

    async def _held_by_each(self, members: list[Member], actor: str) -> list[tuple[Address, str | None]]:
        return await asyncio.gather(*(self._held_by(member.where, actor) for member in members))

    async def _held_by(self, where: Address, actor: str) -> tuple[Address, str | None]:
        try:
            return where, await self._process.ask(where, "custody", "holds", actor, timeout=ASK_SECONDS)
        except (TimeoutError, ActorDiedError):
            return where, None

    def _look(self) -> None:
        """A node has come or gone."""
        if self._closed:
            return
        standing = self._members.standing()
        alive = {member.where.process for member in standing}
        for id, ward in self._wards:
            first = next((heir for heir in ward.heirs if heir in alive), None)
            if ward.holder not in alive and first == self._process.id and id not in self._taking:
                self._taking.add(id)
                self._in_background(self._take_over(id))
        for copies in self._copies.values():
            if copies.lacks:
                self._in_background(copies.spread())
        self._met &= alive  # who comes back may have been cut off when something was taken over
        for member in standing:
            if member is not self._members.me and member.where.process not in self._met:
                self._met.add(member.where.process)
                self._in_background(self._tell_taken_over(member.where))

    async def _take_over(self, actor: str) -> None:
        await asyncio.sleep(SETTLE_SECONDS)
        self._taking.discard(actor)
        ward = self._wards.find(actor)
        if ward is None or self._holder(ward) is not None:
            return
        self._wards.drop(actor, ward.term)
        ward = replace(ward, term=ward.term + 1, serial=0)
        life = Life(ward.left, ward.times)
        if not life.died(intended=False):
            return
        spec = ward.construction.spec
        log.warning("%s is made anew here: the node that had charge of it is gone", spec.label)
        self._take(ward, life, ward.replicas)
        with contextlib.suppress(ActorError):
            await self._copies[actor].spread()

    async def _tell_taken_over(self, where: Address) -> None:
        for actor, copies in list(self._copies.items()):
            while copies.ward.term and where.process in self._met:
                what = (actor, copies.ward.term, self._process.address)
                try:
                    await self._process.ask(where, "custody", "superseded", *what, timeout=ASK_SECONDS)
                except ActorDiedError:
                    return
                except TimeoutError:
                    continue
                break

    # -- passing on ---------------------------------------------------------------------------------------------

    def charged(self) -> list[str]:
        """Returns the actors that this node has charge of."""
        return list(self._copies)

    async def pass_on(self, actor: str) -> None:
        """Gives an actor, as it lives, into the charge of another node, where it moves.

        Raises:
            ValueError: it cannot be moved.
            PlacementError: no other node can take it.
        """
        charge, copies = self._charges[actor], self._copies[actor]
        ward = copies.ward
        spec = replace(ward.construction.spec, demand=replace(ward.construction.spec.demand, node=None, timeout=0.0))
        node = await self._process.ask_home("schedule", spec)

        async def adopt(construction: Construction) -> Address:
            construction = replace(construction, spec=replace(ward.construction.spec, demand=spec.demand))
            terms = (charge.life.left, copies.replicas, charge.life.times, ward.term + 1)
            await self._process.ask(node, "custody", "adopt", construction, *terms, timeout=None)
            found: Address = await self._process.ask(node, "keeper", "locate", actor, None)
            return found

        await charge.pass_on(adopt)
        self._forget(actor)
        self._process.keeper.charges[actor] = Passed(self._process, actor, node, spec)
        await copies.end()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._process.loop.create_task(work)
        self._background.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._background.discard)


class Passed:
    """An actor that another node has charge of now; see `actors.keeper.Charge`."""

    def __init__(self, process: Process, actor: str, where: Address, spec: ActorSpec) -> None:
        self.spec = spec
        self._process = process
        self._actor = actor
        self._where = where

    async def located(self, left: str | None) -> Address:
        """Asks there."""
        found: Address = await self._process.ask(self._where, "keeper", "locate", self._actor, left, timeout=None)
        return found

    async def kill(self, no_restart: bool) -> None:
        """Ends it there."""
        await self._process.kill(await self.located(None), no_restart)

    def keep(self, number: int, state: Payload) -> bool:
        """Nodes are not sent states with answers."""
        del number, state
        return False

    def saved(
        self, state: Payload, number: int | None = None, base: int | None = None, source: str | None = None
    ) -> None:
        """Refuses: what it was is not what it is."""
        del state, number, base, source
        raise ActorDiedError(f"{self.spec.label} is in the charge of node {self._where.node_name} now")

    async def retire(self) -> None:
        """It is not counted who refers to it."""

    async def move(self, node: str | None) -> None:
        """Moves it from there."""
        await self._process.ask(self._where, "keeper", "move", self._actor, node, timeout=None)


def _rekeyed(spec: ActorSpec, keeper: Address) -> Payload | None:
    """Returns the pickled handle of an actor, for those who ask by name, with who has charge of it now."""
    if spec.handle is None:
        return None
    return replace(dumps(kept_by(loads(spec.handle), keeper)), holds=())
