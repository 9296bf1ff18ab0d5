"""``actors invite``: shows a code, and lets in who has it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from actors import device
from actors.cli.word import OwnAddress
from actors.exceptions import ActorsError, AuthenticationError, ClusterTimeoutError
from actors.pairing.code import Code
from actors.pairing.invitation import LIFE_SECONDS, Invitation, Tally
from actors.pairing.meeting import announce
from actors.trust.roll import found
from actors.visit import ask_node, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from actors.trust import Member, Roll

NEEDED = (
    "spake2", "cryptography.hazmat.primitives.kdf.hkdf", "cryptography.hazmat.primitives.ciphers.aead",
    "actors.process",
)  # fmt: skip
"""Loaded once the code is shown: a person takes longer to carry it over."""


@click.command()
@click.option("--uses", type=click.IntRange(1, 1000), default=1, show_default=True, help="How many devices it admits.")
@click.option("--host", type=OwnAddress(), help="Own address to wait at [default: that of the door, else all].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on one line: code, expires, address.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Write a file that makes one device a member instead.")
@click.option("--name", help="With --bundle, what that device is called [default: the file's name].")
def invite(uses: int, host: str | None, as_json: bool, bundle: Path | None, name: str | None) -> None:
    """Show a code by which other devices join this one's cluster, and wait until it is used.

    The code is good for ten minutes and for three tries. Where this device is in no cluster yet, it founds one. A
    device that joins may run any code on all the others: invite only those you would give a shell.

    \b
    Example:
      actors invite
      actors invite --uses 2
      actors invite --bundle printer-room.bundle
    """  # noqa: D301 - click wants the character itself
    import logging

    if bundle is not None:
        _write_bundle(bundle, name or bundle.stem)
        return
    if name is not None:
        raise click.UsageError("--name is for --bundle: a device that joins by a code says its name itself")
    logging.basicConfig(level=logging.WARNING, format="actors: %(message)s")
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # an address that cannot be used is one of several
    why = asyncio.run(_invite(uses, host, as_json))
    if why == "spent":
        raise ActorsError("three wrong codes were tried: the invitation is void. Run `actors invite` again")
    if why == "expired":
        raise ClusterTimeoutError("nobody came within ten minutes: the invitation is over. Run `actors invite` again")


def _write_bundle(path: Path, name: str) -> None:
    """Makes a member that has no device yet."""
    from actors.identity import Identity
    from actors.pairing.bundle import Bundle
    from actors.pairing.invitation import readable

    with _new_file(path) as file:  # before anybody is made a member whose key would be nowhere
        identity = Identity.create()
        _found()
        roll = _add(identity.certificate, readable(name))
        file.write(Bundle(identity, roll, asyncio.run(_hints())["doors"]).to_bytes())
    click.echo(
        f"{path} makes one device a member, called {roll.members[identity.node_id].name}: copy it there, and run"
    )
    click.echo(f"\n    actors join --bundle {path.name}\n\nWhoever has it is that member. `actors revoke` ends it.")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file for this user alone, which goes again where it cannot be filled."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ActorsError(f"{path} exists already: it may be the one key of a device") from None
    except OSError as error:
        raise ActorsError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _found() -> Roll:
    """Returns the roll of this device's cluster; where it is in none, founds one."""
    identity = device.identity()
    roll = device.store().change(lambda roll: roll or found(identity, device.host_name()))
    assert roll is not None
    if identity.node_id not in roll.members:
        raise AuthenticationError("this device was removed from its cluster: run `actors leave` here first")
    return roll


async def _invite(uses: int, host: str | None, as_json: bool) -> str:
    identity, code, roll = device.identity(), Code.new(), _found()
    door = device.door()
    if host is not None:
        door = device.Door(host, door.port)
    invitation = Invitation(
        code, identity, roll.cluster, _admit, Tally(uses, time.monotonic() + LIFE_SECONDS), _hints,
        lambda member: _tell(member, as_json),
    )  # fmt: skip
    port = await invitation.open(None if door.is_everywhere else door.host)
    try:
        async with _announced(code, port, door):
            _show(code, device.at(device.hosts(door)[0], port), uses, as_json)
            await asyncio.to_thread(_load)
            return await invitation.wait()
    finally:
        await invitation.close()


def _load() -> None:
    """Loads what an exchange needs, while the code is on its way."""
    for module in NEEDED:
        import_module(module)
    prepare()


@contextlib.asynccontextmanager
async def _announced(code: Code, port: int, door: device.Door) -> AsyncIterator[None]:
    """Announces the invitation as far as there is multicast."""
    from discovery import DiscoveryError

    async with contextlib.AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(announce(code, device.host_name(), port, door.interfaces))
        except DiscoveryError as error:
            click.echo(f"actors: the others will not find it by multicast ({error}); give them --address", err=True)
        yield


async def _admit(certificate: bytes, name: str) -> Roll:
    return await asyncio.to_thread(_add, certificate, name)


def _add(certificate: bytes, name: str) -> Roll:
    """Vouches for a device; returns once this device's node, if it runs, lets it in."""
    identity = device.identity()

    def change(roll: Roll | None) -> Roll | None:
        if roll is None or identity.node_id not in roll.members:
            raise AuthenticationError("this device has left the cluster")
        return roll.added(identity, certificate, _free_name(roll, name))

    roll = device.store().change(change)
    assert roll is not None
    if (running := device.running()) is not None:
        ask_node(running, "trust", "look")
    return roll


def _free_name(roll: Roll, name: str) -> str:
    taken = {member.name for member in roll.members.values()}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}-{number}", number + 1
    return candidate


async def _hints() -> dict[str, Any]:
    running = device.running()
    known = device.doors()
    if running is not None and running.address:
        port = int(running.address.rpartition(":")[2])
        known[running.id] = [device.at(host, port) for host in device.hosts(device.door())]
    return {"doors": known, "running": running is not None}


def _show(code: Code, address: str, uses: int, as_json: bool) -> None:
    expires = datetime.fromtimestamp(time.time() + LIFE_SECONDS, UTC).isoformat(timespec="seconds")
    if as_json:
        click.echo(json.dumps({"code": str(code), "expires": expires, "address": address}))
        return
    from actors.muster import is_loopback

    whom = "the other device" if uses == 1 else f"each of the {uses} other devices"
    click.echo(f"On {whom}, within ten minutes, run:\n\n    actors join {code}\n")
    alone = ", which only this machine reaches" if is_loopback(address) else ""
    click.echo(f"Where that finds nothing, add --address {address}{alone}. Waiting …")


def _tell(member: Member, as_json: bool) -> None:
    click.echo(f"{member.name} has joined.", err=as_json)
