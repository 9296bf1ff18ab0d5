"""``actors list``: what there is in the cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from actors import device
from actors.exceptions import NoClusterError
from actors.residing import ask_node

if TYPE_CHECKING:
    from actors.nodeinfo import NodeInfo

KEYS = ("id", "name", "address", "alive", "resources", "labels", "versions")


@click.command("list")
@click.argument("what", type=click.Choice(["nodes"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list and nothing else on standard output.")
def listing(what: str, as_json: bool) -> None:
    """List the nodes of the cluster.

    \b
    Example:
      actors list nodes
      actors list nodes --json
    """  # noqa: D301 - click wants the character itself
    del what
    running = device.running()
    if running is None:
        raise NoClusterError("no node runs on this device: run `actors start`")
    nodes: list[NodeInfo] = ask_node(running, "node", "nodes")
    if as_json:
        click.echo(json.dumps([{key: asdict(node)[key] for key in KEYS} for node in nodes]))
        return
    width = max(len(node.name) for node in nodes)
    for node in nodes:
        state, cpus = "alive" if node.alive else "gone", node.resources.get("CPU", 0)
        click.echo(f"{node.name:<{width}}  {state:<5}  {node.address or '-'}  {cpus:g} CPUs")
