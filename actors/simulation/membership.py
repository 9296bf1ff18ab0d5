"""Membership on the simulated LAN: devices find each other, lose each other, are paired and removed.

What runs is the runtime's own: processes with their peers, acceptors and sessions, who is taken in as a member, looking
for those that are missing, the rolls of who belongs, names. Simulated are connections, announcements, disks and clocks.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

from actors.exceptions import Verdict
from actors.node.neighbours import MESH_LIMIT
from actors.node.residence import COMPARE_SECONDS, REFRESH_SECONDS
from actors.trust.roll import found
from actors.trust.statement import signed

from .faults import Fault
from .lan import NOTICED_SECONDS, Lan
from .outcome import Outcome
from .resident import Device, identity
from .running import held, unheard
from .virtual import Machines, nothing_collected, simulated_clocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.trust import Roll

    from .resident import Node

FAULTS = ("cut", "cut", "split", "stall", "crash", "crash", "clock", "address", "revoke", "pair")
SPAN_SECONDS = 10.0
"""In which faults strike."""

LOOK_SECONDS = 0.5
"""Between two looks at whether the promises hold."""

TOGETHER_SECONDS = 15.0
"""After which two know each other that have reached each other all the while."""

MET_SECONDS = COMPARE_SECONDS + 10
"""The same for two of whom one has not heard of the other before: without multicast a third one tells of it."""

SILENT_SECONDS = NOTICED_SECONDS[1] + 0.6
"""After which one that cannot be reached is told silent: once its pings are missed, and a moment more."""

DEAD_SECONDS = 1.0
"""After which a killed process is missed by those that reach its device."""

OBEYED_SECONDS = 2.0
"""After which a removal that a device has on its disk is in force."""

SEEN_SECONDS = 2.0
"""After which a device that has another address announces it, where there is multicast."""

PROBE_SECONDS = (0.3, 2.0)


@dataclass(slots=True)
class Probe:
    """A call that is looked after: when it started, and when its caller was told that it failed."""

    begun: float | None = None
    judged: float | None = None
    over: bool = False


@lru_cache
def rolls(size: int) -> Roll:
    """Returns who belongs where so many devices are paired; making it anew for each run would take the most time."""
    roll = found(identity(0), "node-0")
    return roll.merged(
        signed(
            identity(number - 1), "add", roll.cluster, identity(number).node_id,
            certificate=identity(number).certificate, name=f"node-{number}",
        )
        for number in range(1, size)
    )  # fmt: skip


class World:
    """The devices, what goes wrong, and what must hold.

    Attributes:
        pause: seconds between two calls of a device to others, the least and the most.
    """

    pause = PROBE_SECONDS

    def __init__(self, seed: int, size: int, faults: Sequence[Fault], trace: bool, limit: int = MESH_LIMIT) -> None:
        self.limit = limit
        self.grows = False  # nodes do not know how many there will be
        self.outcome = Outcome(faults=tuple(faults))
        self.loop = Machines()
        self.chance = random.Random(f"membership/{seed}")  # noqa: S311 - to be the same again is what is wanted
        self.multicast = self.chance.random() < 0.5
        self.lan = Lan(self.loop, self.chance)
        self._trace = trace
        self._seed = seed
        self._faults = faults
        self._told: dict[tuple[int, int | None], str] = {}
        self._probes: dict[str, Probe] = {}
        self._removed: dict[str, float] = {}
        self._obeys: dict[tuple[int, str], float] = {}  # since when a device has a removal on its disk
        self._clear: dict[tuple[int, int], float] = {}  # since when two have reached each other
        self._mute: dict[tuple[int, int], float] = {}  # since when they have not
        self._down: dict[tuple[int, int], float] = {}  # since when one could have seen that another was killed
        self._moved: dict[int, float] = {}
        self.failure: BaseException | None = None
        self.devices = [Device(self, number) for number in range(size)]
        self.lan.hosts.extend(self.devices)
        roll = rolls(size)
        for device in self.devices:
            device.disk.roll = roll
            device.disk.remember_doors({other.id: [other.door] for other in self.devices if other is not device})
            self.lan.at(self.chance.uniform(0, 1), device.start)
        for fault in faults:
            self.lan.at(fault.at, self._strike, fault)

    def note(self, text: str) -> None:
        """Writes down what happens, where that is asked for."""
        if self._trace:
            self.outcome.trace.append(f"{self.loop.time():10.6f} {text}")

    # -- what goes wrong ----------------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        device = self.devices[fault.whom % len(self.devices)]
        others = [other for other in self.devices if other is not device]
        other = others[fault.whom // 64 % len(others)]
        self.note(f"{fault.kind} of {device.number} and {other.number} for {fault.seconds:.3f} s")
        if fault.kind == "cut":
            self.lan.cut(device, other, fault.seconds)
        elif fault.kind == "split":
            half = {each.number for each in self.devices if fault.whom >> each.number & 1}
            for one, two in combinations(self.devices, 2):
                if (one.number in half) != (two.number in half):
                    self.lan.cut(one, two, fault.seconds)
        elif fault.kind == "stall":
            device.stall(fault.seconds)
            self.lan.silent(lambda end: end.there is device)
        elif fault.kind == "crash" and device.node is not None:
            device.kill()
            self.lan.at(self.loop.time() + fault.seconds, self._start, device)
        elif fault.kind == "clock":
            device.clock += (fault.seconds - 5) * 10_000
        elif fault.kind == "address" and not self._moved.keys() - {device.number}:
            # Two that both have another address at once have lost each other, until multicast or a third tells.
            self._moved[device.number] = self.loop.time()
            self.lan.moved(device)
            self.lan.at(self.loop.time() + SEEN_SECONDS, device.announce)
        elif fault.kind == "revoke":
            self._revoke(device, other)
        elif fault.kind == "pair":
            self._pair(device)
        self._see()
        self.lan.at(self.loop.time() + fault.seconds, self._see)  # when it is over

    @staticmethod
    def _start(device: Device) -> None:
        if device.node is None:
            device.start()

    def _revoke(self, device: Device, other: Device) -> None:
        roll = device.disk.roll
        if roll is None or device.id not in roll.members or other.id not in roll.members:
            return
        self._removed.setdefault(other.id, self.loop.time())
        device.disk.change(lambda roll: roll.without(identity(device.number), other.id) if roll is not None else None)

    def _pair(self, device: Device) -> None:
        """A new device is let in by one that belongs."""
        roll = device.disk.roll
        if roll is None or device.node is None or device.id not in roll.members or len(self.devices) > 5:
            return
        new = Device(self, len(self.devices))
        self.devices.append(new)
        self.lan.hosts.append(new)
        device.disk.change(
            lambda roll: roll.added(identity(device.number), identity(new.number).certificate, f"node-{new.number}")
            if roll is not None else None
        )  # fmt: skip
        new.disk.roll = device.disk.roll
        new.disk.remember_doors({**device.disk.doors(), device.id: [device.door]})  # as `actors invite` tells it
        device.disk.remember_doors({new.id: [new.door]})
        new.start()

    # -- what is looked after -----------------------------------------------------------------------------------

    def saw(self, node: Node) -> None:
        """What a node thinks of the others may have changed."""
        for member in node.members.all():
            said = "dead" if member.ended else "here" if member.info.alive else "silent"
            key = (node.device.number, member.info.pid)
            if self._told.get(key) != said and member is not node.members.me:
                self._told[key] = said
                self.note(f"{key[0]} takes {key[1]} for {said}")

    async def probes(self, node: Node) -> None:
        """Has a node call others, now and then."""
        chance = random.Random(f"probes/{node.process.id}")  # noqa: S311 - as above
        tasks: set[asyncio.Task[None]] = set()
        while True:
            await asyncio.sleep(chance.uniform(*self.pause))
            others = [member for member in node.members.standing() if member is not node.members.me]
            if others:
                key = f"{node.process.id}/{len(self._probes)}"
                self._probes[key] = Probe()
                task = asyncio.get_running_loop().create_task(node.probe(chance.choice(others), key))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    def _must(self, holds: bool, promise: str) -> None:
        """Notes a promise that is broken; raised here, the runtime would take it for an error of the service."""
        if not holds and self.failure is None:
            self.failure = AssertionError(promise)

    def begun(self, key: str) -> None:
        """A call starts."""
        probe = self._probes[key]
        self._must(probe.begun is None, f"call {key} has run twice")
        self._must(probe.judged is None, f"call {key} started after its caller was told that it had failed")
        probe.begun = self.loop.time()

    def probed(self, key: str, caller: str, other: str, verdict: Verdict | None) -> None:
        """A call of one node to another has come to an end."""
        probe = self._probes[key]
        self._must(not probe.over, f"call {key} was answered twice")
        probe.over = True
        if verdict is None:
            self._must(probe.begun is not None, f"call {key} was answered and never ran")
            return
        if {caller, other} & self._removed.keys():
            return  # who was removed is told so at once, whatever is still under way
        probe.judged = self.loop.time()
        never = verdict is Verdict.NEVER_STARTED
        self._must(not never or probe.begun is None, f"call {key} ran, and is said never to have started")

    # -- the promises -------------------------------------------------------------------------------------------

    def _belongs(self, device: Device, other: Device) -> bool:
        roll = device.disk.roll
        return roll is not None and other.id in roll.members and device.id in roll.members

    def _reach(self, one: Device, two: Device) -> bool:
        now = self.loop.time()
        return not self.lan.is_cut(one, two) and max(one.until, two.until) <= now

    def _since(self, table: dict[tuple[int, int], float], key: tuple[int, int], holds: bool) -> float:
        """Returns for how long something has held."""
        if not holds:
            table.pop(key, None)
            return -1.0
        return self.loop.time() - table.setdefault(key, self.loop.time())

    def _see(self) -> None:
        """What lasts for less than the time between two looks ends what has lasted till then all the same."""
        for one in self.devices:
            for two in self.devices:
                key = one.number, two.number
                if self._reach(one, two):
                    self._mute.pop(key, None)
                if one.node is None or two.node is None or not self._reach(one, two):
                    self._clear.pop(key, None)

    def _look(self) -> None:
        for one in self.devices:
            for two in self.devices:
                if one is not two:
                    self._look_at(one, two)
            for id in self._removed:
                self._look_at_removed(one, id)

    def _look_at(self, one: Device, two: Device) -> None:
        key, now = (one.number, two.number), self.loop.time()
        node, both = one.node, one.node is not None and two.node is not None
        belong = self._belongs(one, two) and self._belongs(two, one)
        reach = self._reach(one, two)
        moved = max(self._moved.get(key[0], -1e9), self._moved.get(key[1], -1e9)) if self._moved else -1e9
        clear = self._since(self._clear, key, both and belong and reach and now > moved)
        clear = min(clear, now - moved - REFRESH_SECONDS)  # it sees then that it has another address
        mute = self._since(self._mute, key, both and not reach and one.until <= now)
        down = self._since(self._down, key, node is not None and two.node is None and reach)
        if node is None or one.until > now:
            return
        member = node.members.find(two.id)
        here = member is not None and member.info.alive
        if clear > (TOGETHER_SECONDS if member is not None else MET_SECONDS):
            assert here, (
                f"{key[0]} has reached {key[1]} for {clear:.1f} s and takes it for {self._told.get(key, 'none')}"
            )
            assert member is not None
            assert two.node is not None
            assert member.where.process == two.node.process.id, f"{key[0]} takes {key[1]} for what it was before"
        assert not here or mute <= SILENT_SECONDS, f"{key[0]} cannot reach {key[1]}, and said nothing for {mute:.1f} s"
        assert not here or down <= DEAD_SECONDS + LOOK_SECONDS, f"{key[0]} does not miss {key[1]}, which was killed"

    def _look_at_removed(self, device: Device, id: str) -> None:
        roll = device.disk.roll
        knows = roll is not None and (id in roll.removed or device.id not in roll.members)
        if not knows or device.node is None or device.until > self.loop.time():
            self._obeys.pop((device.number, id), None)
            return
        since = self._obeys.setdefault((device.number, id), self.loop.time())
        if self.loop.time() - since > OBEYED_SECONDS and device.id != id:
            assert device.node.members.find(id) is None, f"{device.number} knows that {id} was removed, and has it back"
            came = [end for end in self.lan.links if end.here is device and end.node == id and not end.lost]
            assert not came, f"{device.number} knows that {id} was removed, and is connected with it"

    def _settled(self) -> None:
        """Looks at what must hold in the end."""
        for device in self.devices:
            roll = device.disk.roll
            assert roll is not None
            near = [other for other in self.devices if self._clear.get((device.number, other.number)) is not None]
            said = {id for other in near if other.disk.roll is not None for id in other.disk.roll.removed}
            left = [id for id in said if id in roll.members]
            assert not left, f"{device.number} has not heard that {left[0]} was removed"
        self._probes_are_over()

    def _probes_are_over(self) -> None:
        living = tuple(f"{device.node.process.id}/" for device in self.devices if device.node is not None)
        for key, probe in self._probes.items():
            if not probe.over and probe.begun is not None and key.startswith(living):
                waited = self.loop.time() - probe.begun
                assert waited < TOGETHER_SECONDS, f"call {key} ran, and its caller has heard nothing for {waited:.1f} s"

    def run(self) -> None:
        """Lets all happen, and looks whether the promises hold."""
        last = max((fault.at + max(fault.seconds, REFRESH_SECONDS) for fault in self._faults), default=0.0)
        state = random.getstate()
        random.seed(self._seed)  # the runtime draws from it too
        try:
            with simulated_clocks(self.loop), nothing_collected():
                self.loop.work(self._all(last + MET_SECONDS + TOGETHER_SECONDS))
                self._settled()
        finally:
            self.outcome.events, self.outcome.seconds = self.loop.moments, self.loop.time()
            self.loop.end()
            random.setstate(state)

    async def _all(self, until: float) -> None:
        while self.loop.time() < until:
            await asyncio.sleep(LOOK_SECONDS)
            self._look()
            if self.failure is not None:
                raise self.failure


def _seconds(chance: random.Random) -> float:
    """Of a fault: mostly short, at times just about what ends a session."""
    return chance.choice((chance.expovariate(1), chance.uniform(0, 10), chance.uniform(17, 40)))


def simulate_membership(seed: int, *, faults: int = 4, trace: bool = False) -> Outcome:
    """Runs devices that find, lose and remove each other; the same seed gives the same run.

    Two that have reached each other for 15 s know each other, by the process that runs there now. One that cannot be
    reached is told silent within 5.5 s, a killed process missed within a second. A call starts once at most, and never
    after its caller was told that it failed. Who was removed is let in nowhere that this is known, and after a while it
    is known everywhere. None of this minds what wall clocks say.

    Args:
        seed: decides all that is left to chance.
        faults: how many things go wrong at most.
        trace: whether to write down what happens.

    Raises:
        SimulationError: a promise was broken.
    """
    chance = random.Random(f"membership-faults/{seed}")  # noqa: S311 - to be the same again is what is wanted
    size = chance.choice((2, 3, 3, 4))
    plan = [
        Fault(chance.uniform(1, SPAN_SECONDS), chance.choice(FAULTS), chance.randrange(64 * 64), _seconds(chance))
        for _ in range(chance.randint(0, faults))
    ]
    with unheard():
        return held(lambda chosen, trace: World(seed, size, chosen, trace), seed, plan, "membership", trace)
