"""What is sent into a cable comes out at its other end, in order, whichever way each value went."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from clusters import SOON, eventually

import actors
from actors.cable import SMALL_BYTES, Inlet, Outlet
from actors.cluster import current
from actors.messages import Tensor
from actors.serialize import dumps

VALUES = [b"", b"a", ("a tuple", 1), bytes(SMALL_BYTES), b"b" * (SMALL_BYTES + 1), None, b"c", {"d": b"d" * 3_000_000}]


@actors.remote
class End:
    """Has an inlet, which its own thread reads."""

    def __init__(self) -> None:
        from actors.cable import Inlet

        self._rung = threading.Event()
        self._inlet = Inlet(self._rung.set)
        self._got: list[object] = []

    async def place(self):
        return self._inlet.place

    async def got(self):
        self._got += self._inlet.arrived()
        return self._got, self._inlet.ended, self._rung.is_set()

    async def close(self):
        self._inlet.close()

    async def sockets(self):
        folder = os.path.dirname(self._inlet._path)
        return [name for name in os.listdir(folder) if name == os.path.basename(self._inlet._path)]


def got(end):
    return actors.get(end.got.remote())


@pytest.mark.parametrize("way", ["socket", "messages"])
def test_values_come_in_order(cluster, way):
    end = End.remote()
    place = actors.get(end.place.remote())
    outlet = Outlet(place if way == "socket" else replace(place, path=""))
    assert outlet.near == (way == "socket")
    for _ in range(3):
        for value in VALUES:
            outlet.send(value)
    eventually(lambda: len(got(end)[0]) == 3 * len(VALUES), what="all values there")
    values, ended, rung = got(end)
    assert values == 3 * VALUES
    assert (ended, rung) == (False, True)
    assert actors.get(end.sockets.remote()) == ([] if way == "socket" else [os.path.basename(place.path)])
    outlet.close()
    if way == "socket":
        eventually(lambda: got(end)[1], what="the end of the socket seen")
    actors.get(end.close.remote())
    assert actors.get(end.sockets.remote()) == []


def test_what_is_sent_to_one_that_is_gone_harms_nobody(cluster):
    end = End.remote()
    outlet = Outlet(actors.get(end.place.remote()))
    outlet.send(b"a")
    eventually(lambda: got(end)[0] == [b"a"])
    actors.kill(end)
    for value in 3 * VALUES:
        outlet.send(value)
    outlet.close()


def test_a_message_that_comes_twice_is_one_value(cluster):
    rung = []
    inlet = Inlet(lambda: rung.append(1))
    first, second = (Tensor(inlet.group, 0, str(number), dumps(value)) for number, value in enumerate(["a", "b"]))
    for message in (second, first, first):
        inlet.take(message, None)
    assert inlet.arrived() == ["a", "b"]
    inlet.take(second, None)
    assert inlet.arrived() == []
    assert not inlet._early  # or it would be kept for ever
    assert len(rung) == 4
    inlet.close()


@actors.remote
class Leader:
    """Has an inlet, whose messages its own thread reads, or another one that is not the I/O loop's."""

    def __init__(self) -> None:
        from actors.cable import Inlet
        from actors.transport.bell import Bell

        self._bell = Bell()
        self._inlet = Inlet(self._bell.ring)

    def place(self):
        return self._inlet.place

    def read(self, count, *, leads, begun="", over=""):
        """Returns so many values, and whether another thread woke this one.

        Args:
            count: how many.
            leads: reads them itself, rather than wait for who does.
            begun: a file that is made once the I/O loop stands still, which it does until all are there.
            over: a file that is made in the end.
        """
        with standing_still() if begun else nullcontext():
            if begun:
                Path(begun).touch()
            got, rung, until = [], False, time.monotonic() + SOON
            while len(got) < count and time.monotonic() < until:
                if leads:
                    self._inlet.lead(lambda: False, self._bell)
                else:
                    select.select([self._bell], [], [], 0.1)
                rung = bool(select.select([self._bell], [], [], 0)[0]) or rung
                self._bell.mute()
                got += self._inlet.arrived()
            if over:
                Path(over).touch()
            return got, rung


@contextmanager
def standing_still():
    """The I/O loop of this process does nothing meanwhile."""
    stands, goes_on = threading.Event(), threading.Event()

    def stand():
        stands.set()
        goes_on.wait(SOON)

    current().portal.soon(stand)
    assert stands.wait(SOON)
    try:
        yield
    finally:
        goes_on.set()


def outlet_of(reader):
    """The other end, by messages, by which one value has gone already."""
    outlet = Outlet(replace(actors.get(reader.place.remote()), path=""))
    outlet.send(b"first")
    assert actors.get(reader.read.remote(1, leads=False))[0] == [b"first"]
    return outlet


def test_who_waits_reads_messages_past_the_loop(cluster, tmp_path):
    reader = Leader.remote()
    outlet = outlet_of(reader)
    values = [bytes([number]) * 2304 for number in range(10)]
    reading = reader.read.remote(len(values), leads=True, begun=str(tmp_path / "begun"))
    eventually((tmp_path / "begun").exists)
    for value in values:
        outlet.send(value)
    assert actors.get(reading) == (values, False)


def test_who_sends_writes_messages_past_the_loop(cluster, tmp_path):
    reader = Leader.remote()
    outlet = outlet_of(reader)
    values = [bytes([number]) * 2304 for number in range(10)]  # more than may be on their way unacknowledged
    reading = reader.read.remote(len(values), leads=False, over=str(tmp_path / "over"))
    with standing_still():
        for value in values:
            outlet.send(value)
        eventually((tmp_path / "over").exists, what="all that was sent is there")
    assert actors.get(reading)[0] == values
