"""Many devices on the simulated LAN, each of which looks after a few: see `actors.node.neighbours`.

What runs is the runtime's own, as in `actors.simulation.membership`; so many may be connected with all others that the
rest must be known by what nodes tell each other.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from .faults import Fault
from .membership import LOOK_SECONDS, SPAN_SECONDS, World
from .running import held, unheard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .outcome import Outcome
    from .resident import Device

KINDS = ("cut", "cut", "split", "stall", "crash", "crash", "crash", "clock", "address", "revoke")

LOST_SECONDS = 3.0
"""After which all know that a device was killed, where nothing else is wrong: its neighbours within a second."""

KNOWN_SECONDS = 50.0
"""After the last that went wrong, after which all know all: what was lost is looked for, and heard of."""


class Crowd(World):
    """The devices, what goes wrong, and what must hold."""

    pause = (5.0, 30.0)

    def __init__(self, seed: int, size: int, limit: int, faults: Sequence[Fault], trace: bool) -> None:
        super().__init__(seed, size, faults, trace, limit)
        self.grows = seed % 2 == 1
        self._killed: dict[int, float] = {}  # when
        self._wrong: list[tuple[float, float]] = [
            (fault.at, fault.at + fault.seconds)
            for fault in faults
            if fault.kind in {"cut", "split", "stall", "address"}
        ]

    def _see(self) -> None:
        """See `World`: pairs are not looked after one by one."""

    def _is_calm(self, seconds: float) -> bool:
        """Whether for so long no connection was in the way of news."""
        now = self.loop.time()
        return not any(begin <= now <= end + seconds for begin, end in self._wrong)

    def _look(self) -> None:
        now = self.loop.time()
        for device in self.devices:
            if device.on:
                self._killed.pop(device.number, None)
            else:
                self._killed.setdefault(device.number, now)
            for id in self._removed:
                self._look_at_removed(device, id)
        for number, since in self._killed.items():
            if LOST_SECONDS < now - since <= LOST_SECONDS + LOOK_SECONDS and self._is_calm(LOST_SECONDS + 25):
                self._all_miss(self.devices[number])

    def _all_miss(self, lost: Device) -> None:
        for device in self.devices:
            member = device.node.members.find(lost.id) if device.node is not None else None
            assert member is None or not member.info.alive, (
                f"{device.number} does not miss {lost.number}, which was killed"
            )

    def _settled(self) -> None:
        """Looks at what must hold in the end: all that belong and live know all, and are connected with few."""
        belonging = [device for device in self.devices if self._stays(device)]
        living = {device.id: device.node for device in belonging if device.node is not None}
        for one in belonging:
            if one.node is None:
                continue
            assert one.disk.roll is not None
            left = [id for id in self._removed if id in one.disk.roll.members]
            assert not left, f"{one.number} has not heard that {left[0]} was removed"
            for id, other in living.items():
                member = one.node.members.find(id)
                said = "nothing" if member is None else member.why or member.where.process
                assert member is not None, f"{one.number} has not heard of {other.device.number}"
                assert member.info.alive, f"{one.number} takes {other.device.number} for lost: {said}"
                assert member.where.process == other.process.id, f"{one.number} takes {other.device.number} for {said}"
            for device in belonging:
                member = one.node.members.find(device.id)
                assert device.id in living or member is None or not member.info.alive, f"{device.number} is not missed"
        self._probes_are_over()

    def _stays(self, device: Device) -> bool:
        return device.id not in self._removed

    async def _all(self, until: float) -> None:
        last = max((end for _, end in self._wrong), default=0.0)
        await super()._all(max(until, last + KNOWN_SECONDS))


def simulate_crowd(
    seed: int, *, size: int | None = None, limit: int | None = None, faults: int = 4, trace: bool = False
) -> Outcome:
    """Runs many devices that look after a few each; the same seed gives the same run.

    In the end all that live know all others, by the process that runs there now, and miss all that do not. A killed
    one is missed by all within 3 s, unless something else is wrong. Calls start once at most and never after their
    callers were told that they failed, as in `simulate_membership`. Who was removed is connected with nobody that
    knows.

    Args:
        seed: decides all that is left to chance.
        size: how many devices there are; None leaves that to the seed, from 8 to 20.
        limit: up to how many are all connected with each other; None for a third of them.
        faults: how many things go wrong at most.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """
    chance = random.Random(f"crowd-faults/{seed}")  # noqa: S311 - to be the same again is what is wanted
    plan = [
        Fault(
            5 + chance.uniform(0, SPAN_SECONDS), chance.choice(KINDS), chance.randrange(64 * 1024),
            chance.choice((chance.expovariate(1), chance.uniform(0, 10), chance.uniform(17, 40))),
        )
        for _ in range(chance.randint(0, faults))
    ]  # fmt: skip
    many = chance.randint(8, 20) if size is None else size
    most = many // 3 if limit is None else limit
    with unheard():
        return held(lambda chosen, trace: Crowd(seed, many, most, chosen, trace), seed, plan, "crowd", trace)
