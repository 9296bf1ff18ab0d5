"""Messages of a pairing on a TCP connection: JSON objects, each after its length."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from actors.pairing.exchange import LARGEST_BYTES, PairingError

if TYPE_CHECKING:
    import asyncio

_HEAD = 4


async def receive(reader: asyncio.StreamReader, limit: int = LARGEST_BYTES) -> dict[str, Any]:
    """Reads one message.

    Raises:
        PairingError: it is too long or of another form, or the other side has said what is wrong.
        EOFError: the connection has ended.
    """
    length = int.from_bytes(await reader.readexactly(_HEAD), "big")
    if not 0 < length <= limit:
        raise PairingError("the other device sent a message that is too long")
    content = await reader.readexactly(length)
    try:
        message = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise PairingError("the other device sent something that is no part of the exchange") from error
    if not isinstance(message, dict):
        raise PairingError("the other device sent something that is no part of the exchange")
    return message


async def send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Writes one message."""
    content = json.dumps(message).encode()
    writer.write(len(content).to_bytes(_HEAD, "big") + content)
    await writer.drain()
