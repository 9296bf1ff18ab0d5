"""The fabric of ranks that share a host: datagrams from process to process, and a window of shared memory.

It stands on another fabric, which carries what is too large for a datagram or finds no room, knows who has died, and
is all that is used where the ranks turn out to be on several hosts. Datagrams wake a sleeping rank in a fraction of
the time that an I/O loop takes.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.exceptions import CollectiveError
from actors.messages import Payload
from actors.refusals import refused
from actors.serialize import dumps, loads

from . import window
from .bell import Bell
from .board import FIRST_SLICE, LONGEST_SLICE, Board, looking_seconds
from .channel import Channel
from .terrain import Islands, Terrain

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from .fabric import Fabric

DATAGRAM_BYTES = 96 * 1024
"""Largest message of one datagram; an offer with the elements that come along fits."""

_ROOM = 1 << 20  # of a socket; macOS gives little unless asked
_NONE, _BYTES, _PICKLE = b"n", b"b", b"p"
_KINDS = (_NONE, _BYTES, _PICKLE)


class NearFabric:
    """One member's lane to the others; see `actors.collective.fabric.Fabric`.

    Args:
        under: the fabric it stands on, used by nobody else.
        folder: where files and sockets are made, for the moment until all ranks have them open.
        key: the same for processes that see the same folder, and for no others.
        name: of this member's files, used by no other process in the folder.
        required: the group was asked to use shared memory and nothing else.
    """

    def __init__(self, under: Fabric, folder: Path, key: str, name: str, *, required: bool = False) -> None:
        self._under = under
        self.rank, self.size = under.rank, under.size  # asked for often
        self._folder, self._key, self._name = folder, key, name
        self._inlets: dict[int, socket.socket] = {}
        self._outlets: dict[int, socket.socket] = {}
        self._polls: dict[int, select.poll] = {}
        self._bell: Bell | None = None
        self._patience = looking_seconds(under.size)
        self._turns = [threading.Lock() for _ in range(under.size)]
        self._inbox: list[dict[str, deque[bytes]]] = [{} for _ in range(under.size)]
        self._met = under.size == 1
        why = "there is one rank" if under.size == 1 else "no collective has been called yet"
        self.terrain = replace(under.terrain, why=why)
        self._required = required

    @property
    def group(self) -> str:
        """See `Fabric`."""
        return self._under.group

    @property
    def aborted(self) -> str | None:
        """See `Fabric`."""
        return self._under.aborted

    def meet(self, deadline: float) -> None:
        """See `Fabric`."""
        if self._met:
            return
        channel = Channel(self._under, 0, deadline)
        mapped: dict[int, mmap.mmap] = {}
        try:
            mapped[self.rank] = self._open()
            place = (self._key, str(self._folder), self._name)
        except OSError as error:
            place = ("", f"{self._under.describe(self.rank)}: {error}", "")
        try:
            places = self._exchange(channel, "place", place)
            near = [rank for rank in range(self.size) if rank == self.rank or (places[rank][0] == self._key != "")]
            problem = self._attach(near, places, mapped)
            problems = self._exchange(channel, "joined", problem)
        finally:
            self._remove_files()
        islands = _islands([key for key, _, _ in places], problems)
        why = _why(islands, places, problems)
        if len(islands) > 1 and self._required:
            self._close_sockets()
            raise CollectiveError(f"backend='shm' needs all ranks on one host: {why}; use backend='auto'")
        self._settle(islands, why, mapped)
        self._met = True

    def _settle(self, islands: Islands, why: str, mapped: dict[int, mmap.mmap]) -> None:
        """Keeps the ways to the ranks of this one's island."""
        island = next(island for island in islands if self.rank in island)
        self._close_sockets([rank for rank in range(self.size) if rank not in island])
        self._patience = looking_seconds(len(island))
        maps = [mapped[rank] for rank in island]
        shared = window.Window(maps) if len(island) > 1 else None
        board = None
        if self._bell is not None and len(island) == self.size:
            board = Board(maps, window.BOARD_START, self.rank, self._bell)
        self.terrain = Terrain(islands, self._under.terrain.costs, why, shared, board)

    @staticmethod
    def _exchange(channel: Channel, step: str, value: Any) -> list[Any]:
        others = [rank for rank in range(channel.size) if rank != channel.rank]
        for other in others:
            channel.send(other, step, value)
        said = {other: channel.recv(other, step) for other in others}
        return [value if rank == channel.rank else said[rank] for rank in range(channel.size)]

    def _open(self) -> mmap.mmap:
        for rank in range(self.size):
            if rank != self.rank:
                inlet = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._inlets[rank] = inlet
                inlet.setblocking(False)
                inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
                self._polls[rank] = select.poll()
                self._polls[rank].register(inlet, select.POLLIN)
                inlet.bind(str(self._path(self._name, rank)))
        self._bell = Bell(self._path(self._name, "bell"))
        return window.make(self._path(self._name, self.rank))

    def _attach(self, near: Sequence[int], places: list[Any], mapped: dict[int, mmap.mmap]) -> str:
        """Opens the way to the other ranks that are near; returns what stands against it."""
        try:
            for rank in near:
                name = places[rank][2]
                if rank != self.rank:
                    outlet = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    self._outlets[rank] = outlet
                    outlet.setblocking(False)
                    outlet.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
                    outlet.connect(str(self._path(name, self.rank)))
                    mapped[rank] = window.attach(self._path(name, rank))
                    if self._bell is not None:
                        self._bell.attach(rank, self._path(name, "bell"))
        except OSError as error:
            return f"{self._under.describe(self.rank)}: {error}"
        return ""

    def _path(self, name: str, what: int | str) -> Path:
        return self._folder / f"{name}.{what}"

    def _remove_files(self) -> None:
        # Once open, they need no names; without, nothing is left behind by a rank that is killed.
        for what in (*range(self.size), "bell"):
            with suppress(OSError):
                os.unlink(self._path(self._name, what))

    def _close_sockets(self, ranks: Iterable[int] | None = None) -> None:
        """Closes the ways to some ranks, or to all."""
        for sockets in (self._inlets, self._outlets):
            for rank in list(sockets) if ranks is None else ranks:
                if rank in sockets:
                    sockets.pop(rank).close()
        if ranks is None and self._bell is not None:
            self._bell.close()
            self._bell = None

    def sub(self, name: str, ranks: Sequence[int]) -> Fabric:
        """See `Fabric`."""
        return self._under.sub(name, ranks)

    def close(self) -> None:
        """See `Fabric`."""
        self.terrain = replace(self.terrain, window=None, board=None)
        self._close_sockets()
        self._under.close()

    def now(self) -> float:
        """See `Fabric`."""
        return time.monotonic()

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:
        """See `Fabric`."""
        outlet = self._outlets.get(dst) if self.terrain.window is not None else None
        frame = _frame(tag, value) if outlet is not None else None
        if outlet is not None and frame is not None:
            try:
                outlet.send(frame)
            except OSError:  # it is full or gone, or the system has no datagrams of this size
                pass
            else:
                return
        self._under.send(dst, tag, value, lent=lent)

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        """See `Fabric`."""
        inlet = self._inlets.get(src) if self.terrain.window is not None else None
        if inlet is None:
            return self._under.recv(src, tag, deadline)
        limit = float("inf") if deadline is None else deadline
        wait = FIRST_SLICE
        while True:
            frame = self._take(inlet, src, tag, min(wait, limit - time.monotonic()))
            if frame is not None:
                return _open_frame(frame)
            try:
                return self._under.recv(src, tag, 0.0)
            except TimeoutError:
                pass
            except CollectiveError:
                # It is gone; what it sent before has come, though perhaps after the look above.
                if (frame := self._take(inlet, src, tag, 0.0)) is not None:
                    return _open_frame(frame)
                raise
            if time.monotonic() >= limit:
                raise TimeoutError(f"{self.describe(src)} sent nothing")
            wait = min(2 * wait, LONGEST_SLICE)

    def _take(self, inlet: socket.socket, src: int, tag: str, seconds: float) -> bytes | None:
        """Returns the frame with this tag, if it has come or comes within a time; keeps others."""
        start = time.monotonic()
        until, looking = start + max(0.0, seconds), start + self._patience
        # Another thread may be reading; what it finds for this one it leaves in the inbox.
        if not self._turns[src].acquire(timeout=max(0.0, seconds)):
            return None
        try:
            box = self._inbox[src]
            while True:
                kept = box.get(tag)
                if kept is not None:
                    frame = kept.popleft()
                    if not kept:
                        del box[tag]
                    return frame
                try:
                    datagram = inlet.recv(DATAGRAM_BYTES)
                except BlockingIOError:
                    now = time.monotonic()
                    if now >= until:
                        return None
                    # To be woken takes longer than most messages; but a core that another rank needs is left to it.
                    if now >= looking:
                        self._polls[src].poll((until - now) * 1000)
                    continue
                except OSError as error:
                    raise CollectiveError(f"group {self.group!r} was closed here: {error}") from None
                name, _, frame = datagram.partition(b"\0")
                try:
                    found = name.decode()
                except UnicodeDecodeError:
                    found = ""
                if not found or frame[:1] not in _KINDS:
                    refused("a datagram that no rank has sent")
                elif found == tag:
                    return frame
                else:
                    box.setdefault(found, deque()).append(frame)
        finally:
            self._turns[src].release()

    def abort(self, reason: str) -> None:
        """See `Fabric`."""
        self._under.abort(reason)

    def leave(self, reason: str) -> None:
        """See `Fabric`."""
        self._under.leave(reason)

    def describe(self, rank: int) -> str:
        """See `Fabric`."""
        return self._under.describe(rank)


