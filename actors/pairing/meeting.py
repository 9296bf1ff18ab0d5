"""How a joiner finds the inviter: by the nameplate, announced while the invitation waits. Nothing secret is in it."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from actors.pairing.code import Code
    from discovery.interfaces import Interfaces

MOST_CANDIDATES = 3
"""Tried for one nameplate: each is given one exchange, so each may guess the code once."""


def announce(code: Code, name: str, port: int, interfaces: Interfaces) -> AbstractAsyncContextManager[object]:
    """Announces an invitation while the block lasts."""
    import discovery

    tag = f"invite-{code.nameplate}"
    record = discovery.NodeRecord(id=f"{tag}-{secrets.token_hex(6)}", name=name, port=port, cluster=tag)
    return discovery.advertise(record, interfaces=interfaces)


async def find(code: Code, interfaces: Interfaces, timeout: float) -> list[tuple[str, int, tuple[str, ...]]]:
    """Returns who announces this nameplate: name, port, addresses; nobody where the time is over.

    Raises:
        DiscoveryError: the network cannot be used.
    """
    import discovery

    async with discovery.browse(interfaces=interfaces, cluster=f"invite-{code.nameplate}") as browser:
        try:
            found = await browser.until(1, timeout)
        except TimeoutError:
            return []
    return [(record.name, record.port, record.addresses) for record in found.values()][:MOST_CANDIDATES]
