"""The keeper: the values and actors this process owns, for others to ask about."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from concurrent.futures import Future, InvalidStateError
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from actors.exceptions import ActorDiedError, ObjectLostError
from actors.sealed import Known

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from actors.address import Address
    from actors.courier import Lease
    from actors.holdings import Hold, Holdings
    from actors.line import Line
    from actors.messages import Payload
    from actors.opencall import Asked
    from actors.sealed import Sealed
    from actors.spec import ActorSpec
    from actors.transport.acceptor import Visitor


class Value:
    """A value that is there, or will be.

    Attributes:
        sealed: itself, once it is there.
        hold: keeps it where it is owned; None where that is here, and this object is what keeps it.
    """

    __slots__ = ("__weakref__", "_future", "_id", "_keeper", "call", "hold", "sealed")

    def __init__(self, keeper: Keeper, id: str | None = None, hold: Hold | None = None) -> None:
        self._keeper = keeper
        self._id = id
        self.hold = hold
        self.call: Asked | None = None  # what will give it, while that is open
        self.sealed: Sealed | None = None
        self._future: Future[Sealed] | None = None

    @property
    def id(self) -> str:
        """What others know it by. Most values are never passed on, and have no use for one."""
        return self._id if self._id is not None else self._keeper.name(self)

    def named(self, id: str) -> str:
        """Takes an id, unless it has one; returns what it has. Only for its keeper."""
        if self._id is None:
            self._id = id
        return self._id

    @property
    def future(self) -> Future[Sealed]:
        """Done when it is there. Made when it is asked for: most values are there before somebody waits for them."""
        if self._future is None:
            if self.sealed is None:
                self._keeper.awaited(self)
            with _settling:
                if self._future is None:
                    future: Future[Sealed] = Future()
                    # Nobody may cancel it: one who waits less long would take the value from the others.
                    future.set_running_or_notify_cancel()
                    if self.sealed is not None:
                        future.set_result(self.sealed)
                    self._future = future
        return self._future

    @property
    def has_future(self) -> bool:
        """Whether somebody waits for it, or did."""
        return self._future is not None

    def settle(self, sealed: Sealed) -> None:
        """The value is there; whatever comes later is dropped."""
        self.call = None
        with _settling:
            if self.sealed is None:
                self.sealed = sealed
            sealed, future = self.sealed, self._future
        # Asked of the future, too: an interrupt may have come between the two, and then the answer comes again.
        if future is not None and not future.done():
            with contextlib.suppress(InvalidStateError):  # another thread was quicker
                future.set_result(sealed)


def settle_plain(given: Iterable[tuple[Value, object]]) -> None:
    """Settles values that came together, all of them plain."""
    waiting: list[Value] = []
    with _settling:
        for value, plain in given:
            value.call = None
            if value.sealed is None:
                value.sealed = Known(plain)
            if value.has_future:
                waiting.append(value)
    for value in waiting:
        assert value.sealed is not None
        value.settle(value.sealed)


_settling = threading.RLock()  # the end of an object may settle another's value


class Charge(Protocol):
    """An actor that this process owns.

    Attributes:
        spec: what it is.
    """

    spec: ActorSpec

    async def located(self, left: str | None) -> Address:
        """Waits until the actor lives another life than ``left``; raises ActorError where it never will be."""

    async def kill(self, no_restart: bool) -> None:
        """Ends the actor at once."""

    def saved(
        self, state: Payload, number: int | None = None, base: int | None = None, source: str | None = None
    ) -> Coroutine[Any, Any, Lease | None] | None:
        """Takes the actor's state over, for the next time it is made; see `actors.charge.Charge`."""

    def keep(self, number: int, state: Payload) -> bool:
        """As `saved`, where nobody else is to have it. From any thread."""

    async def retire(self) -> None:
        """Ends the actor once it has answered what it was asked."""

    async def move(self, node: str | None) -> None:
        """Has the actor live on another node; see `actors.charge.Charge`."""


