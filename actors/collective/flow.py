"""Large arrays travel as chunks, with a bound on how many are under way.

A receiver grants credit as it takes chunks, so that neither side nor anything between them holds more than a
window of chunks, and a sender whose receiver has stopped waits in a receive, which has a deadline.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from .channel import Channel

CHUNK_BYTES = 1 << 20
"""Least payload of one message, where there is as much."""

GROWTH = 4
"""How many times as large chunks become where there are many: each has a cost of its own."""

WINDOW = 4
"""Chunks under way between two ranks."""

_FEW = 8  # chunks, so that one is reduced while the next is on its way

_GRANT = WINDOW // 2


def chunk_count(nbytes: int) -> int:
    """Returns how many chunks carry ``nbytes`` bytes; none for none."""
    return max(min(-(-nbytes // CHUNK_BYTES), _FEW), -(-nbytes // (GROWTH * CHUNK_BYTES)))


def cut(flat: npt.NDArray[Any], pieces: int) -> list[npt.NDArray[Any]]:
    """Cuts a flat array into ``pieces`` views, equal but for one element; some are empty where there are too few."""
    base, longer = divmod(flat.size, pieces)
    starts = [index * base + min(index, longer) for index in range(pieces + 1)]
    return [flat[start:stop] for start, stop in pairwise(starts)]


def chunks(flat: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """Cuts a flat array into the chunks it travels as."""
    count = chunk_count(flat.nbytes)
    return cut(flat, count) if count else []


class Outflow:
    """Sends the chunks of one array to one rank, waiting for credit where the window is used up."""

    def __init__(self, channel: Channel, dst: int, step: str) -> None:
        self._channel, self._dst, self._step = channel, dst, step
        self._sent, self._allowed = 0, WINDOW

    def send(self, chunk: npt.NDArray[Any]) -> None:
        """Sends the next chunk."""
        if self._sent == self._allowed:
            self._channel.recv(self._dst, f"{self._step}+{self._allowed}")
            self._allowed += _GRANT
        self._channel.send(self._dst, f"{self._step}.{self._sent}", chunk)
        self._sent += 1


class Inflow:
    """Receives the chunks of one array from one rank and grants credit for those that follow."""

    def __init__(self, channel: Channel, src: int, step: str, count: int) -> None:
        self._channel, self._src, self._step, self._count = channel, src, step, count
        self._taken = 0

    def recv(self) -> npt.NDArray[Any]:
        """Returns the next chunk, read-only."""
        chunk: npt.NDArray[Any] = self._channel.recv(self._src, f"{self._step}.{self._taken}")
        self._taken += 1
        allowed = self._taken + WINDOW - _GRANT
        # Credit that the sender does not need would lie unread.
        if self._taken % _GRANT == 0 and allowed < self._count:
            self._channel.send(self._src, f"{self._step}+{allowed}", None)
        return chunk


def send_array(channel: Channel, dst: int, step: str, flat: npt.NDArray[Any]) -> None:
    """Sends a flat array to one rank in chunks."""
    out = Outflow(channel, dst, step)
    for chunk in chunks(flat):
        out.send(chunk)


def recv_array(channel: Channel, src: int, step: str, into: npt.NDArray[Any]) -> None:
    """Receives what `send_array` sends, into a flat array of the same size and dtype."""
    targets = chunks(into)
    inflow = Inflow(channel, src, step, len(targets))
    for target in targets:
        np.copyto(target, inflow.recv())
