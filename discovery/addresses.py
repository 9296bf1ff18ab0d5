"""Addresses at which a node may be reached: read from text, ordered, and given their interface. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CANDIDATES = 32
"""Addresses kept for one node: more would only lengthen the dialling, and anybody can announce thousands."""

_HOST = re.compile(r"(?!.*\.\.)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_WITH_PORT = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<plain>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


def host_and_port(address: str) -> tuple[str, int]:
    """Split ``"host:port"`` or ``"[IPv6]:port"``.

    Raises:
        ValueError: It is neither; the message names the address and the form that is wanted.
    """
    match = _WITH_PORT.fullmatch(address)
    if match is None:
        hint = (
            "an IPv6 address goes into brackets, [::1]:50099" if address.count(":") > 1 else "as in 192.168.1.20:50099"
        )
        raise ValueError(f"address {address!r} is not HOST:PORT ({hint})")
    port = int(match["port"])
    if not 1 <= port <= 65535:
        raise ValueError(f"address {address!r}: port {port} is not between 1 and 65535")
    host = match["plain"] if match["bracketed"] is None else match["bracketed"]
    if not _is_host(host, bracketed=match["bracketed"] is not None):
        raise ValueError(f"address {address!r}: {host!r} is neither an IP address nor a host name")
    return host, port


def candidates(
    announced: Iterable[str], link_local_interfaces: Sequence[str], own: Iterable[str] = ()
) -> tuple[str, ...]:
    """Order a node's announced addresses, best first, and say through which interfaces to reach the link-local ones.

    DNS carries an address like ``fe80::1`` without the interface behind which it lies, so each becomes one candidate
    for every interface of ours that has such addresses. 169.254.x.x stays: that is a Thunderbolt cable. Those in a
    network of ours come first; last come those that we have ourselves, as every host with Docker has 172.17.0.1.

    Args:
        announced: IP addresses in text form, in any order; a scope is ignored.
        link_local_interfaces: The names of our interfaces with a link-local IPv6 address.
        own: Our own addresses with the length of their networks' prefixes, as in ``"192.168.1.20/24"``.

    Raises:
        ValueError: One is not an IP address.
    """
    parsed = {ip_address(text.partition("%")[0]) for text in announced}
    mine = [ip_interface(text) for text in own]

    def rank(ip: IPv4Address | IPv6Address) -> tuple[bool, bool, bool, int, int]:
        near = any(ip in interface.network for interface in mine)
        return any(ip == interface.ip for interface in mine), ip.is_link_local, not near, ip.version, int(ip)

    usable = sorted((ip for ip in parsed if not (ip.is_unspecified or ip.is_multicast)), key=rank)
    return tuple(text for ip in usable for text in _scoped(ip, link_local_interfaces))[:CANDIDATES]


def _scoped(ip: IPv4Address | IPv6Address, interfaces: Sequence[str]) -> list[str]:
    if ip.version == 6 and ip.is_link_local:
        return [f"{ip}%{interface}" for interface in interfaces]
    return [str(ip)]


def _is_host(host: str, *, bracketed: bool) -> bool:
    try:
        ip = ip_address(host)
    except ValueError:
        # What looks like an IPv4 address but is none must not go to a name server.
        return not bracketed and bool(_HOST.fullmatch(host)) and not host.rstrip(".").rpartition(".")[2].isdigit()
    return (ip.version == 6) == bracketed
