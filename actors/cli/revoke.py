"""``actors revoke``: removes a device from the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from actors import device
from actors.exceptions import ActorsError, AuthenticationError
from actors.residing import some_node
from actors.visit import ask_node

if TYPE_CHECKING:
    from actors.trust import Member, Roll


@click.command()
@click.argument("name")
def revoke(name: str) -> None:
    """Remove a device from the cluster, by its name or id, for good: its connections are cut everywhere.

    \b
    Example:
      actors revoke old-laptop
    """  # noqa: D301 - click wants the character itself
    identity, store = device.identity(), device.store()
    roll = device.roll()
    if roll is None:
        raise AuthenticationError("this device is in no cluster")
    member = _find(roll, name)
    if member.id == identity.node_id:
        raise ActorsError("that is this device: run `actors leave` to leave the cluster")
    let_in = [other.name for other in roll.let_in_by(member.id)]
    store.change(lambda roll: roll.without(identity, member.id) if roll is not None else None)
    with some_node() as node:
        ask_node(node, "trust", "settle", None, 0.0)
        ask_node(node, "trust", "told")
    click.echo(f"{member.name} is removed. Devices that sleep hear of it when they meet one that knows.")
    if let_in:
        click.echo(f"It had let in {', '.join(sorted(let_in))}, who stay: revoke them as well if you doubt them.")


def _find(roll: Roll, name: str) -> Member:
    found = [m for m in roll.members.values() if m.name == name or (len(name) >= 8 and m.id.startswith(name))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(sorted(member.name for member in roll.members.values()))
    raise ActorsError(f"no device of the cluster is called {name!r}; there are: {names}")
