"""Several doors of one node are raced: the one that answers is used and remembered, and no other is left open."""

from __future__ import annotations

import asyncio

import pytest

from actors.transport.doors import Doors
from actors.transport.link import GoneError, UnreachableError
from discovery.addresses import candidates


class Opened:
    def __init__(self, door):
        self.door = door
        self.closed = False

    async def close(self):
        self.closed = True


def world(**ways):
    """Attempts by door: a link, an error, or silence for ever."""
    tried = []

    async def attempt(door):
        tried.append(door)
        way = ways[door]
        if way is None:
            await asyncio.Event().wait()
        if isinstance(way, Exception):
            raise way
        return Opened(door)

    return tried, attempt


def test_a_silent_door_does_not_keep_the_other_waiting():
    async def run():
        doors = Doors()
        tried, attempt = world(dead=None, live=True)
        async with asyncio.timeout(2):
            assert (await doors.open("node", ["dead", "live"], attempt)).door == "live"
            assert (await doors.open("node", ["dead", "live"], attempt)).door == "live"
        assert tried == ["dead", "live", "live"]  # the second time it is tried first
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_refusal_where_it_answered_last_is_the_end():
    async def run():
        doors = Doors()
        await doors.open("node", ["a", "b"], world(a=True)[1])
        with pytest.raises(GoneError):
            async with asyncio.timeout(2):
                await doors.open("node", ["b", "a"], world(a=GoneError("ended"), b=None)[1])

    asyncio.run(run())


def test_refusal_elsewhere_is_not():
    async def run():
        ways = {"a": GoneError("ended"), "b": UnreachableError("silent")}
        with pytest.raises(UnreachableError, match="ended; silent"):
            await Doors().open("node", ["a", "b"], world(**ways)[1])
        with pytest.raises(GoneError):
            await Doors().open("node", ["a"], world(**ways)[1])

    asyncio.run(run())


def test_addresses_that_lead_back_come_last_and_the_own_network_first():
    announced = ["172.17.0.1", "10.8.0.3", "192.168.1.7"]
    own = ["172.17.0.1/16", "192.168.1.20/24", "127.0.0.1/8"]
    assert candidates(announced, [], own) == ("192.168.1.7", "10.8.0.3", "172.17.0.1")
