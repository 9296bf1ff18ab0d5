"""What it costs nodes to meet and to stay together, by the runtime's own code on a simulated LAN.

It holds `benchmarks/membership_simulation.py`, a model that goes further in less time, against what runs: processes
with their peers and sessions, members, the rolls of who belongs. Frames are counted; pings of connections, of which
there is one a second for each, are not simulated.

    python benchmarks/mesh_simulation.py [NODES ...]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.node.neighbours import MESH_LIMIT, REST_TICKS, TICK_SECONDS
from actors.simulation.membership import World

if TYPE_CHECKING:
    from actors.simulation.resident import Node

LOOK_SECONDS = 0.05
LAST_START_SECONDS = 1.0
COLLECT_SECONDS = 10.0
"""Of simulated time, after which garbage is collected: a simulation has it lie, and many nodes make much of it."""

REST_SECONDS = 2 * REST_TICKS * TICK_SECONDS + 30
"""After which what is not used is closed."""


@dataclass(frozen=True, slots=True)
class Met:
    """What came of one run; all but seconds and links are of one node, on average.

    Attributes:
        nodes: how many.
        seconds: from the last start until all knew all.
        links: connections of a node, then.
        kept: the same in the end.
        frames: that it sent until then.
        kilobytes: of these.
        idle_frames: that it sends in a second afterwards.
        idle_kilobytes: of these.
    """

    nodes: int
    seconds: float
    links: float
    kept: float
    frames: float
    kilobytes: float
    idle_frames: float
    idle_kilobytes: float


class Meeting(World):
    """Devices that start within a second, know each other's addresses, and are left alone."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(0, size, (), trace=False, limit=limit)
        self.met: Met | None = None

    async def probes(self, node: Node) -> None:
        """See `World`: nobody calls."""

    def saw(self, node: Node) -> None:
        """See `World`: nobody reads what nodes think of each other."""

    def _all_know_all(self) -> bool:
        size = len(self.devices)
        return all(device.node is not None and len(device.node.members.alive()) == size for device in self.devices)

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            gc.collect()

    async def _all(self, until: float) -> None:
        size, lan = len(self.devices), self.lan
        collecting = asyncio.get_running_loop().create_task(self._collect())
        while not self._all_know_all():  # noqa: ASYNC110 - that looking costs nothing here
            await asyncio.sleep(LOOK_SECONDS)
        then, frames, sent, links = self.loop.time(), lan.frames, lan.sent_bytes, len(lan.links)
        until += REST_SECONDS if size > self.limit else 0.0
        await asyncio.sleep(until - then)
        collecting.cancel()
        rest = (until - then) * size
        self.met = Met(
            size, max(0.0, then - LAST_START_SECONDS), links / size, len(lan.links) / size, frames / size,
            sent / size / 1e3,
            (lan.frames - frames) / rest, (lan.sent_bytes - sent) / rest / 1e3,
        )  # fmt: skip


def meet(size: int, limit: int = MESH_LIMIT) -> Met:
    """Lets so many nodes meet, of which each is connected with all others up to a limit, and looks at them."""
    logging.disable(logging.CRITICAL)
    meeting = Meeting(size, limit)
    try:
        meeting.run()
    finally:
        logging.disable(logging.NOTSET)
    assert meeting.met is not None
    return meeting.met


def main() -> None:
    """Prints one line of JSON for each number of nodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", type=int, default=[10, 32, 100])
    parser.add_argument("--limit", type=int, default=MESH_LIMIT, help="up to which all are connected with all")
    arguments = parser.parse_args()
    for count in arguments.nodes:
        met = meet(count, arguments.limit)
        print(json.dumps({name: round(getattr(met, name), 3) for name in Met.__slots__}), flush=True)


if __name__ == "__main__":
    main()
