"""A board in shared memory, where each rank of a host says something small to all the others at once.

Every rank posts into its own part and looks at the others'. Posts are numbered, and carry a checksum over the number
too: one that is only half there, as a processor shows it that reorders another's writes, is read again. A rank that
has looked in vain for some microseconds sleeps, and whoever posts last wakes all that do.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any
from zlib import crc32

from actors.exceptions import CollectiveError

from .channel import SilentRankError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

    from .bell import Bell
    from .channel import Channel

POST_BYTES = 1 << 14
"""Largest post; what is larger is said in messages, and that it is so is posted."""

LOOKING_SECONDS = 40e-6
"""A rank looks this long for what it waits for before it sleeps, where every rank can have a core."""

# Words of 8 bytes. Beside the two posts, of which one is written while the other may be read yet, lies whether its
# rank sleeps; lines of 64 bytes that two ranks write at the same time are kept apart.
_NUMBER, _LENGTH, _SUM, _HEAD_BYTES = 0, 1, 2, 64
_ASLEEP = 0
_SLOTS = 2
_SLOT_BYTES = _HEAD_BYTES + POST_BYTES
BOARD_BYTES = 64 + _SLOTS * _SLOT_BYTES
_ELSEWHERE = (1 << 64) - 1

FIRST_SLICE = 0.002  # of a rank that sleeps; a bell that is missed costs no more than this
LONGEST_SLICE = 0.05  # what lies below is looked at this often: whether a rank has died, what came its way


def looking_seconds(ranks: int) -> float:
    """Returns how long one of so many ranks of this host looks before it sleeps: not at all where cores are short."""
    return LOOKING_SECONDS if ranks <= (os.cpu_count() or 1) else 0.0


class Board:
    """The board of a group whose ranks are all on this host, as one of them sees it.

    Args:
        maps: every rank's file, mapped, in rank order.
        start: where in each the rank's part begins.
        rank: this one.
        bell: wakes the others, and this one.
    """

    def __init__(self, maps: Sequence[mmap.mmap], start: int, rank: int, bell: Bell) -> None:
        parts = [memoryview(mapped)[start : start + BOARD_BYTES] for mapped in maps]
        self._bytes = parts
        self._words = [part.cast("Q") for part in parts]
        self._rank, self._size, self._bell = rank, len(maps), bell
        self._others = [(rank + distance) % len(maps) for distance in range(1, len(maps))]
        self._patience = looking_seconds(len(maps))
        self._number = 0

    def exchange(self, channel: Channel, value: Any) -> list[Any]:
        """Gives every rank the values of all, in rank order. All ranks call it as often.

        Args:
            channel: the ranks, for values that are larger than a post, or no bytes.
            value: this rank's.

        Raises:
            CollectiveError: a rank has died or the group was aborted.
            SilentRankError: a rank posted nothing until the deadline.
        """
        self._number = number = self._number + 1
        start = 64 + (number % _SLOTS) * _SLOT_BYTES
        if type(value) is not bytes or len(value) > POST_BYTES:
            for other in self._others:
                channel.send(other, "offer", value)
        self._post(number, start, value)
        if not self._look(number, start >> 3):
            self._sleep(channel, number, start >> 3)
        said = [value] * self._size
        for other in self._others:
            said[other] = self._read(channel, other, number, start)
        return said

    def _post(self, number: int, start: int, value: Any) -> None:
        words, at = self._words[self._rank], start >> 3
        if type(value) is bytes and (length := len(value)) <= POST_BYTES:
            body = start + _HEAD_BYTES
            self._bytes[self._rank][body : body + length] = value
            words[at + _LENGTH] = length
            words[at + _SUM] = crc32(value, number & 0xFFFFFFFF)
        else:
            words[at + _LENGTH], words[at + _SUM] = _ELSEWHERE, number
        words[at + _NUMBER] = number
        if not self._missing(number, at):
            for other in self._others:
                if self._words[other][_ASLEEP] == number:
                    self._bell.ring(other)

    def _missing(self, number: int, at: int) -> list[int]:
        return [other for other in self._others if self._words[other][at] != number]

    def _look(self, number: int, at: int) -> bool:
        """Returns whether all have posted, having looked for a while."""
        until = 0.0
        for other in self._others:
            words = self._words[other]
            while words[at] != number:
                if not until:
                    if not self._patience:
                        return False
                    until = time.perf_counter() + self._patience
                elif time.perf_counter() > until:
                    return False
        return True

    def _sleep(self, channel: Channel, number: int, at: int) -> None:
        """Returns when all have posted."""
        self._words[self._rank][_ASLEEP] = number
        wait = FIRST_SLICE
        while missing := self._missing(number, at):
            left = channel.deadline - time.monotonic()
            if left <= 0:
                raise SilentRankError(missing[0])
            self._bell.wait(min(wait, left))
            wait = min(2 * wait, LONGEST_SLICE)
            for other in self._missing(number, at):
                try:  # nothing comes under this tag, but the lane knows who has died
                    channel.fabric.recv(other, "posted", 0.0)
                except TimeoutError:
                    pass
                except CollectiveError:
                    if other in self._missing(number, at):  # else it has posted since, before it went
                        raise

    def _read(self, channel: Channel, other: int, number: int, start: int) -> Any:
        words, at, body = self._words[other], start >> 3, start + _HEAD_BYTES
        while True:
            length, checksum = words[at + _LENGTH], words[at + _SUM]
            if length <= POST_BYTES:
                value = bytes(self._bytes[other][body : body + length])
                if crc32(value, number & 0xFFFFFFFF) == checksum:
                    return value
            elif checksum == number:
                return channel.recv(other, "offer")
            if time.monotonic() > channel.deadline:
                raise SilentRankError(other)
