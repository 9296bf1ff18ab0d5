"""A charge: one actor as its owner sees it. It is placed, constructed, watched, and made anew when it may be."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from actors import runtime
from actors.constructor import Constructor, Nobody, resolved
from actors.events import event
from actors.exceptions import ActorDiedError, ActorError, Verdict
from actors.latest import Latest
from actors.life import Life
from actors.line import kind_of, never_placed, of_death
from actors.messages import CONSTRUCT, RETIRE, Payload, Terms
from actors.migration import check_moves, depart, destined, go, prepare, settled, stay
from actors.placement import Placement
from actors.serialize import dumps_arguments
from actors.transport.peer import Death

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence
    from concurrent.futures import Future

    from actors.address import Address
    from actors.courier import Lease
    from actors.process import Process
    from actors.sealed import Sealed
    from actors.spec import ActorSpec, Construction, GroupSpec

BACKOFF_SECONDS = 0.1  # before the first restart; twice as long before each further one
LONGEST_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 60.0  # an actor that has lived this long is restarted at once again


class Copies(Protocol):
    """Copies of an actor's state elsewhere; see `actors.node.copies`."""

    def saved(self, state: Payload | None, base: int | None = None) -> Coroutine[Any, Any, Lease | None] | None:
        """Returns what ends when they are up to date; see `actors.node.copies`."""

    def settle(self, state: Payload) -> None:
        """The actor has moved with this state."""


