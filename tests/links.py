"""What holds of every link, whatever carries it: tests for the modules that make a pair of one kind."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from actors.transport.link import LinkLostError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


class Linked:
    """To be inherited from by a test class that says how a pair is made and used."""

    def with_a_pair(self, folder: Path, work: Callable[[Any, Any], Awaitable[None]]) -> None:
        """Runs ``work`` with both ends of a link; closes them and sees that nothing is left."""
        raise NotImplementedError

    def test_both_ways_at_once(self, folder: Path) -> None:
        frames = [os.urandom(size) for size in (0, 1, 70_000, 3 << 20, 5)] * 5

        async def send(link: Any) -> None:
            for frame in frames:
                await link.write_bytes(frame)

        async def receive(link: Any) -> None:
            for frame in frames:
                assert await link.read_bytes() == frame

        async def work(near: Any, far: Any) -> None:
            await asyncio.gather(send(near), send(far), receive(near), receive(far))

        self.with_a_pair(folder, work)

    def test_a_writer_waits_for_a_reader_that_does_not_read(self, folder: Path) -> None:
        async def work(near: Any, far: Any) -> None:
            async def flood() -> None:
                for _ in range(200):
                    await near.write_bytes(bytes(1 << 20))

            flooding = asyncio.create_task(flood())
            done, _ = await asyncio.wait({flooding}, timeout=0.5)
            assert not done
            await far.close()
            with pytest.raises(LinkLostError):
                await flooding

        self.with_a_pair(folder, work)

    @pytest.mark.parametrize("dialled", [True, False])
    def test_what_was_written_before_the_end_arrives(self, folder: Path, dialled: bool) -> None:
        async def work(near: Any, far: Any) -> None:
            writer, reader = (near, far) if dialled else (far, near)
            for number in range(100):
                await writer.write_bytes(b"%d" % number)
            await writer.close()
            assert [await reader.read_bytes() for _ in range(101)] == [*(b"%d" % number for number in range(100)), None]

        self.with_a_pair(folder, work)
