"""Everyone talks to everyone: one round, for what is small or what differs for each pair.

`exchange` is the all-gather that MPI libraries choose for short messages on few ranks: the number of messages
grows with the square of the ranks, but every rank hears every other one itself, so that who is missing is
known exactly. `all_to_all` is the pairwise exchange of R. Thakur, R. Rabenseifner and W. Gropp, "Optimization
of Collective Communication Operations in MPICH", IJHPCA 19(1), 2005, section 4.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .flow import WINDOW, chunks, recv_array, send_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from .channel import Channel

T = TypeVar("T")


def exchange(channel: Channel, value: T) -> list[T]:
    """Gives every rank the values of all, in rank order."""
    others = [(channel.rank + distance) % channel.size for distance in range(1, channel.size)]
    for other in others:
        channel.send(other, "offer", value)
    values = {other: channel.recv(other, "offer") for other in others}
    values[channel.rank] = value
    return [values[rank] for rank in range(channel.size)]


def gather(channel: Channel, root: int, own: npt.NDArray[Any], parts: Sequence[npt.NDArray[Any]]) -> None:
    """Brings each rank's flat array ``own`` to the root, which passes ``parts`` to receive them in rank order."""
    if channel.rank != root:
        send_array(channel, root, "gather", own)
        return
    np.copyto(parts[root], own)
    for rank in range(channel.size):
        if rank != root:
            recv_array(channel, rank, "gather", parts[rank])


def scatter(channel: Channel, root: int, parts: Sequence[npt.NDArray[Any]], own: npt.NDArray[Any]) -> None:
    """Brings the root's ``parts`` to the ranks, each into its flat array ``own``."""
    if channel.rank != root:
        recv_array(channel, root, "scatter", own)
        return
    np.copyto(own, parts[root])
    for rank in range(channel.size):
        if rank != root:
            send_array(channel, rank, "scatter", parts[rank])


def all_to_all(channel: Channel, outgoing: Sequence[npt.NDArray[Any]], incoming: Sequence[npt.NDArray[Any]]) -> None:
    """Brings ``outgoing[j]`` of rank ``i`` into ``incoming[i]`` of rank ``j``; all flat, sizes may differ."""
    np.copyto(incoming[channel.rank], outgoing[channel.rank])
    for distance in range(1, channel.size):
        dst, src = (channel.rank + distance) % channel.size, (channel.rank - distance) % channel.size
        swap(channel, dst, outgoing[dst], src, incoming[src], "swap")


def swap(  # noqa: PLR0917 - two ways, each with its end
    channel: Channel, dst: int, out: npt.NDArray[Any], src: int, into: npt.NDArray[Any], step: str
) -> None:
    """Sends a flat array to one rank while one of another, or of the same, comes in."""
    sources, targets = chunks(out), chunks(into)
    sent = 0
    for turn in range(max(len(sources), len(targets))):
        while sent < min(len(sources), turn + WINDOW):
            channel.send(dst, f"{step}.{sent}", sources[sent])
            sent += 1
        if turn < len(targets):
            np.copyto(targets[turn], channel.recv(src, f"{step}.{turn}"))
