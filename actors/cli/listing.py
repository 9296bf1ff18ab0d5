"""``actors list``: what there is in the cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from actors.cli.table import seconds, show, size, table, width
from actors.cli.word import State, Word
from actors.observer import Observers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actors.events import ActorChanged, ClusterView
    from actors.observer import Observer

Found = list[tuple["Observer", "ClusterView"]]
STATES = ("PENDING_CREATION", "ALIVE", "RESTARTING", "DEAD")
NODE_KEYS = ("id", "name", "address", "alive", "resources", "labels", "versions")
SLOW_SECONDS = 1.0
MOST_ENDED = 100


@click.command("list")
@click.argument("what", type=Word("actors", "nodes", "calls", "groups"))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list and nothing else on standard output.")
@click.option("--state", type=State(*STATES), help="Of actors: those in this state only.")
@click.option("--slow", is_flag=True, help="Of calls: those that take long, and the slowest that are over.")
@click.option(
    "--over", type=click.FloatRange(min=0), default=SLOW_SECONDS, show_default=True, metavar="SECONDS",
    help="What `--slow` takes for long.",
)  # fmt: skip
def listing(what: str, as_json: bool, state: str | None, slow: bool, over: float) -> None:
    """List actors, nodes, calls or groups: WHAT is one of these words.

    Of all clusters that run on this device: that of its node, and those of programs that have one for themselves.
    On a terminal that has not so many lines they come page by page; `q` ends that.

    \b
    Example:
      actors list actors
      actors list actors --state ALIVE --json
      actors list calls --slow
    """  # noqa: D301 - click wants the character itself
    if state is not None and what != "actors":
        raise click.UsageError(f"--state is for `actors list actors`, not for {what}")
    if slow and what != "calls":
        raise click.UsageError(f"--slow is for `actors list calls`, not for {what}")
    with Observers() as observers:
        if what == "nodes":
            rows = _nodes(observers)
        elif what == "actors":
            rows = [row for row in _actors(observers.views()) if state is None or row["state"] == state]
        elif what == "groups":
            rows = _groups(observers.views())
        else:
            found = observers.views()
            rows = _slow(found, over) if slow else _calls(found)
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        click.echo(f"There are no {what}.")
    else:
        headers, of = _COLUMNS[what]
        show(table(headers, [of(row) for row in rows], width()))


def _nodes(observers: Observers) -> list[dict[str, Any]]:
    return [
        {**{key: asdict(node)[key] for key in NODE_KEYS}, "cluster": observer.label}
        for observer in observers
        for node in observer.nodes()
    ]


def state_of(actor: ActorChanged) -> str:
    """Returns an actor's state as people and programs are told it: in Ray's words."""
    return "RESTARTING" if actor.state == "PENDING_CREATION" and actor.life else actor.state


def _actors(found: Found) -> list[dict[str, Any]]:
    rows = []
    for observer, view in found:
        open_calls: dict[str, int] = {}
        for call in view.calls:
            open_calls[call.actor] = open_calls.get(call.actor, 0) + 1
        rows += [
            {
                "id": actor.id, "name": actor.name, "class": actor.class_name, "node": actor.node, "pid": actor.pid,
                "state": state_of(actor), "pending": open_calls.get(actor.id, 0), "restarts": actor.life,
                "namespace": actor.namespace, "reason": actor.reason, "cluster": observer.label,
            }
            for actor in view.actors(ended=True)
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row["state"] == "DEAD")


def _calls(found: Found) -> list[dict[str, Any]]:
    return [
        {
            "actor": call.actor, "class": call.class_name, "method": call.method, "state": call.state,
            "age_s": call.age, "running_s": call.running, "caller": view.name_of(call.caller), "node": call.node,
            "waits_for": list(call.waits_for), "cluster": observer.label,
        }
        for observer, view in found for call in view.calls
    ]  # fmt: skip


def _slow(found: Found, over: float) -> list[dict[str, Any]]:
    """Returns the calls that are open for long, then those over that took longest."""
    from actors.events import CallEnded

    rows = [row for row in _calls(found) if row["age_s"] >= over]
    ended = [
        (observer, view, event)
        for observer, view in found
        for event in observer.past()
        if isinstance(event, CallEnded) and event.queued + event.ran >= over
    ]
    ended.sort(key=lambda each: -(each[2].queued + each[2].ran))
    return rows + [
        {
            "actor": call.actor, "class": call.class_name, "method": call.method, "state": call.outcome,
            "age_s": call.queued + call.ran, "running_s": call.ran, "caller": view.name_of(call.caller),
            "node": call.node, "waits_for": [], "cluster": observer.label,
        }
        for observer, view, call in ended[:MOST_ENDED]
    ]  # fmt: skip


def _groups(found: Found) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for observer, view in found:
        for member in view.state.groups.values():
            row = rows.setdefault(
                member.id,
                {
                    "id": member.id, "size": member.size, "state": "OPEN", "backend": member.backend, "members": [],
                    "collectives": {}, "reason": "", "cluster": observer.label,
                },
            )  # fmt: skip
            label = member.members[member.rank] if member.rank < len(member.members) else ""
            row["members"].append({"rank": member.rank, "label": label, "node": member.node, "state": member.state})
            state, reason = view.fate(member)
            if state != "OPEN":
                row["state"], row["reason"] = state, row["reason"] or reason
        for done in view.state.collectives.values():
            if done.rank == 0 and done.group in rows:
                rows[done.group]["collectives"][done.op] = {
                    "count": done.count, "bytes": done.nbytes, "seconds": done.seconds, "failed": done.failed
                }  # fmt: skip
    return list(rows.values())


_COLUMNS: dict[str, tuple[Sequence[str], Callable[[dict[str, Any]], Sequence[object]]]] = {
    "nodes": (
        ("NODE", "STATE", "ADDRESS", "CPUS", "MEMORY", "CLUSTER"),
        lambda r: (
            r["name"], "alive" if r["alive"] else "gone", r["address"], f"{r['resources'].get('CPU', 0):g}",
            size(r["resources"].get("memory", 0)), r["cluster"],
        ),
    ),
    "actors": (
        ("ACTOR", "CLASS", "STATE", "NODE", "PID", "PENDING", "ID"),
        lambda r: (
            r["name"] or "-", r["class"], r["state"], r["node"], r["pid"], r["pending"],
            r["id"] + (f"  {r['reason']}" if r["reason"] else ""),
        ),
    ),
    "calls": (
        ("CALL", "STATE", "AGE", "RUNNING", "CALLER", "NODE", "WAITS FOR"),
        lambda r: (
            f"{r['class']}.{r['method']}", r["state"], seconds(r["age_s"]), seconds(r["running_s"]), r["caller"],
            r["node"], ", ".join(r["waits_for"]),
        ),
    ),
    "groups": (
        ("GROUP", "SIZE", "STATE", "NODES", "COLLECTIVES"),
        lambda r: (
            r["id"], r["size"], r["state"], ", ".join(sorted({m["node"] for m in r["members"]})),
            ", ".join(f"{sums['count']} {op}" for op, sums in r["collectives"].items()),
        ),
    ),
}  # fmt: skip
