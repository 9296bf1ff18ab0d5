"""Says in words how an all-reduce goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .agreement import INLINE_BYTES
from .estimates import DOUBLING, MIXED, RING, SHARED, SHOWN, estimates
from .window import BLOCK_BYTES

if TYPE_CHECKING:
    from .terrain import Terrain


def explained(nbytes: int, terrain: Terrain) -> str:
    """Returns how an all-reduce of so many bytes goes among ranks that are there, and why."""
    ranks, hosts = sum(map(len, terrain.islands)), len(terrain.islands)
    if ranks == 1:
        return f"{nbytes} bytes: nothing moves, there is one rank"
    where = f"{nbytes} bytes among {ranks} ranks"
    if nbytes <= INLINE_BYTES:
        way = "datagrams" if terrain.shared else "streams and, inside a host, datagrams" if terrain.mixed else "streams"
        how = "one round: the elements come with each rank's offer, and every rank reduces all"
        return f"{where}: {how}; messages by {way} ({terrain.why})"
    words = {
        SHOWN: "each rank shows its array as it offers the call, and reduces all of them once all agree",
        SHARED: f"in blocks of {BLOCK_BYTES >> 20} MiB, each rank reduces 1/{ranks} of each",
        MIXED: f"reduced inside each of {hosts} hosts, then between one rank of each",
        RING: f"in chunks over streams, each rank sends 2·{ranks - 1}/{ranks} of them",
        DOUBLING: "over streams, each rank swaps the whole array a logarithmic number of times",
    }
    (best, least), *others = estimates(nbytes, terrain).items()
    rest = "".join(f"; {way} would take about {_time(seconds)}" for way, seconds in others)
    return f"{where}: {best}: {words[best]}, in about {_time(least)}{rest} ({terrain.why})"


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
