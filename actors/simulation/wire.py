"""The network: conversations over connections that break, delay and repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.transport.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from .network import Network

BATCH = 16
TWICE = 0.02  # of what is sent arrives once more


class Wire:
    """One conversation: a session at each end, over connections that come and go."""

    def __init__(self, world: Network, here: Callable[[Any], None], there: Callable[[Any], None]) -> None:
        self.world = world
        self.ends = (End(self, here), End(self, there))
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]
        self.epoch = 0
        self.up = True
        self.closed = False

    def cut(self, seconds: float) -> None:
        """The connection breaks, for so many seconds."""
        self.epoch += 1
        if self.up:
            self.up = False
            self.world.after(seconds, self._dial)

    def _dial(self) -> None:
        if self.closed:
            return
        self.up = True
        first, second = self.ends
        first.session.connected(second.session.received)
        second.session.connected(first.session.received)
        for end in self.ends:
            end.arrives = self.world.now
            end.flush()

    @property
    def idle(self) -> bool:
        """Whether all that was sent is acknowledged."""
        return all(end.session.idle for end in self.ends)


class End:
    """One end of it."""

    def __init__(self, wire: Wire, take: Callable[[Any], None]) -> None:
        self.session: Session[Any] = Session()
        self.other: End
        self.arrives = 0.0  # what is sent next arrives no earlier: a connection keeps order
        self._wire = wire
        self._take = take

    def post(self, message: Any) -> None:
        """Sends a message."""
        self.session.push(message, 1)
        self.flush()

    def flush(self) -> None:
        """Writes what may be written now."""
        wire = self._wire
        world = wire.world
        while wire.up and not wire.closed and (batch := self.session.take(BATCH, 1 << 20)):
            self.arrives = max(self.arrives, world.now + world.delay())
            world.at(self.arrives, self.other.arrived, wire.epoch, batch)
            if world.chance.random() < TWICE:
                world.at(self.arrives + world.delay(), self.other.arrived, wire.epoch, batch)

    def arrived(self, epoch: int, batch: list[tuple[int, Any]]) -> None:
        """A batch has come by the connection of that number."""
        wire = self._wire
        if epoch != wire.epoch or wire.closed:
            return  # lost with its connection
        fresh = [message for number, message in batch if self.session.accept(number)]
        wire.world.after(wire.world.delay(), self.other.acknowledged, epoch, self.session.received)
        for message in fresh:
            if not wire.closed:
                self._take(message)

    def acknowledged(self, epoch: int, upto: int) -> None:
        """The other end says how far it has read."""
        if epoch == self._wire.epoch and not self._wire.closed:
            self.session.acknowledged(upto)
