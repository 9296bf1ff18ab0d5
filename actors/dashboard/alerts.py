"""Alerts: what is wrong with a cluster, in plain words; a pure function of how it looks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.events import ActorChanged, ClusterView

STUCK_SECONDS = 30.0
QUEUE = 1_000  # calls that wait at one actor
MEMORY = 0.92
SLOW_LINK_SECONDS = 0.25
RECENT_SECONDS = 120.0
_WANTED = (
    "its last handle is gone",
    "exit_actor",
    "actors.kill",
    "its owner has ended",
    "shutting down",
    "node was stopped",
)


def alerts(view: ClusterView) -> list[dict[str, str]]:
    """Returns what a person should know: ``level`` (``"bad"`` or ``"warn"``), ``what``, ``do``, and which ``actor``."""
    return [*_nodes(view), *_stuck(view), *_full(view), *_died(view)]


def _alert(level: str, what: str, do: str = "", actor: str = "") -> dict[str, str]:
    return {"level": level, "what": what, "do": do, "actor": actor}


def _nodes(view: ClusterView) -> list[dict[str, str]]:
    found = [
        _alert("bad", f"Node {name} does not answer: {why}.", "Run `actors doctor` on it.") for name, why in view.silent
    ]
    for node in view.nodes:
        if node.memory_used > MEMORY * node.memory:
            share = f"{100 * node.memory_used / node.memory:.0f} %"
            found.append(
                _alert(
                    "warn",
                    f"Node {node.name} has {share} of its memory in use.",
                    "Its processes may be ended by the system.",
                )
            )
        for peer, seconds in node.peers:
            if seconds is not None and seconds > SLOW_LINK_SECONDS:
                found.append(
                    _alert(
                        "warn",
                        f"The link between {node.name} and {peer} is slow: {seconds * 1e3:.0f} ms there and back.",
                    )
                )
        for process in node.processes:
            if not process.answered and process.kind == "worker":
                label = view.name_of(process.id)
                found.append(
                    _alert(
                        "warn", f"{label} on {node.name} does not answer: one long step keeps its interpreter.",
                        "`actors stack` shows where it stands.",
                    )
                )  # fmt: skip
    return found


def _stuck(view: ClusterView) -> list[dict[str, str]]:
    found = []
    for call in view.calls:
        if call.state == "RUNNING" and call.running > STUCK_SECONDS:
            waits = f", waiting for {call.waits_for[0]}" if call.waits_for else ""
            behind = view.pending(call.actor) - 1
            queue = f"; {behind} calls wait behind it" if behind > 0 else ""
            found.append(
                _alert(
                    "warn", f"{call.label} has been in {call.method} for {call.running:.0f} s{waits}{queue}.",
                    "Open it to see where its code stands.", call.actor,
                )
            )  # fmt: skip
    return found[:20]


def _full(view: ClusterView) -> list[dict[str, str]]:
    counts: dict[str, int] = {}
    for call in view.calls:
        counts[call.actor] = counts.get(call.actor, 0) + 1
    return [
        _alert(
            "warn", f"{count} calls wait at {view.state.actors[actor].class_name} {actor}.",
            "It is asked more than it can do: spread the work, or give it max_concurrency=.", actor,
        )
        for actor, count in counts.items() if count >= QUEUE and actor in view.state.actors
    ]  # fmt: skip


def _died(view: ClusterView) -> list[dict[str, str]]:
    """Those of one class that ended alike are told together, by the last of them."""
    now = time.time()
    alike: dict[tuple[str, str, str], list[ActorChanged]] = {}
    for actor in view.actors(ended=True):
        if (
            actor.state in {"DEAD", "RESTARTING"}
            and now - actor.at < RECENT_SECONDS
            and actor.reason
            and not any(wanted in actor.reason for wanted in _WANTED)
        ):
            how = actor.reason.replace(actor.id, "").replace(f" on node {actor.node} ", " ")
            alike.setdefault((actor.class_name, actor.state, how), []).append(actor)
    lasts = [(max(each, key=lambda actor: actor.at), len(each)) for each in alike.values()]
    lasts.sort(key=lambda last: last[0].at)
    return [_death(actor, count) for actor, count in lasts[-20:]]


def _death(actor: ActorChanged, count: int) -> dict[str, str]:
    dead = actor.state == "DEAD"
    who = f"{actor.class_name} {actor.name or actor.id} {'has died' if dead else 'is made anew'}"
    if count > 1:
        who = f"{count} of {actor.class_name} {'have died' if dead else 'are made anew'}, the last"
    told = actor.reason if dead and count == 1 and actor.id in actor.reason else f"{who}: {actor.reason}"
    return _alert("bad" if dead else "warn", f"{told}.".replace("..", "."), "", actor.id)
