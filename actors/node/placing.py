"""Finds room for actors: what cannot be placed now waits, first come, first served."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from actors.console import Line
from actors.demand import parts
from actors.exceptions import ActorDiedError, PlacementError
from actors.node.choice import Guarded, Obstacle, Offer, choose, inventory, obstacle, suitable
from actors.node.places import Places
from actors.node.stock import whole
from actors.node.waiting import Part, Waiting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Iterable, Mapping

    from actors.address import Address
    from actors.demand import Demand
    from actors.node.members import Member, Members
    from actors.node.printing import Printing
    from actors.node.stock import Stock
    from actors.node.waiting import Seat, Wish
    from actors.process import Process
    from actors.spec import ActorSpec

ASK_SECONDS = 1.0
RESERVE_SECONDS = 5.0
REPORT_SECONDS = 0.5  # how old another node's word on its load may be, where nothing is at stake
POLL_SECONDS = 1.0  # between two looks, should the word of a release on another node be lost
WARN_SECONDS = 1.0
AGAIN_SECONDS = 30.0  # between two warnings of the same kind
GUARD_SECONDS = 5.0  # in which nobody who came later takes what one waits for; then whoever fits goes first
SAMPLE = 16  # of many nodes so many are asked for each kind of actor that waits
MOST_SHAPES = 16  # kinds of actors that are looked for at a time
FRESH_SECONDS = 2.0  # how old the word of one of many may be
ATTEMPTS = 3  # to reserve, where others are quicker


class Placing:
    """Chooses nodes for the actors of this node's processes. On the I/O loop.

    Args:
        process: the node's.
        members: the nodes that are known.
        stock: what this node has.
        printing: shows warnings at drivers.

    Attributes:
        places: those of this node.
    """

    def __init__(self, process: Process, members: Members, stock: Stock, printing: Printing) -> None:
        self._process = process
        self._members = members
        self.places = Places(stock, process.loop, self.look_again)
        self._printing = printing
        self._turns = itertools.count()  # of actors that are spread one by one
        self._waiting = Waiting()
        self._sample = SAMPLE
        self._kicked = asyncio.Event()
        self._runner: asyncio.Task[None] | None = None
        self._told: dict[Hashable, float] = {}  # drivers, of what, and when
        self._background: set[asyncio.Task[None]] = set()
        members.watchers.append(self.look_again)

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
            if demand.strategy == "DEFAULT" or waited:
                await self._refresh(self._now() - (0 if waited else REPORT_SECONDS), [demand])
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
        alive = ", ".join(member.info.name for member in self._members.alive() if not member.info.draining)
        if not named:
            raise PlacementError(f"no node is called {demand.node!r}; there are: {alive}")
        if all(member.ended for member in named):
            raise PlacementError(f"node {demand.node!r} is gone ({named[0].why}); there are: {alive}")
        if all(member.info.draining for member in named if not member.ended):
            raise PlacementError(
                f"node {demand.node!r} is being drained and takes no actors until `actors drain {demand.node} --undo`; "
                f"there are: {alive or 'no others'}"
            )

    def _offers(self, *, everyone: bool = False) -> list[Offer]:
        """Returns what nodes have to give; where they are many, those that have said so of late, if not all."""
        me, sparse = self._members.me, self._members.sparse and not everyone
        since = self._now() - FRESH_SECONDS
        return [
            Offer(
                member.info.id, member.info.name, member.info.labels, member.totals,
                self.places.report()[1] if member is me else member.free, member.actors,
            )
            for member in self._members.alive()
            if not member.info.draining and (not sparse or member is me or member.reported > since)
        ]  # fmt: skip

    def _asked(self, demands: Iterable[Demand] | None) -> list[Member]:
        """Returns the nodes that are asked for what is free: all; where they are many, some of those that would do."""
        if demands is None or not self._members.sparse:
            return self._members.alive()
        offers, chosen = self._offers(everyone=True), {self._members.me.info.id}
        for demand in itertools.islice(demands, MOST_SHAPES):
            needs = parts(demand.needs)
            able = [offer.id for offer in suitable(demand, offers) if offer.able(needs)]
            chosen.update(random.sample(able, min(len(able), self._sample)))
        return [self._members.get(node) for node in chosen]

    async def _refresh(self, since: float, demands: Iterable[Demand] | None = None) -> None:
        """Asks the nodes for what is free, whose last word on it is older than that; see `_asked`."""
        old = [member for member in self._asked(demands) if member.reported <= since]
        for member in old:
            member.reported = self._now()
            member.asking = self._process.loop.create_task(self._ask(member))
        # Also what others have asked: who comes meanwhile shall not choose by the old word.
        asked = {m.asking for m in self._members.alive() if m.asking is not None and not m.asking.done()}
        if asked:
            await asyncio.wait(asked)

    async def _ask(self, member: Member) -> None:
        if member is self._members.me:
            member.actors, _ = self.places.report()
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
        part = Part(spec, self._process.loop.create_future())
        wish = self._waiting.add(part, seat, self._now() - waited, self._turn(seat))
        self.look_again()
        try:
            return await part.found
        except asyncio.CancelledError:
            if part.found.done() and not part.found.cancelled() and part.found.exception() is None:
                self._return(self._members.get(part.found.result().node), [spec])
            raise
        finally:
            self._waiting.strike(wish, part)

    def gone(self, process: str) -> None:
        """A process has ended: nobody needs places for its actors any more."""
        self._waiting.gone(process)

    def pending(self) -> list[dict[str, Any]]:
        """See `Waiting.listed`."""
        return self._waiting.listed()

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
            for wish in self._waiting:
                self._waiting.refuse(wish, error)
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
        await self._refresh(began - REPORT_SECONDS, self._demands())
        left = await self._serve()
        if left:
            await self._refresh(began, self._demands())  # nobody is refused, nor left waiting, by an old report
            left = await self._serve()
        if left and self._members.sparse and self._somebody_is_late():
            await self._refresh(began)  # nobody is refused because of those that were asked
            left = await self._serve()
        self._sample = min(self._sample * 2, len(self._members.alive())) if left else SAMPLE
        self._refuse_late()
        self._warn()

    def _demands(self) -> list[Demand]:
        """Returns what is waited for, each kind once."""
        return list({wish.shape: wish.demand for wish in self._waiting if wish.complete}.values())

    def _somebody_is_late(self) -> bool:
        now = self._now()
        return any(wish.complete and wish.deadline <= now for wish in self._waiting)

    async def _serve(self) -> bool:
        """Places whom it can; returns whether some are left."""
        guarded: Guarded = {}
        failed: dict[Hashable, Obstacle] = {}
        for wish in self._waiting:
            if not wish.open or not wish.complete:
                continue
            if wish.shape not in failed:  # thousands of a kind are looked at once
                if await self._place(wish, guarded):
                    continue
                offers = self._offers()
                if not suitable(wish.demand, offers):
                    offers = self._offers(everyone=True)
                failed[wish.shape] = obstacle(wish.demand, offers, len(wish.turns), guarded)
            wish.obstacle = failed[wish.shape]
        return bool(failed)

    async def _place(self, wish: Wish, guarded: Guarded) -> bool:
        try:
            self._check_node(wish.demand)
        except PlacementError as error:
            self._waiting.refuse(wish, error)
            return True
        if wish.since + GUARD_SECONDS <= self._now():
            guarded = {node: set(names) for node, names in guarded.items()}
        for _ in range(ATTEMPTS):
            chosen = choose(wish.demand, self._offers(), wish.turns, guarded, grouped=bool(wish.group))
            if chosen is None:
                return False
            nodes = [self._members.get(node) for node in chosen]
            if await self._reserve_all(wish, nodes):
                return True
        return False

    async def _reserve_all(self, wish: Wish, nodes: list[Member]) -> bool:
        """Sets places aside for all of a wish; what was got is given back where one is refused."""
        lots: defaultdict[str, list[ActorSpec]] = defaultdict(list)
        ranks = wish.ranks()
        for part, node in zip(ranks, nodes, strict=True):
            lots[node.info.id].append(part.spec)
        got = []
        # In one order for all nodes that place groups, and on each node all or none: so one of two gets through.
        for id, lot in sorted(lots.items()):
            if not await self._reserve(self._members.get(id), wish.demand, lot):
                break
            got.append(id)
        given_up = not wish.open or any(part.found.done() for part in ranks)
        if len(got) < len(lots) or given_up:
            for id in got:
                self._return(self._members.get(id), lots[id])
            return given_up
        self._waiting.drop(wish)
        for part, node in zip(ranks, nodes, strict=True):
            part.found.set_result(self._sent_to(node.info.id).where)
        return True

    def _refuse_late(self) -> None:
        now = self._now()
        for wish in self._waiting:
            if wish.obstacle is not None and wish.deadline <= now:
                self._waiting.refuse(wish, PlacementError(self._refusal(wish, wish.obstacle)))
        self._waiting.refuse_incomplete(now)

    def _refusal(self, wish: Wish, obstacle: Obstacle) -> str:
        waited = f" within {wish.demand.timeout:g} s" if wish.demand.timeout else ""
        return (
            f"no node can take {wish.first.label}{waited}: it needs {wish.demand.words}, but {obstacle}. "
            f"The nodes: {inventory(self._offers())}"
        )

    def _warn(self) -> None:
        """Says at the driver what waits there: once, the like of it in one line, and not again for a while."""
        now = self._now()
        self._told = {what: when for what, when in self._told.items() if when + AGAIN_SECONDS > now}
        due: defaultdict[Hashable, list[Wish]] = defaultdict(list)
        for wish in self._waiting:
            if not wish.warned and wish.obstacle is not None and wish.since + WARN_SECONDS <= now:
                wish.warned = True
                if (
                    wish.first.driver is not None
                    and (what := (wish.first.driver.process, wish.shape)) not in self._told
                ):
                    due[what].append(wish)
        for kind, wishes in due.items():
            self._told[kind] = now
            first, others = wishes[0], sum(len(wish.parts) for wish in wishes) - 1
            more = f", as do {others} more" if others else ""
            text = f"waits for room{more}: it needs {first.demand.words}, but {first.obstacle}"
            assert first.first.driver is not None
            self._printing.add(first.first.driver, Line(first.first.label, "stderr", text))

    # -- places on any node -------------------------------------------------------------------------------------

    async def _reserve(self, member: Member, demand: Demand, lot: list[ActorSpec]) -> bool:
        actors = [spec.id for spec in lot]
        if member is self._members.me:
            return self.places.reserve(actors, demand)
        try:
            taken, member.free = await self._process.ask(
                member.where, "node", "reserve", actors, demand, timeout=RESERVE_SECONDS
            )
        except (TimeoutError, ActorDiedError):
            member.free = {}  # until it says so, nothing is expected of it
            self._return(member, lot)  # it may have taken them, too late to be heard
            return False
        return bool(taken)

    def _return(self, member: Member, lot: list[ActorSpec]) -> None:
        for spec in lot:
            if member is self._members.me:
                self.places.release(spec.id)
            else:
                self._in_background(self._tell_returned(member, spec.id))

    async def _tell_returned(self, member: Member, actor: str) -> None:
        with contextlib.suppress(TimeoutError, ActorDiedError):  # else it is free again when its time is over
            await self._process.ask(member.where, "node", "unreserve", actor, timeout=RESERVE_SECONDS)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._process.loop.create_task(work)
        self._background.add(task)  # the loop itself holds tasks only weakly
        task.add_done_callback(self._background.discard)

    def close(self) -> None:
        """Serves nobody any more."""
        for task in [self._runner, *self._background, *(member.asking for member in self._members.all())]:
            if task is not None:
                task.cancel()
        self.places.close()


def _summed(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: defaultdict[str, float] = defaultdict(float)
    for some in amounts:
        for name, value in some.items():
            total[name] += value
    return dict(total)
