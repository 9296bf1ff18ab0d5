"""Say on the network that a node is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .interfaces import Interfaces, chosen
from .lane import Lane
from .txt import check

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from .record import NodeRecord


class Advertisement(Lane):
    """A node that is announced while the ``with`` or ``async with`` block lasts, and says goodbye at its end."""

    def __init__(self, record: NodeRecord, interfaces: Interfaces) -> None:
        check(record)
        self.record = record
        self._addresses = chosen(interfaces)
        super().__init__(self._announcing, "discovery-advertise")

    def _announcing(self) -> AbstractAsyncContextManager[None]:
        from .mdns import announcing

        return announcing(self.record, self._addresses)


def advertise(record: NodeRecord, *, interfaces: Interfaces = None) -> Advertisement:
    """Announce a node over DNS-SD while the block that is entered with the result lasts.

    Entering returns once the first announcement is sent; leaving takes about a quarter of a second, in which the
    goodbye is sent three times.

    Args:
        record: The node. Where it has no addresses, those of the interfaces are announced; with ``interfaces=None``
            they are looked up again every 2 s, so that a new network is joined without a restart.
        interfaces: None for all, ``"loopback"`` for this machine only, or this machine's own IP addresses.

    Returns:
        A context manager for both ``with`` and ``async with``.

    Raises:
        ValueError: A field of the record cannot be announced, or ``interfaces`` is not understood.
        DiscoveryError: On entering: the network cannot be used.
    """
    return Advertisement(record, interfaces)
