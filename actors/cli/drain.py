"""``actors drain``: empties a device before it is closed."""

from __future__ import annotations

import json
from typing import Any

import click

from actors import device
from actors.cli.word import Seconds
from actors.exceptions import NoClusterError
from actors.visit import ask_node

SLACK_SECONDS = 15.0


@click.command()
@click.argument("node")
@click.option("--timeout", type=Seconds(), default=60.0, show_default=True, help="Seconds that it may take.")
@click.option("--undo", is_flag=True, help="Let actors be placed there again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else on standard output.")
@click.pass_context
def drain(context: click.Context, node: str, timeout: float, undo: bool, as_json: bool) -> None:
    """Empty NODE, a device of the cluster by name or id, before it is closed.

    Nothing new is placed there. Actors that have __actor_save__ and __actor_load__ move to other nodes with their
    state, wherever they were asked to be; tasks end. What cannot move is listed, and the exit status is 1.

    \b
    Example:
      actors drain laptop
      actors drain laptop --undo
    """  # noqa: D301 - click wants the character itself
    running = device.running()
    if running is None:
        raise NoClusterError("no node runs on this device: `actors start` starts one")
    if undo:
        name = ask_node(running, "draining", "undo", node)
        click.echo(json.dumps({"node": name}) if as_json else f"Actors may be placed on {name} again.")
        return
    found = ask_node(running, "draining", "drain", node, timeout, timeout=timeout + SLACK_SECONDS)
    if as_json:
        click.echo(json.dumps(found))
    else:
        _tell(found)
    if found["left"]:
        context.exit(1)


def _tell(found: dict[str, Any]) -> None:
    name, moved, left = found["node"], found["moved"], found["left"]
    for label in moved:
        click.echo(f"  {label} has left")
    for actor in left:
        click.echo(f"  {actor['label']} is still there: {actor['why']}")
    click.echo(
        f"{name} is not empty: {len(left)} of its actors would end with it."
        if left
        else f"{name} is empty and takes no actors: it can be closed. `actors drain {name} --undo` opens it again."
    )
