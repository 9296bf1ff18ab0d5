"""The keeper: the values and actors this process owns, for others to ask about."""

from __future__ import annotations

import asyncio
import weakref
from concurrent.futures import Future
from itertools import count
from typing import TYPE_CHECKING, Protocol

from actors.exceptions import ActorDiedError, ObjectLostError

if TYPE_CHECKING:
    from actors.address import Address
    from actors.line import Line
    from actors.messages import Payload
    from actors.opencall import OpenCall
    from actors.sealed import Sealed
    from actors.transport.acceptor import Visitor


class Value:
    """A value that is there, or will be: the future holds it sealed."""

    __slots__ = ("__weakref__", "call", "future", "id")

    def __init__(self, id: str) -> None:
        self.id = id
        self.call: OpenCall | None = None  # what will give it, while that is open
        self.future: Future[Sealed] = Future()
        # Nobody may cancel it: one who waits less long would take the value from the others.
        self.future.set_running_or_notify_cancel()

    def settle(self, sealed: Sealed) -> None:
        """The value is there; whatever comes later is dropped."""
        self.call = None
        if not self.future.done():
            self.future.set_result(sealed)


class Charge(Protocol):
    """An actor that this process owns."""

    async def located(self, left: str | None) -> Address:
        """Waits until the actor lives another life than ``left``; raises ActorError where it never will be."""

    async def kill(self, no_restart: bool) -> None:
        """Ends the actor at once."""

    def saved(self, state: Payload) -> None:
        """Takes the actor's state over, for the next time it is made."""


class Keeper:
    """Answers for what this process owns, as the service ``"keeper"``.

    A value lives as long as a reference of this process does. One that was sent away inside another value is kept
    for as long as the process lives.
    """

    def __init__(self, process_id: str) -> None:
        self._process = process_id
        self._values: weakref.WeakValueDictionary[str, Value] = weakref.WeakValueDictionary()
        self._lent: dict[str, Value] = {}
        self._numbers = count(1)
        self.lines: dict[str, Line] = {}
        self.charges: dict[str, Charge] = {}

    def new_value(self) -> Value:
        """Makes room for a value of this process."""
        return self.borrow(f"{self._process}/{next(self._numbers)}")

    def borrow(self, id: str) -> Value:
        """Makes room for a value with this id, which another process may own."""
        value = self._values[id] = Value(id)
        return value

    def lend(self, value: Value) -> None:
        """Keeps a value whose reference leaves this process."""
        self._lent[value.id] = value

    def find(self, id: str) -> Value | None:
        """Returns a value of this process by its id."""
        return self._values.get(id)

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
        if charge is None:
            raise ActorDiedError(f"{actor} does not belong to this process any more")
        charge.saved(state)

    def close(self, error: Sealed) -> None:
        """Fails every value that is still awaited."""
        for reference in self._values.valuerefs():  # a copy: other threads may make values meanwhile
            if (value := reference()) is not None:
                value.settle(error)
