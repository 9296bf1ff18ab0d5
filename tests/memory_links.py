"""Links between two ends in one event loop, which break where a test says, and a dialer that opens them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from actors._wire.distributed_comm_pb2 import Frame
from actors.transport.link import GoneError, LinkLostError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from actors.address import Address
    from actors.transport.acceptor import Acceptor

CAPACITY = 4  # frames on the way in one direction; the writer of another one waits


class Way:
    """One direction of a link."""

    def __init__(self) -> None:
        self.ended = False
        self._frames: deque[bytes] = deque()
        self._changed = asyncio.Event()

    async def put(self, data: bytes) -> None:
        await asyncio.sleep(0)  # others have their turn, as with a real write
        while len(self._frames) >= CAPACITY and not self.ended:
            await self._change()
        if self.ended:
            raise LinkLostError("the link was cut")
        self._frames.append(data)
        self._changed.set()

    async def get(self) -> bytes | None:
        while not self._frames and not self.ended:
            await self._change()
        if not self._frames:
            return None
        self._changed.set()
        return self._frames.popleft()

    def end(self, *, lose: bool) -> None:
        self.ended = True
        if lose:
            self._frames.clear()
        self._changed.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class MemoryLink:
    """One end of a link."""

    def __init__(self, inward: Way, outward: Way, budget: list[int], node: str | None = None) -> None:
        self.node = node
        self._written: list[bytes] = []
        self._in = inward
        self._out = outward
        self._budget = budget

    @property
    def written(self) -> list[Frame]:
        """The frames that were written to this end."""
        return [Frame.FromString(data) for data in self._written]

    async def read(self) -> Frame | None:
        data = await self.read_bytes()
        return None if data is None else Frame.FromString(data)

    async def read_bytes(self) -> bytes | None:
        return await self._in.get()

    async def write(self, frame: Frame) -> None:
        await self.write_bytes(frame.SerializeToString())

    async def write_bytes(self, data: bytes) -> None:
        if self._budget[0] == 0:
            self.cut()
        self._budget[0] -= 1
        await self._out.put(data)
        self._written.append(data)

    async def close(self) -> None:
        """Ends the link; what is on the way arrives."""
        self._out.end(lose=False)
        self._in.end(lose=False)

    def cut(self) -> None:
        """Breaks the link; what is on the way is lost."""
        self._out.end(lose=True)
        self._in.end(lose=True)


def link_pair(frames: int = -1) -> tuple[MemoryLink, MemoryLink]:
    """Returns the two ends of a link that breaks at the write after so many frames; never if negative."""
    there, back, budget = Way(), Way(), [frames]
    return MemoryLink(back, there, budget), MemoryLink(there, back, budget)


class MemoryDialer:
    """Dials the acceptors of this event loop by the id of their process.

    Attributes:
        acceptors: the processes that live.
        silent: processes that do not answer a dial at present.
        budgets: how many frames each of the next links lasts.
    """

    def __init__(self) -> None:
        self.acceptors: dict[str, Acceptor] = {}
        self.silent: set[str] = set()
        self.budgets: deque[int] = deque()
        self.links: list[MemoryLink] = []
        self._serving: set[asyncio.Task[None]] = set()

    async def dial(self, address: Address, lane: str) -> MemoryLink:
        if address.process in self.silent:
            raise UnreachableError("it is silent")
        acceptor = self.acceptors.get(address.process)
        if acceptor is None:
            raise GoneError("its process has ended")
        link, far = link_pair(self.budgets.popleft() if self.budgets else -1)
        self.links.append(link)
        self._spawn(_greet(acceptor, far))
        return link

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def cut(self) -> None:
        """Breaks all links."""
        for link in self.links:
            link.cut()
        self.links.clear()

    async def close(self) -> None:
        await self.cut()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)


async def _greet(acceptor: Acceptor, link: MemoryLink) -> None:
    first = await link.read()
    if first is not None:
        await acceptor.serve(link, first.hello)
