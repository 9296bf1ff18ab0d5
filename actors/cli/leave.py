"""``actors leave``: forgets the cluster."""

from __future__ import annotations

import contextlib

import click

from actors import device
from actors.exceptions import ActorsError
from actors.residing import START_SECONDS, some_node, start_node
from actors.visit import ask_node


@click.command()
def leave() -> None:
    """Leave the cluster: the others forget this device, and it them. A node that runs starts anew, unpaired.

    \b
    Example:
      actors leave
    """  # noqa: D301 - click wants the character itself
    identity, store = device.identity(), device.store()
    roll = store.read()
    if roll is None:
        click.echo("This device is in no cluster.")
        return
    running = device.running()
    others = [member for member in roll.members if member != identity.node_id]
    if identity.node_id in roll.members and others:
        with contextlib.suppress(ActorsError, TimeoutError), some_node() as node:  # who is not reached finds it silent
            ask_node(node, "trust", "settle", None, 0.0)
            store.change(lambda roll: roll.without(identity, identity.node_id) if roll is not None else None)
            ask_node(node, "trust", "look")
    if running is not None:
        device.stop(running)
    device.forget()
    if running is not None:
        start_node(START_SECONDS, stays=True)
    click.echo("This device has left the cluster.")
