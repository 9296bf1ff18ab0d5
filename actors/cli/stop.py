"""``actors stop``: ends the node of this device."""

from __future__ import annotations

import click

from actors import device


@click.command()
def stop() -> None:
    """End the node of this device, and with it its actors. Where none runs, there is nothing to do.

    \b
    Example:
      actors stop
    """  # noqa: D301 - click wants the character itself
    found = device.running()
    if found is None:
        click.echo("No node runs on this device.")
        return
    device.stop(found)
    click.echo(f"Node {found.name} has ended.")
