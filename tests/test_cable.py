"""What is sent into a cable comes out at its other end, in order, whichever way each value went."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest
from clusters import eventually

import actors
from actors.cable import SMALL_BYTES, Outlet

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
