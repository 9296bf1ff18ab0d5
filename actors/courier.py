"""A courier: brings the states of one actor into safe keeping, to its heirs and to whoever has charge of it."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.answer import Answer
from actors.escort import is_light
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
TELL_SECONDS = 0.02  # after which whoever has charge of the actor has what its heirs have
MINOR = 3
"""How far heirs and whoever has charge must know what was added to the protocol for that; see `actors.version`."""

Lease = tuple[int, int, tuple["Address", ...]]
"""Leave to send states to heirs: the term, the serial of state 0, and the heirs; plain, since it travels."""


class KeeperGone(ActorDiedError):  # noqa: N818 - as the errors it is among
    """Whoever has charge of the actor is gone, with whom it ends: its callers shall hear of that and no answer."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the next state is sent: the processes are known, and were linked.

    Attributes:
        keeper: whoever has charge of the actor.
        lease: what it was given; None where it has no heirs, or sees to them itself.
        heirs: the lease's.
        beside: the keeper is of this device. What is lost with it is then lost with this process, and as long as it
            lives it can ask the heirs for what they have.
    """

    keeper: Peer
    lease: Lease | None
    heirs: tuple[Peer, ...]
    beside: bool

    @property
    def is_up(self) -> bool:
        """Whether all can be sent to now."""
        return all(peer.linked and peer.death is None for peer in (self.keeper, *self.heirs))

    @property
    def by_heirs(self) -> bool:
        """Whether a state is safe when the heirs have it."""
        return self.beside and self.lease is not None and all(p.minor >= MINOR for p in (self.keeper, *self.heirs))


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
    send further ones to the heirs directly, so that no state waits for two answers one after the other. Where whoever
    has charge is a process of this device it hears of them a little later, of the last alone, and says with each answer
    whether that leave still holds; heirs that are to be some no more refuse what comes by it. Elsewhere it is sent each
    state as well, at once.

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
        self._untold: Flight | None = None  # the last one of whose state the keeper has not heard
        self._telling = False  # it is about to

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
        beside = self._keeper.node == self._process.address.node
        self._way = Way(self._process.peer(self._keeper), lease, heirs, beside)

    def _answered(self, flight: Flight, waiting: list[Future[None]]) -> None:
        """Those that a state was sent to have answered, as far as that matters."""
        keeper = flight.keeper
        error = keeper.error if keeper is not None else None
        if error is not None:
            self._landed(waiting, self._gone(error) if isinstance(error, ActorDiedError) else error)
        elif keeper is not None and (lease := keeper.future.result()) is not None:
            self._process.portal.soon(self._goes_by, lease)
            self._landed(waiting, None)
        elif flight.is_kept:
            if keeper is None:
                self._tell_later(flight)
            self._landed(waiting, None)
        else:
            self._by_keeper(flight.state, flight.number, waiting)

    def _tell_later(self, flight: Flight) -> None:
        """The heirs have a state; whoever has charge of the actor shall hear of it, or of a later one."""
        self._untold = flight
        if not self._telling:
            self._telling = True
            self._process.later(TELL_SECONDS, self._tell)

    def _tell(self) -> None:
        self._telling = False
        flight, self._untold = self._untold, None
        if flight is not None:
            flight.tell(Told(flight.way.keeper, self._goes_by, self._forget_way))

    def _forget_way(self) -> None:
        """Whoever has charge of the actor did not take a state; the next one goes to it first, and says why."""
        self._way = None

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


class Told(Answer):
    """The answer of whoever has charge of the actor to a state that the heirs have already. On the I/O loop."""

    __slots__ = ("_failed", "_leased")

    def __init__(self, keeper: Peer, leased: Callable[[Lease], None], failed: Callable[[], None]) -> None:
        super().__init__(keeper.address)
        self._leased = leased
        self._failed = failed

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        super().replied(reply)
        if self.future.exception() is not None:
            self._failed()
        elif (lease := self.future.result()) is not None:
            self._leased(lease)

    def lost(self, *told: Any) -> None:
        """See `actors.transport.peer.Caller`."""
        super().lost(*told)
        self._failed()


class Flight:
    """One state on its way to all that are to have it.

    Args:
        actor: whose.
        state: itself.
        number: of the state.
        way: how it goes.
        over: called once with this flight, when what became of it is known; on any thread.

    Attributes:
        keeper: whoever has charge of the actor; None where its answer is not waited for.
    """

    def __init__(self, actor: str, state: Payload, number: int, way: Way, over: Callable[[Flight], None]) -> None:
        self.state = state
        self.number = number
        self.way = way
        self._actor = actor
        self._over = over
        self._lock = threading.Lock()
        self._is_over = False
        self.keeper = None if way.by_heirs else Leg(way.keeper, self._came)
        self.heirs: Sequence[Leg] = tuple(Leg(heir, self._came) for heir in way.heirs)

    def begin(self) -> None:
        """Sends it."""
        if self.way.lease is not None:
            term, base, _ = self.way.lease
            bare = self.keeper is None and is_light(self.state)
            state = self.state.pickle if bare else self.state
            what = dumps_arguments((self._actor, term, base + self.number, state), {})
            for leg in self.heirs:
                leg.peer.call("custody", "update", what, leg)
        if self.keeper is not None:
            self.tell(self.keeper)

    def tell(self, answer: Answer) -> None:
        """Sends it to whoever has charge of the actor."""
        told: tuple[object, ...] = (self._actor, self.number, self.state)
        if self.way.lease is not None:
            told = (*told, self.way.lease[1])
        self.way.keeper.call("keeper", "saved_as", dumps_arguments(told, {}), answer)

    def lead(self) -> None:
        """Reads the answers on this thread, if they come soon."""
        for leg in (*self.heirs, *([self.keeper] if self.keeper is not None else ())):
            if not leg.is_in:
                leg.peer.lead(lambda leg=leg: leg.is_in or self._is_over, LEAD_SECONDS)

    @property
    def is_kept(self) -> bool:
        """Whether all heirs have it."""
        return all(leg.error is None and leg.future.result() is None for leg in self.heirs)

    def _came(self) -> None:
        with self._lock:
            if self._is_over or not self._is_decided:
                return
            self._is_over = True
        self._over(self)

    @property
    def _is_decided(self) -> bool:
        keeper = self.keeper
        if keeper is not None:
            if not keeper.is_in:
                return False
            if keeper.error is not None or keeper.future.result() is not None:
                return True  # whatever the heirs answer
        return all(leg.is_in for leg in self.heirs)