def _islands(keys: Sequence[str], problems: Sequence[str]) -> Islands:
    """Returns who shares memory with whom, given each rank's key and what it has found to stand against it."""
    by_key: dict[str, list[int]] = {}
    for rank, key in enumerate(keys):
        by_key.setdefault(key or f"alone {rank}", []).append(rank)
    found: list[tuple[int, ...]] = []
    for ranks in by_key.values():
        sound = not any(problems[rank] for rank in ranks)
        found += [tuple(ranks)] if sound else [(rank,) for rank in ranks]
    return tuple(sorted(found))


def _why(islands: Islands, places: Sequence[Any], problems: Sequence[str]) -> str:
    if len(islands) == 1:
        return "all ranks share one host's memory"
    found = [problem for problem in problems if problem] or [why for key, why, _ in places if not key]
    if found:
        return found[0]
    if len(islands) == len(places):
        return "no two ranks share one host's memory"
    shown = "; ".join("ranks " + ", ".join(map(str, island)) for island in islands[:8])
    return f"the ranks are on {len(islands)} hosts: {shown}{' …' if len(islands) > 8 else ''}"


def _frame(tag: str, value: object) -> bytes | None:
    """Returns the datagram for a value; None where it must go another way."""
    if value is None:
        body = _NONE
    elif type(value) is bytes:
        body = _BYTES + value
    elif type(value) is tuple or type(value) is dict:
        payload = dumps(value)
        if payload.buffers or payload.holds:
            return None
        body = _PICKLE + payload.pickle
    else:
        return None
    frame = tag.encode() + b"\0" + body
    return frame if len(frame) <= DATAGRAM_BYTES and "\0" not in tag else None


def _open_frame(frame: bytes) -> object:
    kind, body = frame[:1], frame[1:]
    if kind == _NONE:
        return None
    return body if kind == _BYTES else loads(Payload(body))
