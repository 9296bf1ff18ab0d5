"""How actors come to be: a node gives a process, the owner sends it the class."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors import runtime
from actors.calls import future_of
from actors.cluster import current
from actors.exceptions import ActorDiedError, Verdict
from actors.group import ActorGroup
from actors.handle import ActorHandle
from actors.ids import new_id
from actors.line import Line
from actors.messages import CONSTRUCT, Outcome, Payload
from actors.sealed import Filled, with_slots
from actors.serialize import dumps, dumps_arguments, loads
from actors.spec import ActorSpec, Construction, GroupSpec, describe

if TYPE_CHECKING:
    from concurrent.futures import Future

    from actors.address import Address
    from actors.holdings import Hold
    from actors.messages import Item, Reply
    from actors.options import ActorOptions
    from actors.process import Process
    from actors.sealed import Sealed
    from actors.transport.peer import Death

PLACE_SECONDS = 120.0  # longer than a node takes to give up on a worker


def create_actor(cls: type, options: ActorOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ActorHandle:
    """Makes one actor. A named one is made before this returns, since the name may be taken."""
    process = current()
    if options.get_if_exists:
        found = process.portal.run(find_named(process, options.name or "", options.namespace or process.namespace))
        if found is not None:
            return found
    creation = _Creation(process, cls, options, args, kwargs)
    handle, line = creation.begin()
    if options.name is not None:
        process.portal.run(line.placed_or_raise())
    return handle


def create_group(
    cls: type, options: ActorOptions, size: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ActorGroup:
    """Makes a group of actors: all are placed first, so that each knows all others when its constructor runs."""
    process = current()
    group = new_id("group")
    creations = [_Creation(process, cls, options, args, kwargs, _Seat(group, rank, size)) for rank in range(size)]
    siblings = [creation.place for creation in creations]
    handles = []
    try:
        for creation in creations:
            creation.siblings = siblings
            handles.append(creation.begin()[0])
    except BaseException:  # Ctrl-C: those begun would wait for their siblings
        for creation in creations:
            creation.abandon()
        raise
    return ActorGroup(group, handles)


class _Seat:
    """An actor's future place in its group."""

    def __init__(self, group: str, rank: int, size: int) -> None:
        self.group = group
        self.rank = rank
        self.size = size


