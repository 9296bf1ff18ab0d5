"""Everyone hears of everyone in a logarithmic number of rounds.

In round k a rank passes all it knows on to the rank 2**k further and learns what the rank 2**k before knows;
after ceil(log2(ranks)) rounds all know all. Without values it is the barrier of D. Hensgen, R. Finkel and
U. Manber, "Two Algorithms for Barrier Synchronization", IJPP 17(1), 1988; with values it is the all-gather of
J. Bruck et al., "Efficient Algorithms for All-to-All Communications in Multiport Message-Passing Systems",
IEEE TPDS 8(11), 1997.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .channel import Channel

T = TypeVar("T")


def exchange(channel: Channel, value: T) -> list[T]:
    """Gives every rank the values of all, in rank order. Returning means that every rank has called."""
    known: dict[int, T] = {channel.rank: value}
    distance = 1
    while distance < channel.size:
        dst, src = (channel.rank + distance) % channel.size, (channel.rank - distance) % channel.size
        channel.send(dst, f"offer.{distance}", known)
        # In the first round only the rank waited for can be missing; later it may be one that it waits for.
        unheard = [rank for rank in range(channel.size) if rank not in known] if distance > 1 else []
        known = known | channel.recv(src, f"offer.{distance}", unheard)
        distance *= 2
    return [known[rank] for rank in range(channel.size)]
