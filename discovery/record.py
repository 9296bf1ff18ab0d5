"""What is known of a node, and what can happen to that knowledge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node as it announces itself. A hint only: nothing in it is proved.

    Attributes:
        id: The node's identity, 1 to 63 lowercase letters, digits and inner hyphens. Records of `fixed` addresses carry
            the address instead, as nothing else is known of them.
        name: The name to show, at most 128 bytes of UTF-8 without control characters.
        port: The TCP port on which the node listens, 1 to 65535.
        addresses: Where it may be reached, best first: IP addresses, link-local IPv6 ones with their interface
            (``fe80::1%eth0``); records of `fixed` addresses may hold a host name. An advertised record may leave them
            empty: then those of the announcing interfaces are announced, and kept up to date.
        boot: Changes with every start of the node, so that a restart is told from a repeated announcement; at most 32
            printable ASCII characters, no spaces.
        cluster: A short tag that tells clusters apart, at most 64 printable ASCII characters; empty for none.
        protocol: The version of the protocol that the node speaks, 0 to 65535.
    """

    id: str
    name: str
    port: int
    addresses: tuple[str, ...] = ()
    boot: str = ""
    cluster: str = ""
    protocol: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """A node was seen for the first time, or again after it was lost."""

    record: NodeRecord


@dataclass(frozen=True, slots=True)
class Changed:
    """A known node announced something else: new addresses, or, with another ``boot``, that it was restarted."""

    record: NodeRecord


@dataclass(frozen=True, slots=True)
class Lost:
    """A node said goodbye. One that was killed says nothing and stays known for up to an hour."""

    id: str


Event: TypeAlias = Found | Changed | Lost