class Keeper:
    """Answers for what this process owns, as the service ``"keeper"``.

    A value of this process lives as long as something refers to it, here or elsewhere; one of another process is
    fetched once, for all that refers to it here.

    Attributes:
        lines: to the actors that something here refers to.
        charges: the actors that this process owns.
    """

    def __init__(self, process_id: str) -> None:
        self._process = process_id
        self._values: weakref.WeakValueDictionary[str, Value] = weakref.WeakValueDictionary()  # that have an id
        self._awaited: weakref.WeakSet[Value] = weakref.WeakSet()  # that somebody waits for, or did
        self._closed: Sealed | None = None
        self._numbers = count(1)
        self._lock = threading.RLock()  # the end of an object may run any code inside it
        self._holdings: Holdings  # set once, before anything refers to anything
        self.lines: weakref.WeakValueDictionary[str, Line] = weakref.WeakValueDictionary()
        self.charges: dict[str, Charge] = {}

    def count_by(self, holdings: Holdings) -> None:
        """Says where it is counted who refers to what this process owns."""
        self._holdings = holdings

    def __len__(self) -> int:
        """How many values others may know of, own ones and those of others that something here refers to."""
        return len(self._values)

    def new_value(self) -> Value:
        """Makes room for a value of this process."""
        return Value(self)

    def name(self, value: Value) -> str:
        """Gives a value of this process an id, and finds it by that from now on."""
        with self._lock:
            id = value.named(f"{self._process}/{next(self._numbers)}")
            self._values[id] = value
        return id

    def awaited(self, value: Value) -> None:
        """Somebody begins to wait for a value: it is told when nothing more can come."""
        with self._lock:
            self._awaited.add(value)
        if self._closed is not None:
            value.settle(self._closed)

    def borrow(self, hold: Hold) -> tuple[Value, bool]:
        """Returns the place of another process's value, and whether it is new and has to be fetched."""
        with self._lock:
            value = self._values.get(hold.id)
            if value is not None:
                return value, False
            value = self._values[hold.id] = Value(self, hold.id, hold)
            return value, True

    def find(self, id: str) -> Value | None:
        """Returns a value by its id."""
        return self._values.get(id)

    def when_free(self, actor: str, callback: Callable[[], None]) -> None:
        """Calls ``callback`` on the I/O loop, once, when nothing anywhere refers any more to an actor of this process.

        Something must refer to it now.
        """
        self._holdings.when_free(actor, callback)

    # -- the service --------------------------------------------------------------------------------------------

    async def fetch(self, _: Visitor, id: str) -> Sealed:
        """Waits for a value and returns it sealed."""
        value = self._values.get(id)
        if value is None:
            raise ObjectLostError(f"value {id} is not kept any more by the process that owned it")
        return await asyncio.wrap_future(value.future)

    async def cancel(self, _: Visitor, id: str, force: bool, recursive: bool) -> None:
        """Cancels the call that will give a value of this process; see `actors.cancel`."""
        value = self._values.get(id)
        if value is not None and value.call is not None:
            value.call.cancel(force=force, recursive=recursive)

    async def locate(self, _: Visitor, actor: str, left: str | None) -> Address:
        """Waits until an actor of this process lives another life than ``left``, and returns where."""
        charge = self.charges.get(actor)
        if charge is None:
            raise ActorDiedError(f"{actor} does not belong to this process any more")
        return await charge.located(left)

    async def saved(self, _: Visitor, actor: str, state: Payload) -> None:
        """An actor of this process gives its state into safe keeping."""
        charge = self.charges.get(actor)
        if charge is not None and (safe := charge.saved(state)) is not None:
            await safe  # without a charge nothing refers to it any more: it is not made anew

    def saved_as(
        self, visitor: Visitor, actor: str, number: int, state: Payload, base: int | None = None
    ) -> Coroutine[Any, Any, Lease | None] | None:
        """As `saved`; of states, that with the highest number is the last.

        Args:
            visitor: the actor's process.
            actor: whose state it is.
            number: of the state.
            state: itself.
            base: where the actor has sent it to its heirs as well, by which leave; see `actors.courier`.

        Returns:
            Leave to do that from now on; None where what it has still holds, or there are no heirs.
        """
        charge = self.charges.get(actor)
        return charge.saved(state, number, base, visitor.process) if charge is not None else None

    def kept(self, actor: str, number: int, state: Payload) -> None:
        """An actor of this process has sent its state with an answer. From any thread."""
        charge = self.charges.get(actor)
        if charge is not None:
            charge.keep(number, state)

    async def move(self, _: Visitor, actor: str, node: str | None) -> None:
        """Has an actor of this process live on another node, with its state."""
        charge = self.charges.get(actor)
        if charge is None:
            raise ActorDiedError(f"{actor} does not belong to this process any more")
        await charge.move(node)

    async def holds(self, visitor: Visitor, id: str) -> bool:
        """Whether something of this process is kept for the one that asks, or was free before it asked."""
        return self._holdings.is_held(id, visitor.process)

    def close(self, error: Sealed) -> None:
        """Fails every value that is still awaited, or that others know of."""
        self._closed = error
        with self._lock:
            values = [*self._values.values(), *self._awaited]
        for value in values:
            value.settle(error)
