"""Nodes at given addresses, where there is no multicast or none is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .addresses import host_and_port
from .browser import Browser
from .record import NodeRecord
from .roster import Roster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from .record import Event


def fixed(nodes: Iterable[NodeRecord | str] | str, *, on_event: Callable[[Event], None] | None = None) -> Browser:
    """A browser that finds the given nodes as it is entered and never another; it uses no network.

    Args:
        nodes: Records, or addresses ``"HOST:PORT"`` (``"[IPv6]:PORT"``); one string may hold several, with commas.
            A node given by its address has that address as its id, as its true one is not known yet.
        on_event: Called with one `Found` for each node, by the thread that enters the browser.

    Raises:
        ValueError: An address is not of that form; the message names it.
    """
    parts = nodes.split(",") if isinstance(nodes, str) else nodes
    records = [_record(part.strip()) if isinstance(part, str) else part for part in parts]
    roster = Roster(cluster=None)
    return Browser(roster, _Given(roster, records), on_event)


class _Given:
    """Puts the records on the roster when it is entered."""

    def __init__(self, roster: Roster, records: list[NodeRecord]) -> None:
        self._roster = roster
        self._records = records

    def __enter__(self) -> None:
        for record in self._records:
            self._roster.see(record)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._roster.close()

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._roster.close()


def _record(address: str) -> NodeRecord:
    host, port = host_and_port(address)
    return NodeRecord(id=address, name=host, port=port, addresses=(host,))
