"""What the page is told, as JSON has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.dashboard.alerts import alerts
from actors.events import CallEnded
from actors.events.event import as_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.events import ClusterView, Event

MOST_ACTORS = 5_000
MOST_CALLS = 300


def actors_of(view: ClusterView) -> list[dict[str, Any]]:
    """Returns the actors, those that live first."""
    found = sorted(view.actors(ended=True), key=lambda actor: actor.state == "DEAD")
    return [
        {
            "id": actor.id, "class": actor.class_name, "name": actor.name, "node": actor.node, "pid": actor.pid,
            "state": "RESTARTING" if actor.state == "PENDING_CREATION" and actor.life else actor.state,
            "reason": actor.reason, "restarts": actor.life, "process": actor.process, "light": bool(actor.guest),
        }
        for actor in found[:MOST_ACTORS]
    ]  # fmt: skip


def pulse_of(view: ClusterView) -> dict[str, Any]:
    """Returns what changes all the time: nodes, what is open, sums."""
    pending: dict[str, list[int]] = {}
    for call in view.calls:
        counts = pending.setdefault(call.actor, [0, 0])
        counts[call.state == "RUNNING"] += 1
    return {
        "nodes": [
            {
                "id": node.id, "name": node.name, "address": node.address, "pid": node.pid, "chip": node.chip,
                "cpus": node.cpus, "memory": node.memory, "memory_used": node.memory_used, "arena": node.arena,
                "load": node.load, "version": node.versions.get("mlx-actors", ""), "since": node.since,
                "rss": sum(process.rss for process in node.processes), "processes": len(node.processes),
                "resources": node.resources, "free": node.free, "peers": list(node.peers),
            }
            for node in view.nodes
        ],
        "silent": [list(pair) for pair in view.silent],
        "pending": pending,
        "calls": [
            {
                "actor": call.actor, "class": call.class_name, "method": call.method, "state": call.state,
                "age": call.age, "running": call.running, "caller": view.name_of(call.caller), "node": call.node,
                "waits_for": list(call.waits_for),
            }
            for call in view.calls[:MOST_CALLS]
        ],
        "open": len(view.calls),
        "groups": _groups(view),
        "models": _models(view),
        "methods": sorted(
            (
                {"method": method, "outcome": outcome, "count": t.count, "queued": t.queued, "ran": t.ran}
                for (method, outcome), t in view.tallies.items()
            ),
            key=lambda row: -int(str(row["count"])),
        )[:200],
        "alerts": alerts(view),
    }  # fmt: skip


def _groups(view: ClusterView) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for member in view.state.groups.values():
        row = rows.setdefault(
            member.id, {"id": member.id, "size": member.size, "state": "OPEN", "nodes": [], "ops": [], "reason": ""}
        )
        row["nodes"].append(member.node)
        state, reason = view.fate(member)
        if state != "OPEN":
            row["state"], row["reason"] = state, row["reason"] or reason
    for done in view.state.collectives.values():
        if done.group in rows and done.rank == 0:
            rows[done.group]["ops"].append([done.op, done.count, done.nbytes, done.seconds, done.failed])
    return list(rows.values())


def _models(view: ClusterView) -> list[dict[str, Any]]:
    return [
        {
            "id": model.id, "model": model.model, "state": model.state,
            "stages": [list(stage) for stage in model.stages],
            "tokens": view.state.tokens[model.id].tokens if model.id in view.state.tokens else 0,
            "seconds": view.state.tokens[model.id].seconds if model.id in view.state.tokens else 0.0,
        }
        for model in view.state.models.values()
    ]  # fmt: skip


def events_of(events: Iterable[Event], names: dict[str, str]) -> list[dict[str, Any]]:
    """Returns events as the page takes them; callers by their names.

    Args:
        events: what happened.
        names: of processes, as far as they are known.
    """
    found = []
    for event in events:
        plain = as_plain(event)
        if isinstance(event, CallEnded):
            plain["caller_name"] = names.get(event.caller, event.caller.partition("-")[0])
        found.append(plain)
    return found
