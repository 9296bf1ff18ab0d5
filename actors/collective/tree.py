"""Broadcast down a binomial tree: a logarithmic number of hops, and the root sends to few.

The tree is the classic one of MPI libraries (R. Thakur, R. Rabenseifner and W. Gropp, IJHPCA 19(1), 2005,
section 4.2), here with chunks, so that a rank passes the first on while the next is on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .flow import Inflow, Outflow, chunks

if TYPE_CHECKING:
    import numpy.typing as npt

    from .channel import Channel


def broadcast(channel: Channel, root: int, flat: npt.NDArray[Any]) -> None:
    """Brings the root's flat array to all: the root reads ``flat``, the others have it filled."""
    parent, children = neighbours(channel.rank, root, channel.size)
    pieces = chunks(flat)
    inflow = None if parent is None else Inflow(channel, parent, "tree", len(pieces))
    outflows = [Outflow(channel, child, "tree") for child in children]
    for piece in pieces:
        if inflow is not None:
            np.copyto(piece, inflow.recv())
        for outflow in outflows:
            outflow.send(piece)


def neighbours(rank: int, root: int, size: int) -> tuple[int | None, list[int]]:
    """Returns the parent of ``rank`` (None for the root) and its children, those with most below them first.

    Counted from the root, a rank's parent is the rank with its lowest set bit cleared.
    """
    place = (rank - root) % size
    lowest = place & -place if place else 1 << (size - 1).bit_length()
    parent = None if place == 0 else (place - lowest + root) % size
    children = []
    bit = lowest >> 1
    while bit:
        if place + bit < size:
            children.append((place + bit + root) % size)
        bit >>= 1
    return parent, children
