"""Frames of a link that carries bytes; they are parsed here, so that a relay can pass them on unread."""

from __future__ import annotations

from actors._wire.distributed_comm_pb2 import Frame


class Framing:
    """Half a `Link`: the other half reads and writes bytes."""

    async def read(self) -> Frame | None:
        """See `Link`."""
        data = await self.read_bytes()
        return None if data is None else Frame.FromString(data)

    async def write(self, frame: Frame) -> None:
        """See `Link`."""
        await self.write_bytes(frame.SerializeToString())

    async def read_bytes(self) -> bytes | None:
        """See `RawLink`."""
        raise NotImplementedError

    async def write_bytes(self, data: bytes) -> None:
        """See `RawLink`."""
        raise NotImplementedError
