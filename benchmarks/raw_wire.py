"""What the raw gRPC sides and their server say to each other."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "raw.Raw"
UNARY = "Call"
STREAM = "Talk"
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.so_reuseport", 0),
)
CHUNK_BYTES = 1 << 20
PROTOCOL = 5


def split(value: object) -> Iterator[bytes]:
    """Yields the messages for a value: its pickle with the sizes of its buffers, then these in chunks."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    yield pickle.dumps((head, [view.nbytes for view in views]), PROTOCOL)
    for view in views:
        for start in range(0, view.nbytes, CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])


class Joining:
    """A value that is put together from its messages."""

    def __init__(self, first: bytes) -> None:
        self._head, sizes = pickle.loads(first)
        self._buffers = [bytearray(size) for size in sizes]
        self._places = [
            memoryview(buffer)[start : start + CHUNK_BYTES]
            for buffer in self._buffers
            for start in range(0, len(buffer), CHUNK_BYTES)
        ]
        self.missing = len(self._places)

    def add(self, chunk: bytes) -> None:
        """Copies the next chunk to its place."""
        self._places[len(self._places) - self.missing][:] = chunk
        self.missing -= 1

    def value(self) -> Any:
        """Returns the value; nothing may be missing."""
        return pickle.loads(self._head, buffers=self._buffers)
