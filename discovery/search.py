"""Look for nodes on the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .browser import Browser
from .interfaces import Interfaces, chosen
from .lane import Lane
from .roster import Roster
from .txt import check

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from .record import Event, NodeRecord


def browse(
    *, interfaces: Interfaces = None, cluster: str | None = None, on_event: Callable[[Event], None] | None = None
) -> Browser:
    """Look for nodes over DNS-SD while the block that is entered with the result lasts.

    Args:
        interfaces: None for all, also those that appear later; ``"loopback"`` for this machine only; or this machine's
            own IP addresses.
        cluster: Show only nodes with this tag; None shows all.
        on_event: Called with each event on discovery's own thread; it must return soon and not leave the browser.

    Returns:
        A `Browser`, for both ``with`` and ``async with``.

    Raises:
        ValueError: ``interfaces`` is not understood.
        DiscoveryError: On entering: the network cannot be used.
    """
    addresses = chosen(interfaces)
    roster = Roster(cluster)

    def watching() -> AbstractAsyncContextManager[None]:
        from .mdns import watching

        return watching(roster, addresses)

    return Browser(roster, Lane(watching, "discovery-browse"), on_event)


def reside(
    record: NodeRecord,
    *,
    interfaces: Interfaces = None,
    cluster: str | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Browser:
    """Announce a node and look for others, at half the cost of both apart. See `advertise` and `browse`.

    Raises:
        ValueError: A field of the record cannot be announced, or ``interfaces`` is not understood.
        DiscoveryError: On entering: the network cannot be used.
    """
    check(record)
    addresses = chosen(interfaces)
    roster = Roster(cluster)

    def residing() -> AbstractAsyncContextManager[None]:
        from .mdns import residing

        return residing(record, roster, addresses)

    return Browser(roster, Lane(residing, "discovery"), on_event)
