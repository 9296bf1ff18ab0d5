"""Cables: values that go from a thread of one process straight to a thread of another, past loops and mailboxes.

Within a host, bytes go by a Unix socket that the two threads write and read themselves: to be woken by it takes a tenth
of the time that a call does. What is large or of another kind, and all that goes to another host, is a message of the
session between the two processes. Values are numbered, so that they come in order whichever way they went.

A cable does not know whether the process at its other end lives: that is for a call to tell, which should be open
meanwhile.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from actors.address import host_key
from actors.cluster import current
from actors.ids import new_id
from actors.messages import Payload, Tensor
from actors.serialize import dumps, loads
from actors.transport.bell import Bell
from actors.transport.ways_out import all_by_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.address import Address
    from actors.transport.acceptor import Visitor
    from actors.transport.peer import Peer

__all__ = ["Bell", "Inlet", "Outlet", "Place"]

SMALL_BYTES: Final = 64 << 10
"""What goes by a socket has no more bytes than this."""

LEAD_SECONDS: Final = 0.5
"""For so long who waits reads messages itself, as long as most steps take; then another thread wakes it."""

_HEAD: Final = Struct("<IQ")  # bytes that follow, and the value's number
_ROOM: Final = 2 * SMALL_BYTES  # bytes read at once: a value that is not whole yet fits, and some more


@dataclass(frozen=True, slots=True)
class Place:
    """Where an inlet is found.

    Attributes:
        id: of the cable.
        address: of its process.
        path: of its socket; empty where it has none.
    """

    id: str
    address: Address
    path: str


class Inlet:
    """The end of a cable where values arrive. One thread reads it.

    Args:
        ring: called, on any thread, when something has come that `fileno` does not show.

    Attributes:
        anywhere: see `switchboard.Lane`.
        place: where it is found, for the `Outlet` of one other process.
        ended: the socket is closed at its other end.
    """

    anywhere = True

    def __init__(self, ring: Callable[[], None]) -> None:
        self._process = current()
        self.group = new_id("cable")
        self._ring = ring
        self._next = 0
        self._early: dict[int, Any] = {}
        self._brought: deque[tuple[int, Payload]] = deque()
        self._visitor: Visitor | None = None  # who sends messages
        self._leader = 0  # the thread that reads them itself now
        self._room = memoryview(bytearray(_ROOM))  # fresh memory for each value would cost more than to read it
        self._left = 0  # bytes in it of a value that has not come whole
        self.ended = False
        self._socket = None if all_by_grpc() else self._listening()
        self._met = False
        self._process.portal.run(self._process.switchboard.add(self))

    @property
    def place(self) -> Place:
        """Where it is found."""
        return Place(self.group, self._process.address, "" if self._socket is None else self._path)

    def fileno(self) -> int:
        """What can be read when something has come by the socket; another one once that is connected, -1 without."""
        return -1 if self._socket is None else self._socket.fileno()

    def arrived(self) -> list[Any]:
        """Returns the values that have come and were not taken yet, in their order, without waiting."""
        if self._socket is not None:
            self._read(self._socket)
        while self._brought:
            number, payload = self._brought.popleft()
            if number >= self._next:  # else it has come a second time
                self._early[number] = loads(payload)
        found = []
        while self._next in self._early:
            found.append(self._early.pop(self._next))
            self._next += 1
        return found

    def lead(self, done: Callable[[], bool], bell: Bell) -> None:
        """Reads messages on this thread, so that no other needs to wake it: for a while, where that can be.

        Args:
            done: whether there is something else to do; not asked for again before `bell` is rung.
            bell: wakes this thread.
        """
        visitor = self._visitor
        if visitor is not None and not self._brought:
            self._leader = threading.get_ident()
            try:
                visitor.lead(lambda: bool(self._brought) or done(), LEAD_SECONDS, bell)
            finally:
                self._leader = 0

    @property
    def brought(self) -> bool:
        """Whether a message waits to be taken by `arrived`."""
        return bool(self._brought)

    def close(self) -> None:
        """Takes nothing any more."""
        self._process.portal.soon(self._process.switchboard.remove, self.group)
        self._hang_up()

    async def open(self) -> None:
        """See `switchboard.Lane`."""

    def take(self, message: Tensor, visitor: Visitor) -> None:
        """See `switchboard.Lane`."""
        assert isinstance(message.payload, Payload)
        self._visitor = visitor
        self._brought.append((int(message.tag), message.payload))
        if threading.get_ident() != self._leader:
            self._ring()

    @property
    def _path(self) -> str:
        return str(self._process.folder / f"c{self.group[-10:]}")  # short: a socket's path has little room

    def _listening(self) -> socket.socket | None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(self._path)
            listener.listen(1)
        except OSError:  # all goes by messages then
            listener.close()
            return None
        return listener

    def _read(self, source: socket.socket) -> None:
        try:
            if not self._met:
                source = self._accepted(source)
            got = source.recv_into(self._room[self._left :])
        except BlockingIOError:
            return
        except OSError:
            got = 0
        if not got:
            self._hang_up()
            self.ended = True
            return
        start, size = 0, self._left + got
        while size - start >= _HEAD.size:
            length, number = _HEAD.unpack_from(self._room, start)
            end = start + _HEAD.size + length
            if end > size:
                break
            self._early[number] = bytes(self._room[start + _HEAD.size : end])
            start = end
        self._left = size - start
        if self._left and start:
            self._room[: self._left] = bytes(self._room[start:size])

    def _accepted(self, listener: socket.socket) -> socket.socket:
        self._socket, _ = listener.accept()
        self._met = True
        listener.close()
        self._socket.setblocking(False)
        self._unlink()
        return self._socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if not self._met:
                self._unlink()

    def _unlink(self) -> None:
        with suppress(OSError):
            os.unlink(self._path)


class Outlet:
    """The end of a cable where values go in. One thread writes it.

    Args:
        place: where the inlet is.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._number = place, 0
        self._peer = current().portal.run(_peer(place.address))
        self._socket = _connected(place)

    @property
    def near(self) -> bool:
        """Whether bytes go by a socket."""
        return self._socket is not None

    def send(self, value: Any) -> None:
        """Sends a value; where the other process has gone, nothing happens.

        Raises:
            SerializationError: it cannot be pickled.
        """
        if self._socket is not None and type(value) is bytes and len(value) <= SMALL_BYTES:
            with suppress(OSError):
                self._socket.sendall(_HEAD.pack(len(value), self._number) + value)
        else:
            self._peer.post(Tensor(self._place.id, 0, str(self._number), dumps(value)), at_once=True)
        self._number += 1

    def close(self) -> None:
        """Sends nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


async def _peer(address: Address) -> Peer:
    return current().peer(address)


def _connected(place: Place) -> socket.socket | None:
    if not place.path or place.address.host != host_key() or all_by_grpc():
        return None
    outlet = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        outlet.connect(place.path)
    except OSError:
        outlet.close()
        return None
    return outlet
