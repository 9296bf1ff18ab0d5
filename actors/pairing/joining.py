"""Joining by a code: finds the inviter, proves the code, and takes over who belongs to the cluster."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.certificate import node_id_of
from actors.exceptions import AuthenticationError
from actors.pairing.exchange import LARGEST_WELCOME, Joiner, PairingError, WrongCodeError, bytes_in, to_text
from actors.pairing.wire import receive, send
from actors.trust.roll import Roll
from actors.trust.store import statements_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.identity import Identity
    from actors.pairing.code import Code

EXCHANGE_SECONDS = 10.0
CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a device is told once it is let in.

    Attributes:
        roll: who belongs.
        inviter: node id of who let it in.
        doors: addresses of members' nodes as ``"HOST:PORT"``, by node id; hints.
        running: whether a node of the inviter's runs.
    """

    roll: Roll
    inviter: str
    doors: dict[str, list[str]]
    running: bool


async def join_at(  # noqa: PLR0917 - one place calls it
    host: str, port: int, code: Code, identity: Identity, name: str, mine: str | None, keep: Callable[[Roll], None]
) -> Welcome:
    """Joins at an inviter's address.

    Args:
        host: where it waits.
        port: of the invitation, not of a node.
        code: as typed.
        identity: this device's.
        name: what it calls itself.
        mine: id of the cluster to which this device belongs already.
        keep: writes the roll down, before the inviter is told that all is well.

    Raises:
        AuthenticationError: this device belongs to another cluster, or the other side is not who it says.
        WrongCodeError: the code is wrong.
        PairingError: the invitation is over, or the other side does not keep to the protocol.
        OSError: no connection; TimeoutError, which is one, where there is no answer.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(EXCHANGE_SECONDS):
            return await _exchange(reader, writer, code, identity, name, mine, keep)
    except EOFError as error:
        raise PairingError("the inviter has hung up: the invitation is used, spent or over") from error
    finally:
        writer.close()


async def _exchange(  # noqa: PLR0917 - one place calls it
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    code: Code,
    identity: Identity,
    name: str,
    mine: str | None,
    keep: Callable[[Roll], None],
) -> Welcome:
    exchange = Joiner(code)
    await send(writer, exchange.hello())
    await send(writer, exchange.prove(_fine(await receive(reader))))
    certificate, card = exchange.meet(_fine(await receive(reader)))
    keys = exchange.keys
    assert keys is not None
    if mine is not None and card.get("cluster") != mine:
        raise AuthenticationError("this device belongs to another cluster: run `actors leave` here first")
    await send(writer, {"sealed": to_text(keys.card(identity, "joiner", name=name))})
    content = keys.open("welcome", bytes_in(_fine(await receive(reader, LARGEST_WELCOME)), "sealed"))
    welcome = _read(content, node_id_of(certificate))
    if identity.node_id not in welcome.roll.members or welcome.inviter not in welcome.roll.members:
        raise AuthenticationError("the inviter's list of members lacks this device or itself")
    keep(welcome.roll)
    await send(writer, {"sealed": to_text(keys.seal("done", {}))})
    return welcome


def _fine(message: dict[str, Any]) -> dict[str, Any]:
    """Passes a message on unless the other side says in it that it gives up."""
    word = message.get("error")
    if word is None:
        return message
    if word == "wrong code":
        raise WrongCodeError("the code is wrong")
    raise PairingError("the inviter has refused: the code is used, spent or over; run `actors invite` there again")


def _read(content: dict[str, Any], inviter: str) -> Welcome:
    try:
        roll = Roll(statements_of(json.dumps(content["statements"]).encode()))
        doors = {str(id): [str(door) for door in given] for id, given in content["doors"].items()}
        return Welcome(roll, inviter, doors, bool(content["running"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise PairingError("the inviter has sent a welcome that cannot be read") from error