class Charge:
    """One actor of this process's, from its making to its end. All methods belong to the I/O loop.

    Args:
        process: this process, which owns it.
        construction: what it is made by.
        max_restarts: how often it may be made anew; -1 for ever.
        needs: values that its constructor waits for.
        ended: told why it will not be there any more.
    """

    def __init__(
        self,
        process: Process,
        construction: Construction,
        max_restarts: int,
        needs: Sequence[Future[Sealed]],
        ended: Callable[[ActorError], None],
    ) -> None:
        self.spec = construction.spec
        self.siblings: Sequence[Charge] = (self,)  # the members of its group
        self.labels: tuple[str, ...] = ()
        self.place: asyncio.Future[Address] = process.loop.create_future()  # its first one; siblings wait for it
        self._process = process
        self._construction = construction
        self._state = Latest(construction.state)
        self.life = Life(max_restarts)
        self.copies: Copies | None = None
        self.before_restart: Callable[[Death], Awaitable[None]] | None = None  # waited for before it is made anew
        self._needs = needs
        self._ended = ended
        self._address: Address | None = None
        self._error: ActorError | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._placement = Placement(process, self._give_back)
        self._terms = Terms(origin=runtime.origin())  # of the constructor
        self._times = 0
        self._retiring = False
        self._moving = asyncio.Lock()
        self._maker: Constructor | None = None
        self._source = ""  # the process from which states are taken
        self._passed = False  # it is in another's charge
        self._transit: asyncio.Future[None] | None = None  # while it is made elsewhere
        self._relieved: asyncio.Future[None] = process.loop.create_future()  # done where it has come to live elsewhere
        self._next: tuple[Address, Constructor] | None = None  # where that is

    # -- for its owner ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts the making."""
        if self._error is None:
            self._tell(event.PENDING)
            self._task = self._process.loop.create_task(self._run())

    def _tell(self, state: str, reason: str = "") -> None:
        self._process.recorder.emit(event.ActorChanged.of(self.spec, state, reason=reason))

    @property
    def over(self) -> bool:
        """Whether it has been made, or never will be."""
        return self._error is not None or (self._maker is not None and self._maker.made.done())

    async def located(self, left: str | None) -> Address:
        """Waits until the actor lives another life than ``left``; returns where.

        Raises:
            ActorError: it is not, and will not be.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self._address is not None and self._address.life != left:
                return self._address
            await self._changed.wait()

    def doomed(self) -> bool:
        """See `Life`."""
        return self.life.doomed

    @property
    def needless(self) -> bool:
        """Whether it has no place, and nobody can call it any more."""
        return self._retiring and self._address is None

    async def kill(self, no_restart: bool) -> None:
        """Ends the actor at once, for good or to be made anew; returns when its process has ended."""
        if no_restart:
            self.life.finish()
        address = self._address
        if address is not None:
            await self._process.kill(address, no_restart)
        elif no_restart:
            self.give_up(ActorDiedError(f"{self.spec.label} was killed before it had a place"))

    def give_up(self, error: ActorError) -> None:
        """Ends the making of an actor that has no place yet."""
        if self._task is not None:
            self._task.cancel()
        if not self.place.done():
            self.place.cancel()
        self._end(error)

    async def retire(self) -> None:
        """Ends the actor once it has answered what it was asked: nobody can call it any more.

        One that has no place yet was asked nothing, since an open call refers to its actor: it is not made at all.
        """
        self._retiring = True
        self.life.finish()
        # Of a group, none is given up while others of it are to live.
        if all(sibling.needless for sibling in self.siblings):
            for sibling in self.siblings:
                sibling.give_up(ActorDiedError(f"{sibling.spec.label} was not made: nothing needs it any more"))
            return
        with contextlib.suppress(ActorError):
            address = await self.located(None)
            peer = self._process.party(address)
            peer.call(self.spec.id, RETIRE, dumps_arguments((), {}), Nobody())

    def saved(
        self, state: Payload, number: int | None = None, base: int | None = None, source: str | None = None
    ) -> Coroutine[Any, Any, Lease | None] | None:
        """Takes the actor's state over, for the next time it is made; returns what ends when it is safe, None if it is.

        Args:
            state: itself.
            number: of the state, as its process counts them.
            base: see `actors.courier.Lease`.
            source: the process that sends it; of one in which the actor lives no more, it came too late.
        """
        if source is not None and source != self._source:
            return None
        newest = self.keep(number, state)
        return self.copies.saved(state if newest else None, base) if self.copies is not None else None

    def keep(self, number: int | None, state: Payload) -> bool:
        """See `actors.keeper.Charge`; returns whether no later one is here."""
        return self.life.doomed or self._state.take(number, state)  # doomed: it is not needed again

    async def move(self, node: str | None) -> None:
        """Has the actor live on another node, with its state; returns once it does, and raises where it has stayed.

        Args:
            node: name or id; None for any other than its own.

        Raises:
            ValueError: it cannot be moved.
            PlacementError: there is no such node, or no room on it.
            ActorError: it is gone, or a call of its does not end.
            Exception: what its ``__actor_save__`` raised.
        """
        async with self._moving:
            here = await self.located(None)
            if node in {here.node, here.node_name}:
                return
            check_moves(self.spec)
            bound = destined(self.spec, node)
            there = await self._placement.find(bound)
            try:
                await self._transfer(here, there)
            except BaseException:
                await asyncio.shield(self._call_off(there))
                raise
            await go(self._process, here, self.spec, there)

    async def _transfer(self, here: Address, there: Address) -> None:
        """Has the actor made in another place while it stands still in this one."""
        prepare(self._process, there, self.spec, self._construction.code)
        state = await depart(self._process, here, self.spec)
        self._transit = self._process.loop.create_future()
        try:
            self._state.take(None, state)
            spec = replace(settled(self.spec, there), life=self.life.times)
            constructor = self._make(there, self._order(None, spec))
            ends: set[asyncio.Future[Any]] = {constructor.made, constructor.failed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if constructor.failed.done():
                raise constructor.failed.result()
            if self._error is not None:
                raise self._error
            self.spec, self._next = spec, (there, constructor)
            if self.copies is not None:
                self.copies.settle(state)
            self._live_at(there)
            self._relieved.set_result(None)
        except BaseException:
            self._source = here.process
            stay(self._process, here, self.spec)
            raise
        finally:
            if self.life.doomed:
                self._state = Latest(None)
            self._transit.set_result(None)
            self._transit = None

    async def pass_on(self, adopt: Callable[[Construction], Awaitable[Address]]) -> None:
        """Gives the actor, as it is between two calls, into another's charge.

        Args:
            adopt: makes it there and returns where.

        Raises:
            Exception: it could not; the actor goes on where it is, in this charge.
        """
        async with self._moving:
            here = await self.located(None)
            check_moves(self.spec)
            state = await depart(self._process, here, self.spec)
            try:
                there = await adopt(replace(self._construction, state=state))
            except BaseException:
                stay(self._process, here, self.spec)
                raise
            self._passed = True
            await go(self._process, here, self.spec, there)

    async def passed_on(self) -> None:
        """Ends the actor here: another has charge of it, and has made it anew."""
        self._passed = True
        self.life.finish()
        if self._address is not None:
            await self._process.kill(self._address)

    async def constructed(self) -> None:
        """Waits until the actor's constructor is over.

        Raises:
            ActorError: it raised.
        """
        while self._maker is None:
            await self.located(None)
        ends: set[asyncio.Future[Any]] = {self._maker.made, self._maker.failed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._maker.failed.done():
            raise self._maker.failed.result()

    async def _moved(self, death: Death) -> bool:
        """Whether the actor has come to live elsewhere, instead of having died."""
        if self._transit is not None and not death.intended:
            await asyncio.shield(self._transit)
        return self._next is not None

    # -- its life -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                address = await self._take_up_place()
                begun = self._process.loop.time()
                death = await self._construct(address)
                while await self._moved(death):
                    assert self._next is not None
                    following, self._next = self._next, None
                    self._relieved = self._process.loop.create_future()
                    death = await self._until_dead(*following)
            except asyncio.CancelledError:
                self._end(ActorDiedError(f"{self.spec.label} was not placed: its program is shutting down"))
                raise
            except ActorError as error:
                self._end(error)
                return
            except Exception as error:
                self._end(never_placed(self.spec.label, error))
                return
            if self._passed:
                return
            if not self.life.died(intended=death.intended):
                self._end(self._died_of(death))
                return
            self._address = None
            self._tell(event.RESTARTING, death.reason)
            # It has had its place: to come back it waits for one as long as it takes.
            demand = replace(self.spec.demand, timeout=None)
            self.spec = replace(self.spec, demand=demand, life=self.life.times)
            if self._process.loop.time() - begun > STEADY_SECONDS:
                self._times = 0  # restarts one after the other
            if self.before_restart is not None:
                await self.before_restart(death)
            await asyncio.sleep(min(BACKOFF_SECONDS * 2**self._times, LONGEST_BACKOFF_SECONDS))
            self._times += 1

    def _died_of(self, death: Death) -> ActorError:
        times = self.life.times
        again = f" It had been made anew {times} times, and may not be any more." if times else ""
        return of_death(death, self.spec.label, self._address, Verdict.NEVER_STARTED, kind=kind_of(death), more=again)

    def _end(self, error: ActorError) -> None:
        self.life.end()
        if self._error is not None:
            return
        self._error = error
        self._needs = ()
        self._construction = replace(self._construction, code=_NOTHING, arguments=_NOTHING, state=None)
        self._state = Latest(None)
        self._tell(event.DEAD, _briefly(error))
        self._turn()
        if self.spec.name is not None and (self.spec.restarts or self.spec.light):
            self._process.loop.create_task(self._free_name())
        self._ended(error)

    async def _free_name(self) -> None:
        """Has the name freed that was kept for the next life."""
        with contextlib.suppress(ActorError, TimeoutError):  # no node is left that could keep it
            for node in await self._process.ask_home("addresses"):
                self._process.tell(node, "node", "free_name", self.spec)

    def _turn(self) -> None:
        """Wakes those who wait for news."""
        self._changed.set()
        self._changed = asyncio.Event()

    # -- its making ---------------------------------------------------------------------------------------------

    async def _take_up_place(self) -> Address:
        try:
            address = await self._take_place()
        except BaseException as error:
            if not self.place.done():
                self.place.set_exception(error)
                self.place.exception()  # siblings may never look
            raise
        if not self.place.done():
            self.place.set_result(address)
        return address

    async def _take_place(self) -> Address:
        group = self._construction.group
        seat = (group.id, group.rank, len(self.labels)) if group is not None else None
        return await self._placement.find(self.spec, seat)

    async def _construct(self, address: Address) -> Death:
        """Has the class made at ``address``; returns how it died in the end.

        Raises:
            ActorError: its constructor raised.
        """
        try:
            group = await self._meet_siblings()
            await self._resolve()
        except BaseException:
            await self._give_back(address)
            raise
        order = self._order(group, self.spec)
        address = self._seat(address)
        constructor = self._make(address, order)
        del order
        self._live_at(address)
        return await self._until_dead(address, constructor)

    def _make(self, address: Address, order: Payload) -> Constructor:
        constructor = self._maker = Constructor(self._process.loop)
        self._source = address.process
        self._process.party(address).call(self.spec.id, CONSTRUCT, order, constructor, self._terms)
        return constructor

    def _live_at(self, address: Address) -> None:
        self._address = address
        self.life.placed()
        self._turn()

    async def _until_dead(self, address: Address, constructor: Constructor) -> Death:
        """Waits until the actor lives there no more; what is returned counts only if it has not moved."""
        died: asyncio.Future[Death] = self._process.loop.create_future()
        self._process.party(address).when_dead(lambda death: None if died.done() else died.set_result(death))
        ends: set[asyncio.Future[Any]] = {died, constructor.failed, self._relieved}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if constructor.failed.done():
            died.cancel()
            raise constructor.failed.result()
        if not died.done():
            died.set_result(Death("it has moved", moved=True))
        return died.result()

    def _order(self, group: GroupSpec | None, spec: ActorSpec) -> Payload:
        state = self._state.begin()
        construction = replace(self._construction, spec=spec, group=group, keeper=self._process.address, state=state)
        if self.life.doomed:  # nothing of it is needed again
            construction = replace(construction, checkpoint=None)
            if not spec.moves:
                self._construction = replace(construction, code=_NOTHING, arguments=_NOTHING, state=None)
                self._state = Latest(None)
        return dumps_arguments((construction,), {})

    def _seat(self, address: Address, /) -> Address:
        """Returns where exactly the actor is made, once it is about to be."""
        return address

    async def _give_back(self, address: Address, /) -> None:
        """Gives a place back in which nothing was made."""
        await self._process.kill(address)

    async def _call_off(self, address: Address) -> None:
        """Gives a place back to which the actor has not moved: that its process ends there is no end of the actor."""
        node = await self._process.node_address(address.node)
        if node is not None:
            with contextlib.suppress(ActorDiedError, TimeoutError):  # then there is nothing to give back either
                await self._process.ask(node, "node", "ending", address.process, "its actor stays", True, moved=True)
        await self._give_back(address)

    async def _meet_siblings(self) -> GroupSpec | None:
        group = self._construction.group
        if group is None:
            return None
        members = tuple(await asyncio.gather(*(sibling.place for sibling in self.siblings)))
        labels = tuple(f"{label} on node {m.node_name}" for label, m in zip(self.labels, members, strict=True))
        return replace(group, members=members, labels=labels)

    async def _resolve(self) -> None:
        self._construction = await resolved(self._construction, self._needs)
        self._needs = ()


def _briefly(error: ActorError) -> str:
    """Returns the first line of what happened to an actor."""
    return (str(error).splitlines() or [""])[0][:300]


_NOTHING = Payload(b"")
