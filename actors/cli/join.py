"""``actors join``: joins the cluster of another device by its code."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actors import device
from actors.cli.word import Seconds
from actors.exceptions import ActorsError, AuthenticationError, ClusterTimeoutError
from actors.pairing.code import Code
from actors.pairing.exchange import PairingError, WrongCodeError
from actors.pairing.joining import Welcome, join_at
from actors.pairing.meeting import find
from actors.residing import START_SECONDS, start_node
from actors.visit import ask_node
from discovery.addresses import host_and_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.identity import Identity
    from actors.trust import Roll

Candidate = tuple[str, int]


@click.command()
@click.argument("code", required=False)
@click.option("--address", metavar="HOST:PORT", help="Where `actors invite` waits, for networks without multicast.")
@click.option(
    "--timeout", type=Seconds(), default=15.0, show_default=True, help="Seconds to look for the other device."
)
@click.option("--bundle", type=click.Path(path_type=Path), help="A file of `actors invite --bundle`, and no code.")
def join(code: str | None, address: str | None, timeout: float, bundle: Path | None) -> None:
    """Join the cluster of the device that shows this code; without a code it is read from standard input.

    Returns once this device can call the others. All devices of a cluster may run any code on each other.

    \b
    Example:
      actors join 42-7K2M-XQ9D
      echo 42-7K2M-XQ9D | actors join --address 192.168.1.20:41533
      actors join --bundle printer-room.bundle
    """  # noqa: D301 - click wants the character itself
    if bundle is not None:
        if code is not None or address is not None:
            raise click.UsageError("with --bundle there is no code and no address")
        _join_by(bundle)
        return
    try:
        read = Code.parse(code if code is not None and code != "-" else sys.stdin.readline())
        given = host_and_port(address) if address is not None else None
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    _prepare()
    welcome = asyncio.run(_join(read, given, timeout))
    device.remember_doors(welcome.doors)
    me = welcome.roll.members[device.identity().node_id]
    others = [m.name for m in welcome.roll.members.values() if m.id != me.id]
    _await_inviter(welcome)
    click.echo(f"This device is {me.name} now, in a cluster with {', '.join(sorted(others))}.")
    if device.running() is None:
        click.echo("`actors start` makes it usable by the others; actors.init() in a program does so while that runs.")


def _prepare() -> None:
    """Has this device's node, where it runs, load meanwhile what it needs to open its door."""
    running = device.running()
    if running is None or device.store().read() is not None:
        return

    def ask() -> None:
        with contextlib.suppress(ActorsError):  # then it takes its time later
            ask_node(running, "trust", "prepare")

    threading.Thread(target=ask, daemon=True).start()


def _join_by(path: Path) -> None:
    """Becomes the member that a bundle was made for."""
    from actors.pairing.bundle import Bundle

    bundle, store = Bundle.read(path), device.store()
    roll = store.read()
    if roll is not None and roll.cluster != bundle.roll.cluster:
        raise AuthenticationError("this device belongs to another cluster: run `actors leave` here first")
    if roll is not None and device.identity().node_id != bundle.identity.node_id:
        raise AuthenticationError("this device belongs to that cluster already")
    running = device.running()
    if running is not None:
        device.stop(running)  # it has another key
    bundle.identity.save(device.folder())
    store.change(lambda roll: bundle.roll if roll is None else roll.merged(bundle.roll.statements.values()))
    device.remember_doors(bundle.doors)
    if running is not None:
        start_node(START_SECONDS, stays=True)
    others = sorted(m.name for m in bundle.roll.members.values() if m.id != bundle.identity.node_id)
    me = bundle.roll.members[bundle.identity.node_id]
    click.echo(f"This device is {me.name} now, in a cluster with {', '.join(others)}.")


async def _join(code: Code, given: Candidate | None, timeout: float) -> Welcome:
    identity, store = device.identity(), device.store()
    roll = store.read()
    if roll is not None and identity.node_id not in roll.members:
        raise AuthenticationError("this device was removed from its cluster: run `actors leave` here first")
    mine = roll.cluster if roll is not None else None

    def keep(fresh: Roll) -> None:
        store.change(lambda roll: fresh if roll is None else roll.merged(fresh.statements.values()))

    candidates = [given] if given is not None else await _candidates(code, timeout)
    return await _first(candidates, code, identity, mine, keep)


async def _candidates(code: Code, timeout: float) -> list[Candidate]:
    found = await find(code, device.door().interfaces, timeout)
    if not found:
        raise ClusterTimeoutError(
            f"no device shows an invitation {code.nameplate}-… on this network: is `actors invite` still waiting "
            "there? If it is, give the address it shows: --address HOST:PORT"
        )
    return [(host, port) for _, port, hosts in found for host in hosts]


async def _first(
    candidates: list[Candidate], code: Code, identity: Identity, mine: str | None, keep: Callable[[Roll], None]
) -> Welcome:
    """Joins at the first of several places that has the code."""
    problem: Exception | None = None
    for host, port in candidates:
        try:
            return await join_at(host, port, code, identity, device.host_name(), mine, keep)
        except (WrongCodeError, PairingError) as error:
            problem = error
        except OSError as error:
            problem = problem or error
    where = ", ".join(device.at(host, port) for host, port in candidates)
    if isinstance(problem, WrongCodeError):
        raise WrongCodeError("the code is wrong: look at it again, on the other device; it allows three tries in all")
    if isinstance(problem, PairingError):
        raise AuthenticationError(str(problem))
    if isinstance(problem, ConnectionRefusedError):
        raise AuthenticationError(
            f"no invitation waits at {where}: it is used, spent or over. Run `actors invite` there again"
        )
    if isinstance(problem, TimeoutError):
        raise ClusterTimeoutError(f"no answer from {where}; `actors doctor` looks for the cause")
    raise ActorsError(f"{where} cannot be reached: {problem}")


def _await_inviter(welcome: Welcome) -> None:
    """Has this device's node, where it runs, take the new trust, and waits until it has met the inviter's."""
    running = device.running()
    if running is None:
        return
    ask_node(running, "trust", "look")
    if welcome.running:
        ask_node(running, "trust", "meet", welcome.inviter)
