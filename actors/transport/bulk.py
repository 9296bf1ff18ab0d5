"""Large payloads: cut into chunks that travel on a lane of their own, so that they never delay a small message."""

from __future__ import annotations

import contextlib
import mmap
import sys
from itertools import count
from typing import TYPE_CHECKING

from actors.messages import Chunk, Payload
from actors.transport.codec import MalformedMessageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actors.messages import Buffer

INLINE_BYTES = 1 << 20  # a payload up to this size rides with its message
CHUNK_BYTES = 256 << 10
WINDOW_BYTES = 64 << 20  # chunks written ahead of their acknowledgement


def chunks(transfer: int, payload: Payload) -> Iterator[Chunk]:
    """Yields the chunks of a payload: each part cut at `CHUNK_BYTES`, the pickle first, then each buffer."""
    parts: list[Buffer] = [payload.pickle, *payload.buffers]
    sizes = tuple(len(part) for part in parts)
    number = count()
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(part), CHUNK_BYTES):
            index = next(number)
            yield Chunk(transfer, index, sizes if index == 0 else (), view[start : start + CHUNK_BYTES])


def _room(size: int) -> bytearray | mmap.mmap:
    """Returns memory to be written. Large memory is cleared by the system as it is touched, and not here at once."""
    if size < INLINE_BYTES:
        return bytearray(size)
    if sys.platform != "linux":
        return mmap.mmap(-1, size)
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # In pages of 2 MiB: the first touch of small ones costs several times the copy.
    with contextlib.suppress(OSError):  # a system without them
        room.madvise(mmap.MADV_HUGEPAGE)
    return room


class Assembly:
    """A payload being put together from its chunks, which arrive in order."""

    __slots__ = ("_filled", "_next", "_part", "_parts")

    def __init__(self, sizes: tuple[int, ...]) -> None:
        """Makes room for parts of these sizes.

        Raises:
            MalformedMessageError: there are none, or they are larger than the memory.
        """
        if not sizes:
            raise MalformedMessageError("the first chunk of a transfer does not say how large it is")
        try:
            self._parts = [_room(size) for size in sizes]
        except (MemoryError, OverflowError, OSError) as error:
            raise MalformedMessageError(f"there is no room here for a transfer of {sum(sizes)} bytes") from error
        self._part = 0
        self._filled = 0
        self._next = 0
        self._skip_full()

    def add(self, chunk: Chunk) -> None:
        """Copies a chunk to its place.

        Raises:
            MalformedMessageError: it is not the one that was due, or longer than its part.
        """
        if chunk.index != self._next or self.complete:
            raise MalformedMessageError(f"chunk {chunk.index} came where {self._next} was due")
        part, end = self._parts[self._part], self._filled + len(chunk.data)
        if end > len(part):
            raise MalformedMessageError(f"chunk {chunk.index} is {end - len(part)} bytes too long")
        part[self._filled : end] = chunk.data
        self._filled = end
        self._next += 1
        self._skip_full()

    def _skip_full(self) -> None:
        while not self.complete and self._filled == len(self._parts[self._part]):
            self._part += 1
            self._filled = 0

    @property
    def complete(self) -> bool:
        """Whether the last chunk has arrived."""
        return self._part == len(self._parts)

    def payload(self) -> Payload:
        """Returns the whole payload; its buffers are read-only."""
        pickle, *buffers = self._parts
        return Payload(bytes(pickle), tuple(memoryview(buffer).toreadonly() for buffer in buffers))
