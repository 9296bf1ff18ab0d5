"""``actors status``: this device, its node, and all devices of its cluster."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from actors import device
from actors.exceptions import NoClusterError
from actors.local import clusters

if TYPE_CHECKING:
    from actors.events import ActorChanged

WATCH_SECONDS = 1.0
NOBODY: dict[str, Any] = {"nodes": [], "why": {}}
_STATES = {True: "answers", False: "silent", None: "unknown"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
@click.option("-w", "--watch", is_flag=True, help="Show it anew each second, until Ctrl-C; as JSON, one object a line.")
@click.pass_context
def status(context: click.Context, as_json: bool, watch: bool) -> None:
    """Show this device, its node, and all devices of its cluster, those that sleep as well.

    Clusters that programs of this device have for themselves are shown too. The exit status is 3 where none runs.

    \b
    Example:
      actors status
      actors status --watch
      actors status --json
    """  # noqa: D301 - click wants the character itself
    while True:
        found = look()
        if as_json:
            click.echo(json.dumps(found))
        else:
            if watch and sys.stdout.isatty():
                click.echo("\x1b[H\x1b[J", nl=False)  # from the top of an empty screen
            _tell(found)
        if not watch:
            break
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)
    if not found["running"] and not found["programs"]:
        context.exit(3)


def look() -> dict[str, Any]:
    """Returns the state of this device, as ``--json`` shows it."""
    roll = device.store().read()
    running = device.running()
    me = running.id if running is not None else device.identity().node_id
    programs = clusters()
    circle, pending, silent = _seen() if running is not None or programs else (NOBODY, [], {})
    nodes = {info.id: info for info in circle["nodes"]}
    known = device.doors()
    paired = roll is not None and me in roll.members
    members = [
        {
            "id": member.id,
            "name": member.name,
            "this": member.id == me,
            "alive": None if circle is NOBODY else member.id in nodes and nodes[member.id].alive,
            "address": nodes[member.id].address if member.id in nodes else next(iter(known.get(member.id, [])), ""),
            "why": None if member.id in nodes and nodes[member.id].alive else circle["why"].get(member.id),
        }
        for member in (roll.members.values() if roll is not None and paired else ())
    ]
    return {
        "running": running is not None,
        "paired": paired,
        "removed": roll is not None and not paired,
        "id": me,
        "name": roll.members[me].name if roll is not None and paired else device.host_name(),
        "cluster": roll.cluster if roll is not None and paired else None,
        "node": None if running is None else {"pid": running.pid, "address": running.address, "since": running.since},
        "programs": [
            {
                "pid": cluster.pid,
                "program": cluster.program,
                "since": cluster.since,
                "nodes": [node.node_name for node in cluster.nodes],
                "silent": silent.get(cluster.pid, []),
            }
            for cluster in programs
        ],
        "pending": pending,
        "members": sorted(members, key=lambda member: (not member["this"], member["name"])),
    }


def _seen() -> tuple[dict[str, Any], list[dict[str, Any]], dict[int, list[dict[str, str]]]]:
    """Returns what this device's node knows, the actors that are not there yet, and silent nodes by their program."""
    from actors.events.event import PENDING
    from actors.observer import Observers  # late: what talks takes a while to load

    circle = NOBODY
    try:
        with Observers() as observers:
            circle = next((each.circle() for each in observers if each.program is None), NOBODY)
            found = observers.views()
    except NoClusterError:  # it has just ended
        return circle, [], {}
    pending = [
        {"id": one.id, "class": one.class_name, "name": one.name, "why": _why(one)}
        for _, view in found for one in view.actors() if one.state == PENDING
    ]  # fmt: skip
    silent = {
        observer.program: [{"name": name, "why": why} for name, why in view.silent]
        for observer, view in found if observer.program is not None
    }  # fmt: skip
    return circle, pending, silent


def _why(actor: ActorChanged) -> str:
    """Returns why an actor is not there yet, as a clause."""
    if actor.reason:
        return actor.reason
    if actor.process:
        return "its constructor runs"
    return "it has just been asked for, or waits for a value that its constructor is given"


def _tell(found: dict[str, Any]) -> None:
    node = found["node"]
    if node is None:
        click.echo(f"{found['name']}: no node runs here; `actors start` starts one.")
    else:
        where = f"at {node['address']}" if node["address"] else "for this machine alone"
        click.echo(f"{found['name']}: its node runs {where} (process {node['pid']}).")
    if found["removed"]:
        click.echo("This device was removed from its cluster. `actors leave` forgets it; then it can join again.")
    elif not found["paired"]:
        click.echo("Not paired with other devices: run `actors invite` on one and `actors join CODE` on the others.")
    width = max((len(member["name"]) for member in found["members"]), default=0)
    for member in found["members"]:
        state = "here" if member["this"] else _STATES[member["alive"]]
        why = f"  {member['why']}" if member["why"] and not member["this"] else ""
        click.echo(f"  {member['name']:<{width}}  {state:<7}  {member['address'] or '-'}{why}")
    for program in found["programs"]:
        name, nodes = program["program"] or "python", len(program["nodes"])
        word = "node" if nodes == 1 else "nodes"
        click.echo(f"Program {program['pid']} ({name}) has a cluster for itself: {nodes} {word} on this device.")
        for node in program["silent"]:
            click.echo(f"  {node['name']} does not answer: {node['why']}")
    for actor in found["pending"]:
        click.echo(f"Not there yet: {actor['class']} {actor['name'] or actor['id']}: {actor['why']}")
