"""Connections that have just shown who is behind a door, kept for the conversation that follows upon that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

KEEP_SECONDS = 2.0


class Proved:
    """At most one channel to each node: to prove each other's keys anew would be most of what it takes to meet one."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, grpc.aio.Channel]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def keep(self, node: str, door: str, channel: grpc.aio.Channel) -> None:
        """Keeps a channel that nothing uses any more, for `KEEP_SECONDS`."""
        self._drop(node)
        self._kept[node] = door, channel
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self._expire, node, channel)

    def take(self, node: str, doors: Sequence[str]) -> grpc.aio.Channel | None:
        """Returns the channel to a node at one of these doors, if there is one and it is up."""
        door, channel = self._kept.get(node, ("", None))
        if channel is None:
            return None
        if door in doors and channel.get_state() is grpc.ChannelConnectivity.READY:
            del self._kept[node]
            return channel
        self._drop(node)
        return None

    def _expire(self, node: str, channel: grpc.aio.Channel) -> None:
        if self._kept.get(node, ("", None))[1] is channel:
            self._drop(node)

    def _drop(self, node: str) -> None:
        kept = self._kept.pop(node, None)
        if kept is not None:
            task = asyncio.get_running_loop().create_task(kept[1].close(None))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes them all."""
        for node in list(self._kept):
            self._drop(node)
        await asyncio.gather(*self._closing, return_exceptions=True)
