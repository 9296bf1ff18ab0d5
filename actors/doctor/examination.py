"""The whole examination: this machine, its node, and every member of its cluster or one of them."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors import device, reach
from actors.doctor import machine, versions
from actors.doctor.finding import Finding
from actors.doctor.firewall import active as firewall
from actors.doctor.member import Case, diagnose
from actors.exceptions import ActorsError
from actors.reach import Way
from actors.visit import ask_node

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.device import Running
    from actors.nodeinfo import NodeInfo
    from actors.trust import Member, Roll

CLOCK_SECONDS = 60.0
"""Further apart than that, logs and invitations of two devices do not fit together."""

SEARCH_SECONDS = 1.5
MEASURE_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Circle:
    """The cluster as this device's node sees it.

    Attributes:
        running: this device's node.
        roll: who belongs.
        nodes: those it has met, by id.
        failures: what taking in others failed with, by id.
        apart: how far ahead the clocks of those are that answer now (seconds), by id.
    """

    running: Running
    roll: Roll
    nodes: dict[str, NodeInfo]
    failures: dict[str, str]
    apart: dict[str, float]

    @property
    def others(self) -> list[Member]:
        """All members but this device, by name."""
        return sorted((m for m in self.roll.members.values() if m.id != self.running.id), key=lambda m: m.name)

    def answers(self, id: str) -> bool:
        """Whether a member answers now; its node may still wait for one that is silent."""
        return id in self.nodes and id in self.apart


def examine(peer: str | None = None) -> list[Finding]:
    """Examines this device and its cluster, which takes some seconds.

    Args:
        peer: a member's name or id, or ``"HOST:PORT"``: then the way to it alone is looked at, and measured.

    Raises:
        ActorsError: there is no such member.
    """
    found = [] if peer is not None else _of_machine()
    circle = _circle(found)
    if circle is None:
        return found
    if peer is not None:
        return [*found, *_way_to(circle, peer)]
    members = circle.others
    if not members:
        found.append(Finding("paired", ok=True, what="this device is alone in its cluster",
                             do="run `actors invite` here and `actors join CODE` on another device"))  # fmt: skip
    announced = _announced(circle)
    for member in members:
        found += _member(circle, member, announced)
    found += _mutual(circle)
    return found


def _of_machine() -> list[Finding]:
    checks: tuple[Callable[[], Finding | list[Finding]], ...] = (
        machine.network, machine.route, machine.multicast, machine.port_5353, machine.clock,
    )  # fmt: skip
    found: list[Finding] = []
    for check in checks:
        result = check()
        found += result if isinstance(result, list) else [result]
    return found


def _circle(found: list[Finding]) -> Circle | None:
    """Looks at this device's node and trust; None where there is nothing to look at beyond it."""
    running, all_said = device.running(), device.store().read()
    if running is None:
        found.append(Finding("node", ok=False, what="no node runs on this device", do="run `actors start`"))
    else:
        where = f"at {running.address}" if running.address else "for this machine alone"
        found.append(Finding("node", ok=True, what=f"node {running.name} runs {where}"))
    roll = device.roll()
    if roll is None and all_said is not None:
        found.append(Finding("revoked", ok=False, what="this device was removed from its cluster",
                             do="run `actors leave` here, then pair it with a member again"))  # fmt: skip
    elif roll is None:
        found.append(Finding("paired", ok=False, what="this device is not paired with any other",
                             do="run `actors invite` on one device and `actors join CODE` on the other"))  # fmt: skip
    else:
        found.append(Finding("paired", ok=True, what=f"this device is one of {len(roll.members)} in its cluster"))
    if running is None or roll is None:
        return None
    nodes: list[NodeInfo] = ask_node(running, "node", "nodes")
    failures: dict[str, str] = ask_node(running, "doctor", "failures")
    if running.id in failures:
        found.append(Finding("key", ok=False, what=failures[running.id],
                             do="run `actors leave` on both devices, then pair each anew"))  # fmt: skip
    apart: dict[str, float] = ask_node(running, "doctor", "clocks", timeout=15.0)
    return Circle(running, roll, {info.id: info for info in nodes}, failures, apart)


def _announced(circle: Circle) -> dict[str, list[str]]:
    """The doors that multicast shows now, by node id."""
    import discovery

    try:
        with discovery.browse() as browser:
            with contextlib.suppress(TimeoutError):
                browser.wait_for(lambda records: all(member.id in records for member in circle.others), SEARCH_SECONDS)
            records = browser.records()
    except discovery.DiscoveryError:  # the check `port 5353` tells
        return {}
    return {id: [device.at(host, record.port) for host in record.addresses] for id, record in records.items()}


