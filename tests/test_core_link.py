"""Links by gRPC within one host: who waits for an answer reads it, and all that is opened ends."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from clusters import eventually
from links import Linked

from actors.address import Address, host_key
from actors.transport.bell import Bell
from actors.transport.core_link import CoreLink
from actors.transport.core_server import CoreServer
from actors.transport.grpc_link import STREAM, GrpcDialer
from actors.transport.link import LinkLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="link-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


def _with_a_pair(folder: Path, work: Callable[[CoreLink, CoreLink], Awaitable[None]]) -> None:
    async def run() -> None:
        came: asyncio.Future[CoreLink] = asyncio.get_running_loop().create_future()
        server = CoreServer(str(folder / "s"), STREAM, (), came.set_result)
        near = await GrpcDialer().dial(Address("p", host_key(), str(folder / "s"), "n"), "control")
        assert isinstance(near, CoreLink)
        far = await came
        try:
            await asyncio.wait_for(work(near, far), 20)
        finally:
            await near.close()
            await far.close()
            await server.close()

    asyncio.run(run())
    eventually(lambda: not any(thread.name.startswith("actors-grpc-") for thread in threading.enumerate()))


class TestAsAnyLink(Linked):
    def with_a_pair(self, folder: Path, work: Callable[[Any, Any], Awaitable[None]]) -> None:
        _with_a_pair(folder, work)


class Taking:
    """Who takes frames, and on which thread."""

    def __init__(self, link: CoreLink) -> None:
        self.here: list[tuple[bytes, int]] = []
        self.loop: list[bytes] = []
        self.ended = link.receive(self.loop.append, self.take_here)

    def take_here(self, data: bytes) -> bool:
        if data == b"for the loop":
            return False
        self.here.append((data, threading.get_ident()))
        return True


@pytest.mark.parametrize("dialled", [True, False])
def test_a_thread_that_leads_takes_what_comes(folder: Path, dialled: bool) -> None:
    async def work(near: CoreLink, far: CoreLink) -> None:
        link, other = (near, far) if dialled else (far, near)
        taking = Taking(link)

        def lead(count: int) -> int:
            while len(taking.here) < count:
                link.lead(lambda: len(taking.here) >= count, 5)
            return threading.get_ident()

        led = 0
        for count in range(1, 50):
            leading = asyncio.create_task(asyncio.to_thread(lead, count))
            while not link._leading.locked():  # noqa: ASYNC110 - bounded by the test
                await asyncio.sleep(0)
            other.send_here(b"%d" % count)
            ident = await leading
            assert taking.here[-1][0] == b"%d" % count
            led += taking.here[-1][1] == ident  # else it came while the link's own thread still read
        assert led
        await other.write_bytes(b"for the loop")
        while not taking.loop:  # noqa: ASYNC110 - bounded by the test
            await asyncio.sleep(0.001)
        await other.close()
        await taking.ended

    _with_a_pair(folder, work)


@pytest.mark.parametrize("dialled", [True, False])
def test_a_lead_ends_with_its_time_by_a_bell_and_with_the_link(folder: Path, dialled: bool) -> None:
    async def work(near: CoreLink, far: CoreLink) -> None:
        link, other = (near, far) if dialled else (far, near)
        taking, bell, rung = Taking(link), Bell(), threading.Event()
        try:
            begun = time.monotonic()
            await asyncio.to_thread(link.lead, lambda: False, 0.05)
            assert 0.05 <= time.monotonic() - begun < 5
            waiting = asyncio.create_task(asyncio.to_thread(link.lead, rung.is_set, 15, bell))
            await asyncio.sleep(0.05)
            rung.set()
            bell.ring()
            await asyncio.wait_for(waiting, 5)
            waiting = asyncio.create_task(asyncio.to_thread(link.lead, lambda: False, 15))
            await asyncio.sleep(0.05)
            await other.close()
            await asyncio.wait_for(waiting, 5)
            await taking.ended
        finally:
            bell.close()

    _with_a_pair(folder, work)


def test_what_an_interrupt_may_have_lost_ends_the_link(folder: Path) -> None:
    async def work(near: CoreLink, far: CoreLink) -> None:
        taking, happened = Taking(near), near._happened

        def lead() -> None:
            this = threading.get_ident()

            def interrupted(*event: Any) -> None:
                if threading.get_ident() == this:
                    raise KeyboardInterrupt
                happened(*event)

            near._happened = interrupted  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                near.lead(lambda: False, 0.2)

        await asyncio.to_thread(lead)  # its time is told to it by an event as well
        await taking.ended
        with pytest.raises(LinkLostError):
            near.send(b"more")
        assert await far.read_bytes() is None

    _with_a_pair(folder, work)


def test_another_method_is_refused(folder: Path) -> None:
    async def run() -> None:
        server = CoreServer(str(folder / "s"), STREAM, (), lambda _: None)
        async with grpc.aio.insecure_channel(f"unix:{folder / 's'}") as channel:
            with pytest.raises(grpc.RpcError):
                await channel.unary_unary("/distributed_comm.DistributedComm/Nothing")(b"", timeout=10)
        await server.close()

    asyncio.run(run())


def test_nobody_can_listen_where_no_socket_can_be(folder: Path) -> None:
    async def run() -> None:
        with pytest.raises(OSError, match="cannot listen"):
            CoreServer(str(folder / "missing" / "s"), STREAM, (), lambda _: None)

    asyncio.run(run())
