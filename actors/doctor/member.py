"""Why one member of the cluster is silent: what its doors say, here and to others. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actors.doctor.finding import Finding
from actors.reach import Way

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from actors.reach import Knock


@dataclass(frozen=True, slots=True)
class Case:
    """A member that does not answer.

    Attributes:
        id: its node id.
        name: for people.
        knocks: what came of knocking at its known doors.
        shown: node id of whoever showed a certificate, by door, for those that are open.
        announced: whether multicast shows it now.
        others: names of members that reach it now, and of those that do not.
        failure: what this device's node last met with it.
        firewall: of this machine, for people; empty for none that could be told.
    """

    id: str
    name: str
    knocks: Sequence[Knock]
    shown: Mapping[str, str | None]
    announced: bool
    others: Mapping[str, bool]
    failure: str = ""
    firewall: str = ""


def diagnose(case: Case) -> Finding:
    """Says why a member is silent, and what to do."""
    what, do = _reason(case)
    return Finding("member", ok=False, what=f"{case.name}: {what}", do=do)


def _reason(case: Case) -> tuple[str, str]:
    ways = {knock.way for knock in case.knocks}
    if not case.knocks:
        return _never_seen(case)
    if Way.OPEN in ways:
        return _open(case)
    if Way.PERMISSION in ways:
        return (
            "macOS has not let this program use the local network",
            (
                "System Settings > Privacy & Security > Local Network: switch on the program from which actors was "
                "started; if it is on already, switch it off and on again"
            ),
        )
    if Way.FORBIDDEN in ways:
        named = f" ({case.firewall})" if case.firewall else ""
        return f"this machine's own firewall{named} does not let the connection out", "allow it there"
    if Way.REFUSED in ways:
        return (
            f"its host is there, but nothing listens at {_at(case, Way.REFUSED)}: the port is closed",
            f"run `actors start` on {case.name}; if its node runs, its firewall rejects the port: allow it there",
        )
    if Way.PROHIBITED in ways:
        return (
            f"a firewall on the way rejects {_at(case, Way.PROHIBITED)}",
            f"allow that TCP port on {case.name}, or in the router between",
        )
    if Way.UNKNOWN_NAME in ways:
        return f"no name server knows {_at(case, Way.UNKNOWN_NAME)}", "give its IP address instead"
    return _silent(case, ways)


def _never_seen(case: Case) -> tuple[str, str]:
    return (
        "it has not been seen since it was paired, and no address of it is known",
        (
            f"run `actors start` on {case.name}, in the same network; where that lets no multicast through, give its "
            "address: actors.init('HOST:PORT')"
        ),
    )


def _open(case: Case) -> tuple[str, str]:
    mine = [knock.door for knock in case.knocks if case.shown.get(knock.door) == case.id]
    if mine:
        told = f" ({case.failure})" if case.failure else ""
        return (
            f"it answers at {mine[0]} and is the right device, but does not let this one in{told}",
            (
                f"look at `actors status` on {case.name}: this device may have been removed, or its version may be "
                "another. If it was removed: `actors leave` here, then pair again"
            ),
        )
    door = next(knock.door for knock in case.knocks if knock.way is Way.OPEN)
    other = case.shown.get(door)
    who = "another device" if other is not None else "something that is no node"
    return (
        f"{who} answers at {door}: the name or address leads to the wrong place",
        (
            f"ask `actors status` on {case.name} for its address; a name may stand in /etc/hosts or a name server with "
            "an old address"
        ),
    )


def _silent(case: Case, ways: set[Way]) -> tuple[str, str]:
    reached_by = sorted(name for name, reaches in case.others.items() if reaches)
    door = case.knocks[0].door
    if ways == {Way.NO_ROUTE}:
        return (
            f"this machine knows no way to {door}: the two are in different networks",
            "put both into one network, or join them by a VPN; look at the check `route`",
        )
    if Way.SILENT in ways:
        if reached_by:
            return (
                (
                    f"{_at(case, Way.SILENT)} does not answer to this device, though it does to "
                    f"{', '.join(reached_by)}: a firewall drops what passes between the two, or the network keeps "
                    "devices apart (client isolation)"
                ),
                (
                    f"allow TCP in the firewall of {case.name} and of this device; switch off client isolation (AP "
                    "isolation, guest network) in the router or access point"
                ),
            )
        return (
            f"nothing comes back from {_at(case, Way.SILENT)}: a firewall drops it, or its cable is out, or it sleeps",
            f"wake {case.name}, look at its cable, allow that TCP port in its firewall; run `actors doctor` there",
        )
    if reached_by:
        return (
            (
                f"no host answers at {door} to this device, though it does to {', '.join(reached_by)}: the network "
                "keeps devices apart (client isolation)"
            ),
            (
                "switch off client isolation (AP isolation, guest network) in the router or access point, or connect "
                "both to another network"
            ),
        )
    return (
        f"no host answers at {door}: it is off or asleep, its cable is out, or it has another address now",
        (
            f"wake {case.name} and look at its cable or Wi-Fi; where both are fine, the network may keep devices apart "
            "(client isolation, a guest network)"
        ),
    )


def _at(case: Case, way: Way) -> str:
    return ", ".join(knock.door for knock in case.knocks if knock.way is way)
