"""Finds room for actors: what cannot be placed now waits here, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.demand import parts
from actors.exceptions import ActorDiedError, PlacementError
from actors.node.choice import Guarded, Obstacle, Offer, choose, inventory, obstacle
from actors.node.stock import whole

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Iterable, Mapping

    from actors.address import Address
    from actors.demand import Demand
    from actors.node.members import Member, Members
    from actors.node.printing import Printing
    from actors.node.stock import Stock
    from actors.process import Process
    from actors.spec import ActorSpec

Seat = tuple[str, int, int]
"""An actor's place in a group: the group's id, its rank, and how many there are."""

ASK_SECONDS = 1.0
RESERVE_SECONDS = 5.0
REPORT_SECONDS = 0.5  # how old another node's word on its load may be, where nothing is at stake
POLL_SECONDS = 1.0  # between two looks, should the word of a release on another node be lost
WARN_SECONDS = 1.0
RESERVED_SECONDS = 30.0  # what its owner does not fetch by then is free again
GROUP_SECONDS = 30.0  # in which all of a group must have come
ATTEMPTS = 3  # to reserve, where others are quicker


@dataclass(slots=True, eq=False)
class _Part:
    """One actor that waits."""

    spec: ActorSpec
    found: asyncio.Future[Address]


@dataclass(slots=True, eq=False)
class _Wish:
    """One actor, or a whole group, that waits for room.

    Attributes:
        demand: what each asks for.
        since: when it came, on the loop's clock.
        came: the same, in seconds since 1970.
        turns: numbers by which it is spread.
        parts: those that wait, by rank.
        obstacle: why it is not placed, by the last look.
        warned: whether its driver was told.
        shape: equal for those that fit wherever this one fits.
    """

    demand: Demand
    since: float
    came: float
    turns: list[int]
    parts: dict[int, _Part] = field(default_factory=dict)
    obstacle: Obstacle | None = None
    warned: bool = False
    shape: Hashable = field(init=False)

    def __post_init__(self) -> None:
        demand = self.demand
        amounts = [frozenset((some or {}).items()) for some in (demand.needs, demand.holds, demand.selector)]
        self.shape = (*amounts, demand.node, demand.strategy, len(self.turns))

    @property
    def complete(self) -> bool:
        """Whether all of the group are here."""
        return len(self.parts) == len(self.turns)

    @property
    def deadline(self) -> float:
        """When it is to be refused, on the loop's clock."""
        return float("inf") if self.demand.timeout is None else self.since + self.demand.timeout

    @property
    def first(self) -> ActorSpec:
        """Whoever speaks for it in messages."""
        return next(iter(self.parts.values())).spec


