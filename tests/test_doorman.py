"""Who knocks at a door and proves nothing: told of once, and no more of them at a time than the door can bear."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from actors.node import doorman
from actors.node.doorman import MOST_UNPROVED, Doorman

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PATIENCE = 20.0
HERE = "127.0.0.1"


class Door(asyncio.Protocol):
    """A door that lets everybody in and says nothing, with its doorman, and those who have come."""

    def __init__(self, friends: set[str]) -> None:
        self.doorman = Doorman(asyncio.get_running_loop(), lambda: dict.fromkeys(friends, "anna"))
        self.port = 0
        self.came: list[socket.socket] = []
        self._server: asyncio.Server | None = None
        self._inside: list[asyncio.BaseTransport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inside.append(transport)

    async def open(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(lambda: self, HERE, 0, backlog=100)
        self.port = self.doorman.port = self._server.sockets[0].getsockname()[1]

    async def knock(self, source: str = HERE) -> socket.socket:
        visitor = socket.socket()
        visitor.setblocking(False)
        visitor.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(visitor, (HERE, self.port))
        self.came.append(visitor)
        await asyncio.to_thread(self.doorman.knocked)  # as gRPC does, on a thread of its own
        return visitor

    def left(self) -> int:
        """How many have not been hung up on."""
        return sum(not hung_up(visitor) for visitor in self.came)

    async def close(self) -> None:
        for visitor in self.came:
            visitor.close()
        assert self._server is not None
        self._server.close()
        for transport in self._inside:
            transport.close()
        await asyncio.sleep(0.05)


def hung_up(visitor: socket.socket) -> bool:
    try:
        return visitor.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextlib.asynccontextmanager
async def door(*friends: str) -> AsyncIterator[Door]:
    made = Door(set(friends))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a bound is around it
            await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorman, "JUDGE_SECONDS", 0.3)


def test_an_address_that_proves_nothing_has_so_many_connections_and_no_more() -> None:
    async def work() -> None:
        async with door() as here:
            first = [await here.knock() for _ in range(MOST_UNPROVED)]
            await asyncio.sleep(1)
            assert here.left() == MOST_UNPROVED
            for visitor in first[:4]:
                here.doorman.proved("ipv4:{}:{}".format(*visitor.getsockname()))
            for _ in range(MOST_UNPROVED):
                await here.knock()
            await until(lambda: here.left() <= MOST_UNPROVED + 4)
            assert here.left() == MOST_UNPROVED + 4
            assert not any(map(hung_up, first[:4]))  # who has proved itself stays

    asyncio.run(work())


@pytest.mark.parametrize("friendly", [False, True])
def test_who_proves_nothing_is_told_of_once_with_what_to_do(friendly: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actors")

    async def work() -> None:
        async with door(*[HERE] * friendly) as here:
            for _ in range(3):
                await here.knock()
                await asyncio.sleep(0.6)
            await until(lambda: caplog.messages)
            await asyncio.sleep(1)

    asyncio.run(work())
    (said,) = caplog.messages
    assert (f"from {HERE}, where anna is, did not get through" if friendly else f"from {HERE} was refused") in said
    assert ("actors revoke anna" if friendly else "actors invite") in said


def test_a_member_that_looks_before_it_comes_in_is_not_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorman, "JUDGE_SECONDS", 2.0)  # time enough to come in, also where much else goes on
    caplog.set_level(logging.INFO, "actors")

    async def work() -> None:
        async with door(HERE) as here:
            await here.knock()
            visitor = await here.knock()
            here.doorman.proved("ipv4:{}:{}".format(*visitor.getsockname()))
            await asyncio.sleep(3)

    asyncio.run(work())
    assert caplog.messages == []


def test_who_proves_itself_in_time_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "actors")

    async def work() -> None:
        async with door() as here:
            visitor = await here.knock()
            here.doorman.proved("ipv4:{}:{}".format(*visitor.getsockname()))
            await asyncio.sleep(1)

    asyncio.run(work())
    assert caplog.messages == []


@pytest.mark.skipif(sys.platform != "linux", reason="a second loopback address is Linux's")
def test_who_is_gone_at_once_after_somebody_else_is_told_of_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorman, "REST", 1)  # a look may take long here

    async def work() -> None:
        async with door() as here:
            for source in ("127.0.0.2", "127.0.0.3"):
                (await here.knock(source)).close()
                await asyncio.sleep(0.1)
            await until(lambda: len(caplog.messages) == 2)

    asyncio.run(work())
    assert ["127.0.0.2" in caplog.messages[0], "127.0.0.3" in caplog.messages[1]] == [True, True]
