"""What is of no use alone is passed on with what follows it, in order, and never kept for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from actors.transport import together
from actors.transport.link import LinkLostError
from actors.transport.together import MOST_FRAMES, Together

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.link import QuickLink


class Sink:
    """A link that keeps what it is given."""

    def __init__(self) -> None:
        self.came: list[bytes] = []
        self.arrived = asyncio.Event()
        self.ended = False

    def send(self, data: bytes) -> bool:
        if self.ended:
            raise LinkLostError("it has ended")
        self.came.append(data)
        self.arrived.set()
        return True

    async def drained(self) -> None:
        pass


def way(sink: Sink, more: Callable[[], bool], valid: Callable[[], bool] = lambda: True) -> Together:
    link: QuickLink = sink  # type: ignore[assignment] # as much of one as is used
    return Together(link, more, valid)


def test_frames_wait_for_the_last_of_them_or_until_there_are_many() -> None:
    async def work() -> None:
        sink, more = Sink(), [True]
        passed = way(sink, lambda: more[0])
        await passed.write_bytes(b"a")
        await passed.write_bytes(b"b")
        assert not sink.came
        more[0] = False
        await passed.write_bytes(b"c")
        await passed.write_bytes(b"d")
        assert sink.came == [b"abc", b"d"]
        more[0] = True
        for _ in range(MOST_FRAMES):
            await passed.write_bytes(b"e")
        assert sink.came[2:] == [b"e" * MOST_FRAMES]
        passed.drop()

    asyncio.run(work())


def test_a_frame_that_nothing_follows_goes_by_itself() -> None:
    async def work() -> None:
        sink = Sink()
        passed = way(sink, lambda: True)
        await passed.write_bytes(b"a")
        async with asyncio.timeout(30):
            await sink.arrived.wait()
        assert sink.came == [b"a"]
        sink.ended = True
        await passed.write_bytes(b"b")  # by the time it goes the link has ended: the next one meets that
        with pytest.raises(LinkLostError):
            for _ in range(MOST_FRAMES):
                await passed.write_bytes(b"c")
        passed.drop()

    asyncio.run(work())


def test_what_may_not_be_passed_on_any_more_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "HELD_SECONDS", 0.0)

    async def work() -> None:
        sink, valid = Sink(), [True]
        passed = way(sink, lambda: True, lambda: valid[0])
        await passed.write_bytes(b"a")
        passed.drop()
        await passed.write_bytes(b"b")
        valid[0] = False
        await asyncio.sleep(0.01)
        assert not sink.came

    asyncio.run(work())
