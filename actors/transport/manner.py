"""The manner of a lane: how its frames are written and read, how much goes into one, and when it acknowledges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.transport import pieces, shorthand
from actors.transport.bulk import CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.messages import Message


@dataclass(frozen=True, slots=True)
class Manner:
    """What small messages and large payloads want done differently.

    Attributes:
        write: returns the bytes of a frame by what is acknowledged and messages with their numbers; None leaves it to
            protobuf.
        read: takes a frame apart in the same way; None leaves it to protobuf.
        messages: most in one frame.
        nbytes: most bytes in one frame, but for one message that has more.
        ack_after: messages that are acknowledged at once.
    """

    write: Callable[[int, Sequence[tuple[int, Message]]], bytes | None]
    read: Callable[[bytes], tuple[int, Sequence[tuple[int, Message]]] | None]
    messages: int
    nbytes: int
    ack_after: int


# Measured: larger batches gain little and make the first message wait.
CONTROL = Manner(shorthand.write, shorthand.read, messages=512, nbytes=4 << 20, ack_after=512)

# A frame is one chunk, which is copied once into it, and what is small beside it. What is acknowledged late makes
# the sender wait at its window.
BULK = Manner(pieces.write, pieces.read, messages=8, nbytes=CHUNK_BYTES + (64 << 10), ack_after=8)
