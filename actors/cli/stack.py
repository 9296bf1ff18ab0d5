"""``actors stack``: where an actor's code stands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from actors.cli.listing import state_of
from actors.cli.table import paint, say, seconds
from actors.cli.word import Actor
from actors.observer import Observers, find

if TYPE_CHECKING:
    from actors.events import ActorChanged, ClusterView


@click.command()
@click.argument("who", type=Actor())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
def stack(who: str, as_json: bool) -> None:
    """Show where the code of the actor WHO stands, which calls it has, and who waits for whom.

    It answers while a method runs. Where one long step of C code lets no other thread in, the process is asked by a
    signal instead, and that is said.

    \b
    Example:
      actors stack counter
      actors stack actor-3f9c0a12b7de --json
    """  # noqa: D301 - click wants the character itself
    with Observers() as observers:
        try:
            observer, actor = find(who, found := observers.views())
        except LookupError as error:
            raise click.ClickException(str(error)) from error
        view = next(view for each, view in found if each is observer)
        answered, stacks = observer.stack(actor)
        shown = look(actor, view, answered, stacks)
    if as_json:
        click.echo(json.dumps(shown))
    else:
        _tell(shown)


def look(actor: ActorChanged, view: ClusterView, answered: bool, stacks: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """Returns what is known of an actor's standing, as ``--json`` shows it."""
    calls = [call for call in view.calls if call.actor == actor.id]
    waiting = [call for call in view.calls if any(f"({actor.id})" in name for name in call.waits_for)]
    return {
        "id": actor.id, "name": actor.name, "class": actor.class_name, "node": actor.node, "pid": actor.pid,
        "state": state_of(actor), "gil_held": not answered,
        "calls": [
            {
                "method": call.method, "state": call.state, "age_s": call.age, "running_s": call.running,
                "caller": view.name_of(call.caller), "waits_for": list(call.waits_for),
            }
            for call in calls
        ],
        "waited_for_by": [{"call": f"{call.label}.{call.method}", "age_s": call.age} for call in waiting],
        "stacks": [{"where": where, "frames": lines} for where, lines in stacks],
    }  # fmt: skip


def _tell(shown: dict[str, Any]) -> None:
    name = f"{shown['name']} " if shown["name"] else ""
    say(
        paint(f"{shown['class']} {name}{shown['id']}", bold=True)
        + f" on node {shown['node']}, process {shown['pid']}, {shown['state']}"
    )
    for call in shown["calls"]:
        age = call["running_s"] if call["state"] == "RUNNING" else call["age_s"]
        what = "runs for" if call["state"] == "RUNNING" else "has waited for"
        say(f"  {call['method']} {what} {seconds(age)}, called by {call['caller']}")
        for name in call["waits_for"]:
            say(f"    it waits for {name}")
    if not shown["calls"]:
        say("  It has no calls: it waits for one.")
    for waiting in shown["waited_for_by"]:
        say(f"  {waiting['call']} has waited for it for {seconds(waiting['age_s'])}")
    if shown["gil_held"]:
        say(
            paint("GIL held: ", "yellow")
            + "its process did not answer within 1 s, so one step of C code keeps the interpreter. It was asked by "
            "SIGUSR1; this is also in its log:"
        )
    for part in shown["stacks"]:
        say(f"\n{part['where']}" + ("" if part["frames"] else ": idle"))
        for line in part["frames"]:
            say(line)
