"""Large payloads: cut into chunks that travel on a lane of their own, so that they never delay a small message."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from actors.large import room
from actors.messages import Chunk, Payload, Shared
from actors.transport.codec import MalformedMessageError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    from actors.arena import Arena, Linked
    from actors.messages import Buffer

    Room = bytearray | mmap.mmap | memoryview

INLINE_BYTES = 1 << 20  # a payload up to this size rides with its message
CHUNK_BYTES = 1 << 20
MOST_BYTES = 1 << 46  # of a payload; no process can have more memory than this
WINDOW_BYTES = 64 << 20  # chunks written ahead of their acknowledgement


def chunks(transfer: int, payload: Payload, landing: Arena | None = None) -> Iterator[Chunk]:
    """Yields the chunks of a payload: each part cut at `CHUNK_BYTES`, the pickle first, then each buffer.

    Args:
        transfer: its number.
        payload: to be cut.
        landing: memory shared with the node that relays them; of what lies there only the place is said.
    """
    parts: list[Buffer] = [payload.pickle, *payload.buffers]
    sizes = tuple(len(part) for part in parts)
    number = count()
    for part in parts:
        view = memoryview(part)
        lent = landing.lend([part]) if landing is not None else ()
        for start in range(0, len(part), CHUNK_BYTES):
            index = next(number)
            piece = view[start : start + CHUNK_BYTES]
            place = replace(lent[0], offset=lent[0].offset + start, size=len(piece)) if lent else None
            yield Chunk(transfer, index, sizes if index == 0 else (), place or piece)


class Assembly:
    """A payload being put together from its chunks, which arrive in order.

    Where there is no room for it, its chunks are counted and dropped, and `payload` says what went wrong.

    Attributes:
        nbytes: of the whole payload.
    """

    __slots__ = ("_filled", "_landed", "_landing", "_lost", "_next", "_part", "_parts", "_sizes", "nbytes")

    def __init__(self, sizes: tuple[int, ...], landing: Arena | None = None) -> None:
        """Makes room for parts of these sizes.

        Args:
            sizes: in bytes.
            landing: memory shared with the node that relays them, where chunks may lie already.

        Raises:
            MalformedMessageError: there are none, or they are larger than any memory.
        """
        if not sizes:
            raise MalformedMessageError("the first chunk of a transfer does not say how large it is")
        self.nbytes = sum(sizes)
        if self.nbytes > MOST_BYTES:
            raise MalformedMessageError(f"there is no room anywhere for a transfer of {self.nbytes} bytes")
        self._sizes = sizes
        self._lost: MemoryError | OSError | None = None
        self._parts: list[Room] = []
        try:
            self._parts.extend(map(room, sizes))
        except (MemoryError, OSError) as error:
            self._lose(error)
        self._part = 0
        self._filled = 0
        self._next = 0
        self._landing = landing
        self._landed: tuple[Shared, Linked] | None = None  # where this part lies so far, from its first chunk on
        self._skip_full()

    def add(self, chunk: Chunk) -> None:
        """Copies a chunk to its place, where it does not lie with those before it already.

        Raises:
            MalformedMessageError: it is not the one that was due, or longer than its part.
        """
        if chunk.index != self._next or self.complete:
            raise MalformedMessageError(f"chunk {chunk.index} came where {self._next} was due")
        size, end = self._sizes[self._part], self._filled + chunk.nbytes
        if end > size:
            raise MalformedMessageError(f"chunk {chunk.index} is {end - size} bytes too long")
        try:
            if self._lost is None:
                self._put(chunk.data, end)
        except (ValueError, FileNotFoundError) as error:
            raise MalformedMessageError(f"memory that was shared cannot be had: {error}") from error
        except (MemoryError, OSError) as error:
            self._lose(error)
        self._filled = end
        self._next += 1
        self._skip_full()

    def _lose(self, error: MemoryError | OSError) -> None:
        self._lost = error.with_traceback(None)  # which refers to what shall be given up
        self._parts.clear()
        self._landed = None

    def _put(self, data: Buffer | Shared, end: int) -> None:
        if isinstance(data, Shared):
            self._add_landed(data)
        else:
            self._take_off()
            self._parts[self._part][self._filled : end] = data

    def _add_landed(self, data: Shared) -> None:
        if self._landing is None:
            raise ValueError("there is none in common")
        if not self._filled:
            self._landed = data, self._landing.link(data.name)
            return
        first = self._landed[0] if self._landed is not None else None
        if first is None or (data.name, data.offset) != (first.name, first.offset + self._filled):
            self._take_off()
            end = self._filled + data.size
            self._parts[self._part][self._filled : end] = self._landing.take([data])[0]

    def _take_off(self) -> None:
        """Copies what of this part has landed elsewhere."""
        if self._landed is not None:
            self._parts[self._part][: self._filled] = self._lies(self._filled)

    def _lies(self, size: int) -> memoryview:
        assert self._landed is not None
        (first, file), self._landed = self._landed, None
        found = file.open()[first.offset : first.offset + size]
        if len(found) != size:
            raise ValueError(f"{first.name} has too few bytes of shared memory")
        return found

    def _skip_full(self) -> None:
        while not self.complete and self._filled == self._sizes[self._part]:
            if self._landed is not None:
                try:
                    self._parts[self._part] = self._lies(self._filled)
                except (ValueError, FileNotFoundError) as error:
                    raise MalformedMessageError(f"memory that was shared cannot be had: {error}") from error
                except (MemoryError, OSError) as error:
                    self._lose(error)
            self._part += 1
            self._filled = 0

    @property
    def complete(self) -> bool:
        """Whether the last chunk has arrived."""
        return self._part == len(self._sizes)

    def payload(self) -> Payload:
        """Returns the whole payload; its buffers are read-only.

        Raises:
            MemoryError: there was no room for it.
            OSError: likewise, for one more file or mapping.
        """
        if self._lost is not None:
            raise self._lost
        pickle, *buffers = self._parts
        return Payload(bytes(pickle), tuple(memoryview(buffer).toreadonly() for buffer in buffers))