def _member(circle: Circle, member: Member, announced: dict[str, list[str]]) -> list[Finding]:
    if not circle.answers(member.id):
        return [_silent(circle, member, announced)]
    info = circle.nodes[member.id]
    found = [Finding("member", ok=True, what=f"{member.name} answers at {info.address}")]
    if announced and member.id not in announced:
        found.append(Finding(
            "multicast", ok=True,
            what=f"{member.name} answers, but multicast does not show it: the network filters multicast",
            do="nothing, as members tell each other where they are",
        ))  # fmt: skip
    found.append(versions.compare(circle.nodes[circle.running.id].versions, member.name, info.versions))
    return found


def _silent(circle: Circle, member: Member, announced: dict[str, list[str]]) -> Finding:
    doors = list(dict.fromkeys([*announced.get(member.id, []), *device.doors().get(member.id, [])]))[:16]
    if not doors:
        knocks = []
    else:
        with ThreadPoolExecutor(len(doors)) as pool:
            knocks = list(pool.map(reach.knock, doors))
    shown = {knock.door: reach.shown_at(knock.door) for knock in knocks if knock.way is Way.OPEN}
    others = {}
    if doors and not shown:
        told: dict[str, list[Any]] = ask_node(circle.running, "doctor", "knock_from_others", doors, timeout=15.0)
        others = {circle.roll.members[id].name: any(way == Way.OPEN.value for _, way in seen)
                  for id, seen in told.items() if id in circle.roll.members}  # fmt: skip
    failure = circle.failures.get(member.id, "")
    return diagnose(Case(member.id, member.name, knocks, shown, member.id in announced, others, failure, firewall()))


def _mutual(circle: Circle) -> list[Finding]:
    """What only others can tell of this device: its clock beside theirs, and its door."""
    names = {id: member.name for id, member in circle.roll.members.items()}
    found = []
    off = {names.get(id, id): seconds for id, seconds in circle.apart.items() if abs(seconds) > CLOCK_SECONDS}
    if off:
        told = ", ".join(f"{name} is {abs(s):.0f} s {'ahead' if s > 0 else 'behind'}" for name, s in off.items())
        found.append(Finding("clock", ok=False, what=f"the clocks are far apart: {told}",
                             do="set the clock that is wrong; let it be set from the network (NTP)"))  # fmt: skip
    own = [device.at(host, int(circle.running.address.rpartition(":")[2]))
           for host in device.hosts(device.door())] if circle.running.address else []  # fmt: skip
    told_doors: dict[str, list[Any]] = (
        ask_node(circle.running, "doctor", "knock_from_others", own, timeout=15.0) if own and circle.apart else {}
    )
    shut = [names.get(id, id) for id, seen in told_doors.items() if all(way != Way.OPEN.value for _, way in seen)]
    if shut:
        named = f" ({hint})" if (hint := firewall()) else ""
        found.append(Finding("door", ok=False, what=f"{', '.join(shut)} cannot reach this device's door at {own[0]}",
                             do=f"allow that TCP port inbound in this machine's firewall{named}"))  # fmt: skip
    elif told_doors:
        found.append(Finding("door", ok=True, what=f"this device's door at {own[0]} is reached by others"))
    return found


def _way_to(circle: Circle, peer: str) -> list[Finding]:
    found: list[Finding] = []
    member = next((m for m in circle.others if peer in {m.name, m.id}), None)
    if member is None and ":" in peer:
        id = _at_address(peer, found)
        member = next((m for m in circle.others if m.id == id), None)
        if found and not found[-1].ok:
            return found
        if member is None:
            return [*found, Finding("paired", ok=False, what=f"the device at {peer} is not paired with this one",
                                    do="run `actors invite` here and `actors join CODE` there")]  # fmt: skip
    if member is None:
        names = ", ".join(m.name for m in circle.others) or "none"
        raise ActorsError(f"no member is called {peer!r}; there are: {names}. Or give HOST:PORT")
    found += _member(circle, member, _announced(circle))
    if circle.answers(member.id):
        found.append(_speed(circle, member))
    return found


def _at_address(peer: str, found: list[Finding]) -> str | None:
    """The id of who answers at an address; a finding where nobody does."""
    from discovery.addresses import host_and_port

    try:
        host_and_port(peer)
    except ValueError as error:
        raise ActorsError(str(error)) from error
    knock = reach.knock(peer)
    if knock.way is not Way.OPEN:
        found.append(diagnose(Case("", peer, [knock], {}, announced=False, others={}, firewall=firewall())))
        return None
    id = reach.shown_at(peer)
    if id is None:
        found.append(Finding("name", ok=False, what=f"something that is no node answers at {peer}",
                             do="is the port right, and does the name lead to the right machine?"))  # fmt: skip
    return id


def _speed(circle: Circle, member: Member) -> Finding:
    latency, rate = ask_node(circle.running, "doctor", "measure", member.id, timeout=MEASURE_SECONDS)
    return Finding("speed", ok=True,
                   what=f"{member.name}: {latency * 1e3:.2f} ms there and back, {rate / 1e6:.0f} MB/s")  # fmt: skip
