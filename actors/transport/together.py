"""Together: what is of no use to a process yet is passed on to it with what follows, and wakes it once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from actors.transport.link import LinkLostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.transport.link import QuickLink

MOST_FRAMES = 8

HELD_SECONDS = 0.02
"""For so long a frame waits: whoever sent it may wait for its acknowledgement before sending more."""


class Together:
    """The way of frames on to a process. Its methods belong to the I/O loop.

    Args:
        link: to the process.
        more: whether what was given last is of no use before what follows it.
        valid: whether what was given may still be passed on.
    """

    def __init__(self, link: QuickLink, more: Callable[[], bool], valid: Callable[[], bool]) -> None:
        self._link = link
        self._more = more
        self._valid = valid
        self._held: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    async def write_bytes(self, data: bytes) -> None:
        """Passes a frame on, now or soon.

        Raises:
            LinkLostError: the link has ended.
        """
        self._held.append(data)
        if self._more() and len(self._held) < MOST_FRAMES:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(HELD_SECONDS, self._late)
            return
        self._let_go()
        await self._link.drained()

    def _late(self) -> None:
        with suppress(LinkLostError):  # the next frame finds it so
            self._let_go()

    def _let_go(self) -> None:
        held = b"".join(self._held)  # frames one after the other are one
        self.drop()
        if self._valid():
            self._link.send(held)

    def drop(self) -> None:
        """Passes nothing more on: whoever sent what was held will send it again."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
