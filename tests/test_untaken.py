"""What stands in the place of a value that a process had no room for: it says so where it is opened, and only there."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from actors.exceptions import ObjectLostError
from actors.messages import Call, Calls, Chunk, Item, Outcome, Payload, Replies, Reply, Shared, Transfer
from actors.sealed import of_reply, open_arguments
from actors.serialize import loads
from actors.transport.bulk import Assembly
from actors.transport.untaken import untaken

if TYPE_CHECKING:
    from actors.messages import Carrying

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            MemoryError(),
            MemoryError,
            "no room for the 5,000,000 bytes .*: free some memory there, or send it in parts",
        ),
        (FULL, ObjectLostError, "could not take in the 5,000,000 bytes .*: .*No space left"),
    ],
)
@pytest.mark.parametrize(
    "message",
    [Call(1, "a", "m", Transfer(1)), Item(1, 0, Transfer(1)), Reply(1, Outcome.RAISED, Payload(b"", (b"",)))],
)
def test_who_opens_it_is_told(message: Carrying, error: Any, kind: type[Exception], words: str) -> None:
    found = untaken(message, 5_000_000, error)
    assert isinstance(found.payload, Payload)
    with pytest.raises(kind, match=words):
        open_arguments(found.payload)
    if isinstance(found, Reply):
        with pytest.raises(kind, match=words):
            of_reply(found).open()


@pytest.mark.parametrize("message", [Calls((1, 2, 3), "a", "m", Transfer(1)), Replies((1, 2, 3), Transfer(1))])
def test_of_those_that_came_together_each_is_told(message: Any) -> None:
    payload = untaken(message, 10, MemoryError()).payload
    assert isinstance(payload, Payload)
    assert not payload.pickle
    assert len(payload.buffers) == 3
    for pickled in payload.buffers:
        with pytest.raises(MemoryError, match="no room"):
            loads(Payload(bytes(pickled)))


def test_chunks_that_there_is_no_room_for_are_counted_all_the_same() -> None:
    class Full:
        def link(self, _: str) -> Any:
            raise FULL

    assembly = Assembly((4, 6), Full())  # type: ignore[arg-type]
    assembly.add(Chunk(1, 0, (4, 6), b"abcd"))
    assembly.add(Chunk(1, 1, (), Shared(0, "file", 0, 3)))
    assert not assembly.complete
    assembly.add(Chunk(1, 2, (), b"efg"))
    assert assembly.complete
    assert assembly.nbytes == 10
    with pytest.raises(OSError, match="No space left"):
        assembly.payload()