class _Creation:
    """The making of one actor."""

    def __init__(  # noqa: PLR0917 - one place makes it
        self,
        process: Process,
        cls: type,
        options: ActorOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        seat: _Seat | None = None,
    ) -> None:
        self.process = process
        self.options = options
        self.seat = seat
        self.siblings: list[asyncio.Future[Address]] = []
        self.place: asyncio.Future[Address] = process.loop.create_future()
        self._code = dumps(cls)  # a class that cannot travel is the caller's mistake, here and now
        self._class_spec = describe(cls)
        args, kwargs, references = with_slots(args, kwargs, lambda value: future_of(value) is not None)
        self._arguments = dumps_arguments(args, kwargs)
        self._needs: list[Future[Sealed]] = [f for r in references if (f := future_of(r)) is not None]
        self._id = new_id("actor")
        name = options.name if seat is None else f"{options.name or cls.__name__}[{seat.rank}]"
        self._label = f"{name or cls.__name__}({self._id})"
        self._line = Line(process, self._id, self._label, owned=True)
        self._hold: Hold | None = process.holdings.own(self._id, self._line)  # until the constructor has returned
        self._line.held_by(self._hold)
        self._spec = self._describe()

    def _describe(self) -> ActorSpec:
        handle = ActorHandle(self._id, self._label, self._class_spec, self.process.address)
        name = self.options.name
        if name is not None and self.seat is not None:
            name = f"{name}-{self.seat.rank}"
        return ActorSpec(
            id=self._id,
            label=self._label,
            class_name=self._class_spec.name,
            name=name,
            namespace=self.options.namespace or self.process.namespace,
            owner=self.process.id,
            driver=runtime.driver(),
            handle=replace(dumps(handle), holds=()),  # a name alone keeps no actor alive
        )

    def begin(self) -> tuple[ActorHandle, Line]:
        """Starts the making; returns the handle and the line that its calls wait in."""
        self.process.keeper.lines[self._id] = self._line
        self.process.keeper.when_free(self._id, self._line.end)
        self._line.find(self._find)
        return ActorHandle(self._id, self._label, self._class_spec, self.process.address), self._line

    async def _find(self) -> Address:
        try:
            return await self._begin()
        finally:
            self._hold = None

    async def _begin(self) -> Address:
        placing = self.process.loop.create_task(self._take_place())
        try:
            address = await asyncio.shield(placing)
        except BaseException as error:
            # Given up while a node was choosing a process: that one goes back as soon as it is known.
            placing.add_done_callback(self._taken_too_late)
            if not self.place.done():
                self.place.set_exception(error)
                self.place.exception()  # siblings may never look
            raise
        self.place.set_result(address)
        try:
            group = await self._meet_siblings()
            arguments = await self._resolve()
        except BaseException:
            await self._give_back(address)
            raise
        construction = Construction(
            self._code, self._spec, arguments, self.options.max_concurrency, self._class_spec.is_async, group
        )
        self._line.address = address
        self.process.peer(address).call(
            self._id, CONSTRUCT, dumps_arguments((construction,), {}), _ConstructionCall(self._line, self._hold)
        )
        return address

    def _taken_too_late(self, placing: asyncio.Task[Address]) -> None:
        if not placing.cancelled() and placing.exception() is None:
            self._returning = self.process.loop.create_task(self._give_back(placing.result()))

    def abandon(self) -> None:
        """Gives up the making of this actor, begun or not."""
        self._line.give_up(ActorDiedError(f"{self._label} was not made: making its group was interrupted"))
        self.process.portal.soon(self.place.cancel)

    async def _give_back(self, address: Address) -> None:
        """Ends the process that was given to an actor which will not be."""
        node = await self.process.node_address(address.node)
        if node is not None:
            await self.process.ask(node, "node", "kill", address.process)

    async def _take_place(self) -> Address:
        rank = self.seat.rank if self.seat is not None else None
        strategy = self.options.scheduling_strategy
        if self.seat is not None and strategy == "DEFAULT":
            strategy = "SPREAD"
        node = await self.process.ask_home("schedule", self.options.node, strategy, rank)
        place = await self.process.ask(node, "node", "place", self._spec, timeout=PLACE_SECONDS)
        assert place is not None
        found: Address = place
        return found

    async def _meet_siblings(self) -> GroupSpec | None:
        if self.seat is None:
            return None
        members = await asyncio.gather(*self.siblings)
        name = self.options.name or self._class_spec.name
        labels = tuple(f"{name}[{rank}] on node {member.node_name}" for rank, member in enumerate(members))
        return GroupSpec(self.seat.group, self.seat.rank, tuple(members), labels)

    async def _resolve(self) -> Payload:
        if not self._needs:
            return self._arguments
        sealed = [await asyncio.wrap_future(need) for need in self._needs]
        for value in sealed:
            if value.outcome is not Outcome.VALUE:
                try:
                    value.open()
                except Exception as error:
                    raise ActorDiedError(f"{self._label} never came to life: an argument failed: {error}") from error
        return dumps(Filled(self._arguments, tuple(value.payload for value in sealed)))


class _ConstructionCall:
    """Waits for the constructor's end."""

    def __init__(self, line: Line, hold: Hold | None) -> None:
        self._line = line
        self._hold = hold

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        self._hold = None
        if reply.outcome is Outcome.VALUE:
            return
        assert isinstance(reply.payload, Payload)
        error = loads(reply.payload)
        assert isinstance(error, ActorDiedError)
        self._line.fail(error)

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
        self._hold = None
        self._line.fail(self._line.died_of(death, "__init__", verdict))


async def find_named(process: Process, name: str, namespace: str) -> ActorHandle | None:
    """Asks the cluster for the handle of a named actor."""
    found = await process.ask_home("lookup", name, namespace)
    if found is None:
        return None
    payload, where = found
    handle: ActorHandle = loads(payload)
    if not await _is_kept(process, handle._hold):  # noqa: SLF001 - one of us
        return None
    return ActorHandle(handle._id, handle._label, handle._spec, where, where, handle._hold)  # noqa: SLF001


async def _is_kept(process: Process, hold: Hold) -> bool:
    """Whether an actor was not free before this process began to hold it. Nothing but a name led to it."""
    if hold.owner is None or hold.id == process.holdings.myself:
        return True
    if hold.owner.process == process.id:
        return process.holdings.is_held(hold.id, process.id)
    process.holdings.flush()  # the owner hears of the hold first
    try:
        kept: bool = await process.ask(hold.owner, "keeper", "holds", hold.id)
    except (ActorDiedError, TimeoutError):
        return False
    return kept
