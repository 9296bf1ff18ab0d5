"""A courier: brings the states of one actor into safe keeping, to whoever has charge of it and to its heirs at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.answer import Answer
from actors.exceptions import ActorDiedError
from actors.serialize import dumps_arguments
from actors.transport.portal import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.address import Address
    from actors.messages import Payload, Reply
    from actors.process import Process
    from actors.transport.peer import Peer

LEAD_SECONDS = 0.05  # as who waits for a value

Lease = tuple[int, int, tuple["Address", ...]]
"""Leave to send states to heirs: the term, the serial before the first one, and the heirs; plain, since it travels."""


class KeeperGone(ActorDiedError):  # noqa: N818 - as the errors it is among
    """Whoever has charge of the actor is gone, with whom it ends: its callers shall hear of that and no answer."""


@dataclass(slots=True)
class Way:
    """How the next state is sent: the processes are known, and were linked.

    Attributes:
        keeper: whoever has charge of the actor.
        lease: what it was given; None where it has no heirs, or sees to them itself.
        heirs: the lease's.
        sent: how many states went by it.
    """

    keeper: Peer
    lease: Lease | None
    heirs: tuple[Peer, ...]
    sent: int = 0

    @property
    def is_up(self) -> bool:
        """Whether all can be sent to now."""
        return all(peer.linked and peer.death is None for peer in (self.keeper, *self.heirs))


class Leg(Answer):
    """One of the processes that a state was sent to, and its answer."""

    __slots__ = ("_over", "peer")

    anywhere = True

    def __init__(self, peer: Peer, over: Callable[[], None]) -> None:
        super().__init__(peer.address)
        self.peer = peer
        self._over = over

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        if not self.future.done():
            super().replied(reply)
        self._over()

    def lost(self, *told: Any) -> None:
        """See `actors.transport.peer.Caller`."""
        if not self.future.done():
            super().lost(*told)
        self._over()

    @property
    def is_in(self) -> bool:
        """Whether it has answered."""
        return self.future.done()

    @property
    def error(self) -> BaseException | None:
        """What went wrong."""
        return self.future.exception()


class Courier:
    """Sends the states that it is given, one after the other; of those that wait meanwhile, the last alone.

    The first one goes to whoever has charge of the actor, and from there to the heirs. With the answer comes leave to
    send further ones to the heirs as well, so that no state waits for two answers one after the other. Whoever has
    charge says with each answer whether that leave still holds, and has seen to the heirs itself where it does not.

    Any thread may use it.

    Args:
        actor: the actor's id.
        label: how it is called in messages.
        keeper: process in whose charge the actor is.
        process: this process.
    """

    def __init__(self, actor: str, label: str, keeper: Address, process: Process) -> None:
        self._actor = actor
        self._label = label
        self._keeper = keeper
        self._process = process
        self._lock = threading.Lock()
        self._next: tuple[Payload, int | None] | None = None
        self._waiting: list[Future[None]] = []  # for the next one
        self._flying = False
        self._flight: Flight | None = None  # by a way that is known
        self._way: Way | None = None

    def send(self, state: Payload, number: int | None) -> Future[None]:
        """Sends a state; returns what is done once it is safe, or a later one is.

        Args:
            state: itself.
            number: how many were taken; None where whoever has charge of the actor does not count them.
        """
        done: Future[None] = Future()
        with self._lock:
            self._next = (state, number)
            self._waiting.append(done)
            if self._flying:
                return done
            self._flying = True
        self._fly()
        return done

    def wait(self, done: Future[None]) -> None:
        """Waits for a state to be safe, on a thread that may block.

        Raises:
            KeeperGone: whoever has charge of the actor is gone.
            Exception: why it is not safe.
        """
        while not done.done() and (flight := self._flight) is not None:
            flight.lead()
            if flight is self._flight:
                break
        wait(done)

    def _fly(self) -> None:
        with self._lock:
            assert self._next is not None
            (state, number), self._next = self._next, None
            waiting, self._waiting = self._waiting, []
            way = self._way
        if way is not None and number is not None and way.is_up:
            self._flight = Flight(self._actor, state, number, way, lambda flight: self._answered(flight, waiting))
            self._flight.begin()
        else:
            self._by_keeper(state, number, waiting)

    def _by_keeper(self, state: Payload, number: int | None, waiting: list[Future[None]]) -> None:
        """Has whoever has charge of the actor see to it that the heirs have it."""
        self._flight = None
        given = self._process.portal.start(self._give(state, number))
        given.add_done_callback(lambda given: self._landed(waiting, given.exception()))

    async def _give(self, state: Payload, number: int | None) -> None:
        what = ("saved", self._actor, state) if number is None else ("saved_as", self._actor, number, state)
        try:
            lease = await self._process.ask(self._keeper, "keeper", *what, timeout=None)
        except ActorDiedError as error:
            raise self._gone(error) from error
        self._goes_by(lease)

    def _goes_by(self, lease: Lease | None) -> None:
        """Takes up how the next states are to be sent. On the I/O loop."""
        heirs = tuple(map(self._process.peer, lease[2])) if lease is not None else ()
        self._way = Way(self._process.peer(self._keeper), lease, heirs)

    def _answered(self, flight: Flight, waiting: list[Future[None]]) -> None:
        """Those that a state was sent to have answered, as far as that matters."""
        error = flight.keeper.error
        if error is not None:
            self._landed(waiting, self._gone(error) if isinstance(error, ActorDiedError) else error)
        elif (lease := flight.keeper.future.result()) is not None:
            self._process.portal.soon(self._goes_by, lease)
            self._landed(waiting, None)
        elif flight.is_kept:
            self._landed(waiting, None)
        else:
            self._by_keeper(flight.state, flight.number, waiting)

    def _landed(self, waiting: list[Future[None]], error: BaseException | None) -> None:
        with self._lock:
            again = self._flying = self._next is not None
        if again:
            self._fly()
        else:
            self._flight = None
        for done in waiting:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    def _gone(self, error: BaseException) -> KeeperGone:
        return KeeperGone(f"the state of {self._label} was not saved: {error}", actor=self._label)


class Flight:
    """One state on its way to all that are to have it.

    Args:
        actor: whose.
        state: itself.
        number: of the state.
        way: how it goes.
        over: called once with this flight, when what became of it is known; on any thread.
    """

    def __init__(self, actor: str, state: Payload, number: int, way: Way, over: Callable[[Flight], None]) -> None:
        self.state = state
        self.number = number
        self._actor = actor
        self._way = way
        self._over = over
        self._lock = threading.Lock()
        self._told = False
        self._begun = False
        self.keeper = Leg(way.keeper, self._came)
        self.heirs: Sequence[Leg] = tuple(Leg(heir, self._came) for heir in way.heirs)

    def begin(self) -> None:
        """Sends it."""
        way, lease = self._way, self._way.lease
        way.sent += 1
        told: tuple[object, ...] = (self._actor, self.number, self.state)
        if lease is not None:
            term, base, _ = lease
            what = dumps_arguments((self._actor, term, base + way.sent, self.state), {})
            for leg in self.heirs:
                leg.peer.call("custody", "update", what, leg)
            told = (*told, base)
        self.keeper.peer.call("keeper", "saved_as", dumps_arguments(told, {}), self.keeper)

    def lead(self) -> None:
        """Reads the answers on this thread, if they come soon."""
        for leg in (*self.heirs, self.keeper):
            if not leg.is_in:
                leg.peer.lead(lambda leg=leg: leg.is_in or self._told, LEAD_SECONDS)  # type: ignore[misc]

    @property
    def is_kept(self) -> bool:
        """Whether all heirs have it."""
        return all(leg.error is None and leg.future.result() is None for leg in self.heirs)

    def _came(self) -> None:
        with self._lock:
            if self._told or not self.keeper.is_in:
                return
            alone = self.keeper.error is None and self.keeper.future.result() is None
            if alone and not all(leg.is_in for leg in self.heirs):
                return  # the heirs' answers count
            self._told = True
        self._over(self)