class Placing:
    """Chooses nodes for the actors of this node's processes, and keeps the places of this node. On the I/O loop.

    Args:
        process: the node's.
        members: the nodes that are known.
        stock: what this node has.
        printing: shows warnings at drivers.
    """

    def __init__(self, process: Process, members: Members, stock: Stock, printing: Printing) -> None:
        self._process = process
        self._members = members
        self._stock = stock
        self._printing = printing
        self._turns = itertools.count()  # of actors that are spread one by one
        self._waiting: list[_Wish] = []
        self._groups: dict[str, _Wish] = {}
        self._kicked = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        self._background: set[asyncio.Task[None]] = set()
        members.on_change = self.look_again

    # -- choosing -----------------------------------------------------------------------------------------------

    async def find(self, spec: ActorSpec, seat: Seat | None, waited: float) -> Address:
        """Returns a node that has room, which is set aside there; waits until there is one.

        Args:
            spec: of the actor.
            seat: its place in a group. Of a group that holds resources all are placed at once or none is, so that two
                halves of groups never wait for each other.
            waited: seconds it has waited before, where it comes again since another was quicker.

        Raises:
            PlacementError: there is no such node, or the time it may wait is over.
        """
        demand = spec.demand
        self._check_node(demand)
        if not demand.holds:
            needs = parts(demand.needs)
            if demand.strategy == "DEFAULT" or waited or any(offer.short(needs) for offer in self._offers()):
                await self._refresh(self._now() - (0 if waited else REPORT_SECONDS))
            chosen = choose(demand, self._offers(), [self._turn(seat)], {}, grouped=seat is not None)
            if chosen is not None:
                return self._sent_to(chosen[0]).where
            seat = None  # those who hold nothing need not wait for each other
        return await self._wait_for_room(spec, seat, waited)

    def _turn(self, seat: Seat | None) -> int:
        return seat[1] if seat is not None else next(self._turns)

    def _sent_to(self, node: str) -> Member:
        member = self._members.get(node)
        member.actors += 1
        return member

    def _check_node(self, demand: Demand) -> None:
        if demand.node is None:
            return
        named = [m for m in self._members.all() if demand.node in {m.info.id, m.info.name}]
        alive = ", ".join(member.info.name for member in self._members.alive())
        if not named:
            raise PlacementError(f"no node is called {demand.node!r}; there are: {alive}")
        if not named[0].info.alive:
            raise PlacementError(f"node {demand.node!r} is gone; there are: {alive}")

    def _offers(self) -> list[Offer]:
        me = self._members.me
        return [
            Offer(
                member.info.id, member.info.name, member.info.labels, member.totals,
                self._stock.free() if member is me else member.free, member.actors,
            )
            for member in self._members.alive()
        ]  # fmt: skip

    async def _refresh(self, since: float) -> None:
        """Asks the nodes for what is free, whose last word on it is older than that."""
        old = [member for member in self._members.alive() if member.reported <= since]
        for member in old:
            member.reported = self._now()
            member.asking = self._process.loop.create_task(self._ask(member))
        # Also what others have asked: who comes meanwhile shall not choose by the old word.
        asked = {m.asking for m in self._members.alive() if m.asking is not None and not m.asking.done()}
        if asked:
            await asyncio.wait(asked)

    async def _ask(self, member: Member) -> None:
        if member is self._members.me:
            member.actors = self._stock.holders
            return
        with contextlib.suppress(TimeoutError, ActorDiedError):  # the last report has to do
            member.actors, member.free = await self._process.ask(member.where, "node", "report", timeout=ASK_SECONDS)

    def _now(self) -> float:
        return self._process.loop.time()

    async def available(self) -> dict[str, float]:
        """Returns what is free on all nodes together."""
        await self._refresh(self._now())
        return _summed(whole(offer.free) for offer in self._offers())

    # -- waiting ------------------------------------------------------------------------------------------------

    async def _wait_for_room(self, spec: ActorSpec, seat: Seat | None, waited: float) -> Address:
        part = _Part(spec, self._process.loop.create_future())
        wish = self._enlist(part, seat, waited)
        try:
            return await part.found
        except asyncio.CancelledError:
            if part.found.done() and not part.found.cancelled() and part.found.exception() is None:
                self._return(self._members.get(part.found.result().node), [spec])
            raise
        finally:
            self._strike(wish, part)

    def _enlist(self, part: _Part, seat: Seat | None, waited: float) -> _Wish:
        group, rank, size = seat if seat is not None else ("", 0, 1)
        wish = self._groups.get(group)
        if wish is None:
            turns = list(range(size)) if seat is not None else [next(self._turns)]
            wish = _Wish(part.spec.demand, self._now() - waited, time.time() - waited, turns)
            self._waiting.append(wish)
            self._waiting.sort(key=lambda waiting: waiting.since)
            if group:
                self._groups[group] = wish
        wish.parts[rank] = part
        self.look_again()
        return wish

    def _strike(self, wish: _Wish, part: _Part) -> None:
        """One waits no longer, for whatever reason: with it those that can only be placed together with it."""
        if wish in self._waiting:
            self._refuse(wish, PlacementError(f"{part.spec.label} of the same group was given up"))

    def _drop(self, wish: _Wish) -> None:
        if wish in self._waiting:
            self._waiting.remove(wish)
        for group in [group for group, kept in self._groups.items() if kept is wish]:
            del self._groups[group]

    def _refuse(self, wish: _Wish, error: Exception) -> None:
        self._drop(wish)
        for part in wish.parts.values():
            if not part.found.done():
                part.found.set_exception(error)

    def gone(self, process: str) -> None:
        """A process has ended: nobody needs places for its actors any more."""
        for wish in list(self._waiting):
            if wish.first.owner == process:
                self._drop(wish)
                for part in wish.parts.values():
                    part.found.cancel()

    def pending(self) -> list[dict[str, Any]]:
        """Returns what waits here; see `actors.node.service.NodeService.pending`."""
        return [
            {
                "actor": part.spec.id, "label": part.spec.label, "demand": wish.demand.words,
                "why": str(wish.obstacle or "it has just come"), "since": wish.came,
            }
            for wish in self._waiting for part in wish.parts.values()
        ]  # fmt: skip

    # -- serving those that wait --------------------------------------------------------------------------------

    def look_again(self) -> None:
        """There may be room: those that wait are served."""
        self._kicked.set()
        if self._waiting and self._runner is None:
            self._runner = self._process.loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                self._kicked.clear()
                await self._round()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._kicked.wait()
        except Exception as error:  # ours, but nobody shall wait for ever because of it
            for wish in list(self._waiting):
                self._refuse(wish, error)
            raise
        finally:
            self._runner = None

    def _pause(self) -> float:
        """Returns how long to sleep, if nothing happens: until somebody must be told something."""
        ready = [wish for wish in self._waiting if wish.complete]
        moments = [wish.deadline for wish in ready] + [w.since + WARN_SECONDS for w in ready if not w.warned]
        return min(max(min(moments, default=float("inf")) - self._now(), 0.0), POLL_SECONDS)

    async def _round(self) -> None:
        began = self._now()
        await self._refresh(began - REPORT_SECONDS)
        if await self._serve():
            await self._refresh(began)  # nobody is refused, nor left waiting, by an old report
            await self._serve()
        self._refuse_late()
        self._warn()

    async def _serve(self) -> bool:
        """Places whom it can; returns whether some are left."""
        guarded: Guarded = {}
        failed: dict[Hashable, Obstacle] = {}
        for wish in list(self._waiting):
            if wish not in self._waiting or not wish.complete:
                continue
            if wish.shape not in failed:  # thousands of a kind are looked at once
                if await self._place(wish, guarded):
                    continue
                failed[wish.shape] = obstacle(wish.demand, self._offers(), len(wish.turns), guarded)
            wish.obstacle = failed[wish.shape]
        return bool(failed)

    async def _place(self, wish: _Wish, guarded: Guarded) -> bool:
        try:
            self._check_node(wish.demand)
        except PlacementError as error:
            self._refuse(wish, error)
            return True
        for _ in range(ATTEMPTS):
            chosen = choose(wish.demand, self._offers(), wish.turns, guarded, grouped=len(wish.turns) > 1)
            if chosen is None:
                return False
            nodes = [self._members.get(node) for node in chosen]
            if await self._reserve_all(wish, nodes):
                return True
        return False

    async def _reserve_all(self, wish: _Wish, nodes: list[Member]) -> bool:
        """Sets places aside for all of a wish; what was got is given back where one is refused."""
        lots: defaultdict[str, list[ActorSpec]] = defaultdict(list)
        ranks = [part for _, part in sorted(wish.parts.items())]
        for part, node in zip(ranks, nodes, strict=True):
            lots[node.info.id].append(part.spec)
        got = []
        # In one order for all nodes that place groups, and on each node all or none: so one of two gets through.
        for id, lot in sorted(lots.items()):
            if wish not in self._waiting or not await self._reserve(self._members.get(id), wish.demand, lot):
                break
            got.append(id)
        if len(got) < len(lots) or wish not in self._waiting:
            for id in got:
                self._return(self._members.get(id), lots[id])
            return wish not in self._waiting  # given up meanwhile: it is not waited for
        self._drop(wish)
        for part, node in zip(ranks, nodes, strict=True):
            part.found.set_result(self._sent_to(node.info.id).where)
        return True

    def _refuse_late(self) -> None:
        now = self._now()
        for wish in list(self._waiting):
            if wish.obstacle is not None and wish.deadline <= now:
                self._refuse(wish, PlacementError(self._refusal(wish, wish.obstacle)))
            elif not wish.complete and wish.since + GROUP_SECONDS <= now:
                missing = len(wish.turns) - len(wish.parts)
                self._refuse(wish, PlacementError(f"{missing} of its group never asked for a place"))

    def _refusal(self, wish: _Wish, obstacle: Obstacle) -> str:
        waited = f" within {wish.demand.timeout:g} s" if wish.demand.timeout else ""
        return (
            f"no node can take {wish.first.label}{waited}: it needs {wish.demand.words}, but {obstacle}. "
            f"The nodes: {inventory(self._offers())}"
        )

    def _warn(self) -> None:
        """Says once at the driver what waits there; the like of it in one line."""
        due: defaultdict[tuple[str, str], list[_Wish]] = defaultdict(list)
        for wish in self._waiting:
            if not wish.warned and wish.obstacle is not None and wish.since + WARN_SECONDS <= self._now():
                wish.warned = True
                if wish.first.driver is not None:
                    due[wish.first.driver.process, str(wish.obstacle)].append(wish)
        for wishes in due.values():
            first, others = wishes[0], sum(len(wish.parts) for wish in wishes) - 1
            more = f", as do {others} more" if others else ""
            text = f"waits for room{more}: it needs {first.demand.words}, but {first.obstacle}"
            assert first.first.driver is not None
            self._printing.add(first.first.driver, (first.first.label, "stderr", text))

    # -- places on any node -------------------------------------------------------------------------------------

    async def _reserve(self, member: Member, demand: Demand, lot: list[ActorSpec]) -> bool:
        actors = [spec.id for spec in lot]
        if member is self._members.me:
            return self.reserve(actors, demand)
        try:
            taken, member.free = await self._process.ask(
                member.where, "node", "reserve", actors, demand, timeout=RESERVE_SECONDS
            )
        except (TimeoutError, ActorDiedError):
            member.free = {}  # until it says so, nothing is expected of it
            return False
        return bool(taken)

    def _return(self, member: Member, lot: list[ActorSpec]) -> None:
        for spec in lot:
            if member is self._members.me:
                self.release(spec.id)
            else:
                self._in_background(self._tell_returned(member, spec.id))

    async def _tell_returned(self, member: Member, actor: str) -> None:
        with contextlib.suppress(TimeoutError, ActorDiedError):  # else it is free again when its time is over
            await self._process.ask(member.where, "node", "unreserve", actor, timeout=RESERVE_SECONDS)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._process.loop.create_task(work)
        self._background.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._background.discard)

    # -- places on this node ------------------------------------------------------------------------------------

    def reserve(self, actors: list[str], demand: Demand) -> bool:
        """Sets places on this node aside for actors that are about to come; returns whether there is room for all."""
        for number, actor in enumerate(actors):
            if not self._stock.take(actor, demand.needs, demand.holds):
                for taken in actors[:number]:
                    self.release(taken)
                return False
            self._forget_expiry(actor)
            self._expiries[actor] = self._process.loop.call_later(RESERVED_SECONDS, self.release, actor)
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
        """Takes back what an actor without a process, or a process, holds."""
        self._forget_expiry(holder)
        if self._stock.give_back(holder):
            self.look_again()

    def blocked(self, process: str) -> None:
        """A thread of a process waits: others may have its CPUs for so long."""
        if self._stock.wait(process):
            self.look_again()

    def unblocked(self, process: str) -> None:
        """A thread of a process goes on, with its CPUs."""
        self._stock.resume(process)

    def close(self) -> None:
        """Serves nobody any more."""
        for task in [self._runner, *self._background, *(member.asking for member in self._members.all())]:
            if task is not None:
                task.cancel()
        for expiry in self._expiries.values():
            expiry.cancel()


def _summed(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for some in amounts:
        for name, value in some.items():
            total[name] += value
    return dict(total)
