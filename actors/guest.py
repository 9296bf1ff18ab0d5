"""Guests: light actors as seen from other processes. One ends by itself, while the process that hosts it goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from actors.messages import PLAIN, WATCH, Payload
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.address import Address
    from actors.exceptions import Verdict
    from actors.messages import Item, Reply, Terms
    from actors.transport.peer import Caller, Death, Peer


class Guest:
    """One life of a light actor; see `actors.transport.peer.Party`. It is asked to tell of its end once that matters.

    Args:
        address: where it is.
        host: the process there.
    """

    anywhere = False

    def __init__(self, address: Address, host: Peer) -> None:
        self.address = address
        self.death: Death | None = host.death
        self._host = host
        self._watchers: list[Callable[[Death], None]] = []

    def call(self, _: str, method: str, payload: Payload, caller: Caller, terms: Terms = PLAIN) -> int:
        """Sends a call to this life of the actor, never to a later one in the same process."""
        return self._host.call(self.address.guest, method, payload, caller, terms)

    def numbers(self, count: int) -> tuple[int, ...]:
        """See `Party`."""
        return self._host.numbers(count)

    def call_together(
        self, numbers: tuple[int, ...], _: str, method: str, payload: Payload, callers: Sequence[Caller],
        terms: Terms = PLAIN,
    ) -> None:  # fmt: skip
        """Sends calls to this life of the actor, see `call`."""
        self._host.call_together(numbers, self.address.guest, method, payload, callers, terms)

    @property
    def roots(self) -> str:
        """See `Party`."""
        return self._host.roots

    def credit(self, number: int, upto: int) -> None:
        """See `Party`."""
        self._host.credit(number, upto)

    def cancel(self, number: int, *, force: bool = False, recursive: bool = True) -> None:
        """See `Party`."""
        self._host.cancel(number, force=force, recursive=recursive)

    def when_dead(self, watcher: Callable[[Death], None]) -> None:
        """See `Party`."""
        if self.death is not None:
            watcher(self.death)
            return
        if not self._watchers:
            self._host.call(self.address.guest, WATCH, dumps(None), self)
        self._watchers.append(watcher)

    def lead(self, done: Callable[[], bool], seconds: float) -> None:
        """See `Party`."""
        self._host.lead(done, seconds)

    def died(self, death: Death) -> None:
        """It is gone."""
        if self.death is None:
            self.death = death
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                watcher(death)

    # -- as the caller of WATCH ---------------------------------------------------------------------------------

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        assert isinstance(reply.payload, Payload)
        self.died(loads(reply.payload))

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def lost(self, death: Death, _: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
        self.died(death)


class Guests:
    """The light actors that this process knows of. Only on the I/O loop."""

    def __init__(self) -> None:
        self._hosts: dict[str, WeakValueDictionary[str, Guest]] = {}

    def at(self, address: Address, host: Peer) -> Guest:
        """Returns the light actor at ``address``, in the process ``host``."""
        guests = self._hosts.get(address.process)
        if guests is None:
            guests = self._hosts[address.process] = WeakValueDictionary()
            host.when_dead(lambda death: self._host_died(address.process, death))
        guest = guests.get(address.guest)
        if guest is None:
            guest = guests[address.guest] = Guest(address, host)
        return guest

    def explained(self, process: str, death: Death) -> Death:
        """Returns the death of a process, saying who shared it if it was that of light actors."""
        count = sum(guest.death is None for guest in list(self._hosts.get(process, {}).values()))
        if not count:
            return death
        whose = f"{count} light actors" if count > 1 else "a light actor"
        return replace(death, reason=f"{death.reason} (it was the host process of {whose})")

    def _host_died(self, process: str, death: Death) -> None:
        # Before the calls that were open there are told, as a peer tells of a process.
        for guest in list(self._hosts.pop(process, {}).values()):
            guest.died(death)
