"""Copies: what other nodes need to take a detached actor over, kept there and kept up to date."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING

from actors.demand import matches, parts
from actors.exceptions import ActorDiedError
from actors.frozen import travelling
from actors.node.ring import in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from actors.address import Address
    from actors.courier import Lease
    from actors.life import Life
    from actors.messages import Payload
    from actors.node.members import Member, Members
    from actors.process import Process
    from actors.spec import ActorSpec, Construction

DROP_SECONDS = 5.0
SERIALS = 1 << 48  # of the states that the actor may send to its heirs itself, between two of the node's own


@travelling
@dataclass(frozen=True, slots=True)
class Ward:
    """An actor that one node has charge of and others could take over.

    Attributes:
        construction: what it is made by, as it was asked for, with the state that was saved last.
        left: how often it may still be made anew; -1 for ever.
        times: how often it was.
        holder: process of the node that has charge of it.
        heirs: those of the nodes that would take it over, in this order.
        term: how often its charge has passed on: of two nodes that believe to have it, the one with the higher has.
        serial: of the state, which grows with each that is saved in this term.
        replicas: how many heirs it shall have.
    """

    construction: Construction
    left: int
    times: int
    holder: str
    heirs: tuple[str, ...]
    term: int = 0
    serial: int = 0
    replicas: int = 0


class Copies:
    """Sees to it that an actor's heirs know of it. On the I/O loop.

    Args:
        process: of the node that has charge of it.
        members: the nodes that are known.
        ward: what is to be kept.
        life: the actor's, which says how often it may still be made anew.
        replicas: on how many other nodes.
        lost: told who has charge of the actor since, where this node was not told.
        newest: takes a state that the heirs had, with its number; returns whether no later one is here.

    Attributes:
        ward: as it is now.
        replicas: see above.
    """

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        process: Process,
        members: Members,
        ward: Ward,
        life: Life,
        replicas: int,
        lost: Callable[[str, Address], None],
        newest: Callable[[int, Payload], bool],
    ) -> None:
        self.ward = replace(ward, replicas=replicas)
        self.replicas = replicas
        self._process = process
        self._members = members
        self._life = life
        self._lost = lost
        self._newest = newest
        self._at: dict[str, Address] = {}  # the heirs that have it, by node
        self._sending = asyncio.Lock()  # states arrive in the order in which they were saved
        self._latest: Payload  # of the states that were saved; the one before it need not be sent any more
        self._taken = self._sent = 0  # how many were saved, and how many of them the heirs have
        self._lease: int | None = None  # the serial after which the actor sends states to these heirs itself
        self._recalling = asyncio.Lock()

    @property
    def lacks(self) -> bool:
        """Whether an heir is gone, or there may be one more."""
        alive = {member.info.id: member.where.process for member in self._members.standing()}
        gone = any(alive.get(node) != where.process for node, where in self._at.items())
        return gone or len(self._at) < self.replicas

    def saved(self, state: Payload | None, base: int | None = None) -> Coroutine[Any, Any, Lease | None] | None:
        """The actor has saved its state; returns what ends when its heirs have it too, or a later one.

        Args:
            state: itself; None where a later one is known.
            base: the actor has sent it to the heirs by the leave that begins with this serial.

        Returns:
            What gives leave to send states to the heirs itself from now on. None where there is nothing to wait for:
            what leave it has holds, or there are no heirs.
        """
        if not self.replicas:
            return None
        if base is not None and base == self._lease:
            if state is not None:
                self._hold(state)
            return None
        return self._bring(state)

    async def _bring(self, state: Payload | None) -> Lease | None:
        if state is not None:
            self._latest, self._taken = state, self._taken + 1
            mine = self._taken
            async with self._sending:
                if self._sent < mine:
                    state, upto = self._latest, self._taken
                    await self._send(state)
                    self._sent = upto
        return self._let()

    def settle(self, state: Payload) -> None:
        """The actor has moved, and this is the state that it has begun with there: its heirs have no later one."""
        self._hold(state, self._next_serial())

    async def recall(self) -> None:
        """Has the state kept that the actor has sent to its heirs last; they take none any more that it still sends.

        Its process may have ended before it could tell of that state, or it may be about to tell.
        """
        async with self._recalling:
            base = self._lease
            if base is None:
                return
            self.ward = replace(self.ward, serial=self._next_serial())
            told = (self.ward.construction.spec.id, self.ward.term, self.ward.serial)
            said = await asyncio.gather(*(self._recalled(where, *told) for where in self._at.values()))
            serial, state = max((one for one in said if one is not None), key=itemgetter(0), default=(base, None))
            if state is not None and serial > base and self._newest(serial - base, state):
                self._hold(state)

    async def _recalled(self, where: Address, *told: object) -> tuple[int, Payload] | None:
        try:
            found: tuple[int, Payload] | None = await self._process.ask(where, "custody", "recall", *told, timeout=None)
        except (ActorDiedError, AttributeError):  # it is gone, or of a version before actors sent states by themselves
            return None
        return found

    def _hold(self, state: Payload, serial: int | None = None) -> None:
        construction = replace(self.ward.construction, state=state)
        self.ward = replace(self.ward, construction=construction, serial=serial or self.ward.serial)

    def _let(self) -> Lease | None:
        """Lets the actor send its states to the heirs itself, in parallel with sending them here."""
        if self._sending.locked() or self._recalling.locked() or not self._at:
            return None
        base = self._lease = (self.ward.serial // SERIALS + 1) * SERIALS
        self.ward = replace(self.ward, serial=base)
        return self.ward.term, base, tuple(self._at.values())

    def _next_serial(self) -> int:
        """Returns a serial after all that the actor may have used; what it was given for them holds no more."""
        if self._lease is None:
            return self.ward.serial + 1
        self._lease = None
        return (self.ward.serial // SERIALS + 1) * SERIALS

    async def _send(self, state: Payload) -> None:
        self._hold(state, self._next_serial())
        what = (self.ward.construction.spec.id, self.ward.term, self.ward.serial, state)
        if self._at and all(await asyncio.gather(*(self._tell(n, "update", *what) for n in list(self._at)))):
            return
        await self._spread()

    async def spread(self) -> None:
        """Gives the actor as many heirs as it shall have, as far as there are nodes."""
        if self.replicas:
            async with self._sending:
                await self._spread()

    async def _spread(self) -> None:
        await self.recall()
        before = dict(self._at)
        while not await self._spread_once():
            pass
        there = {member.where.process for member in self._members.standing()}
        left = [where for node, where in before.items() if node not in self._at and where.process in there]
        for where in left:  # else two that have copies would each take the actor over
            self._process.tell(where, "custody", "drop", self.ward.construction.spec.id, self.ward.term)

    async def _spread_once(self) -> bool:
        found = heirs(self._members, self.ward.construction.spec)
        there = {member.info.id: member.where for member in found}
        processes = {where.process for where in there.values()}
        self._at = {node: where for node, where in self._at.items() if where.process in processes}
        for node, where in there.items():
            if len(self._at) < self.replicas:
                self._at.setdefault(node, where)
        self.ward = replace(
            self.ward,
            heirs=tuple(where.process for where in self._at.values()),
            left=self._life.left,
            times=self._life.times,
            serial=self._next_serial(),
        )
        return all(await asyncio.gather(*(self._tell(node, "keep", self.ward) for node in list(self._at))))

    async def _tell(self, node: str, method: str, *what: object) -> bool:
        """Tells an heir; False where it is none any more. One that is silent is waited for until it is known dead."""
        try:
            since = await self._process.ask(self._at[node], "custody", method, *what, timeout=None)
        except (ActorDiedError, LookupError):
            where = self._at.pop(node, None)
            member = self._members.find(node)
            if where is not None and member is not None and member.where.process == where.process:
                member.lost = where.process  # this node is slower to see it than this conversation
            return False
        if since is not None:
            self._lost(self.ward.construction.spec.id, since)
            raise ActorDiedError(f"{self.ward.construction.spec.label} was taken over by node {since.node_name}")
        return True

    async def end(self) -> None:
        """The actor has ended: nobody is to take it over."""
        for where in self._at.values():
            with contextlib.suppress(TimeoutError, ActorDiedError):
                id = self.ward.construction.spec.id
                await self._process.ask(where, "custody", "drop", id, self.ward.term, timeout=DROP_SECONDS)


def heirs(members: Members, spec: ActorSpec) -> list[Member]:
    """Returns the other nodes that could take an actor over, in the order of its preference, which differs by actor."""
    demand = spec.demand
    needs = parts(demand.needs)
    found = [
        member
        for member in members.others()
        if member.lost != member.where.process
        and not member.info.draining
        and matches(demand.selector, member.info.labels)
        and all(member.totals.get(name, 0) >= count for name, count in needs.items())
    ]
    return in_order(spec.id, found)
