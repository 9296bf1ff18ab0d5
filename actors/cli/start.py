"""``actors start``: the node of this device."""

from __future__ import annotations

import os
from dataclasses import asdict, replace

import click

from actors import device
from actors.cli.word import OwnAddress
from actors.exceptions import ActorsError
from actors.parent import orders_line
from actors.residing import START_SECONDS, start_node


@click.command()
@click.option("--foreground", is_flag=True, help="Stay in the foreground until Ctrl-C or SIGTERM.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"Of the door, once paired [default: {device.PORT}].")
@click.option("--install", is_flag=True, help="Let the system start it at each log-in (systemd, launchd), and now.")
@click.option("--host", type=OwnAddress(), help="Own address of the door, once paired [default: all addresses].")
def start(foreground: bool, install: bool, port: int | None, host: str | None) -> None:
    """Start the node of this device, and leave it running.

    It ends with `actors stop`. Until the device is paired, nothing listens beyond this machine; then one port does,
    which asks everybody for a key. Host and port are remembered.

    \b
    Example:
      actors start
      actors start --port 50100 --host 192.168.1.20
    """  # noqa: D301 - click wants the character itself
    if (found := device.running()) is not None:
        _check_it_counts(install, port, host)
        click.echo(f"The node of this device runs already: {found.name}, process {found.pid}.")
        return
    door = device.door()
    if host is not None:
        door = replace(door, host=host)
    if port is not None:
        door = replace(door, port=port, given=port != 0)
    device.remember_door(door)
    if install:
        from actors.cli.install import install as install_unit

        click.echo(f"The system starts the node of this device from now on: {install_unit()}")
        return
    if foreground:
        _run_here(door)
        return
    running, _ = start_node(START_SECONDS, stays=True)
    if running.address:
        click.echo(f"Node {running.name} runs at {running.address}. Programs here join it by actors.init().")
    else:
        click.echo(
            f"Node {running.name} runs, for this machine alone. To pair it with other devices, run `actors invite` on "
            "one of them and `actors join CODE` on the others."
        )


def _check_it_counts(install: bool, port: int | None, host: str | None) -> None:
    """Raises an error where something was asked for that a node which runs already cannot be given."""
    door = device.door()
    asked = {"--install": install, "--port": port not in {None, 0, door.port}, "--host": host not in {None, door.host}}
    words = " and ".join(word for word, given in asked.items() if given)
    if words:
        raise ActorsError(
            f"the node of this device runs already, and {words} can only be had as it starts: run `actors stop`, which "
            "ends its actors, and this again"
        )


def _run_here(door: device.Door) -> None:
    """Becomes the node."""
    from actors.node.__main__ import main

    orders = {
        "device": True, "stays": True, "foreground": True, "door": asdict(door), "log": str(device.log_file()),
        "resources": {}, "labels": {},
    }  # fmt: skip
    reading, writing = os.pipe()
    os.write(writing, orders_line(orders))
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    main()
