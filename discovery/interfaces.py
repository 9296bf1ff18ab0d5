"""This machine's network interfaces, and which of them discovery may use."""

from __future__ import annotations

import time
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Literal, TypeAlias

from .errors import DiscoveryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import ifaddr

Interfaces: TypeAlias = "Literal['loopback'] | Sequence[str] | None"
"""Which interfaces to use: None is all of them, also those that appear later; "loopback" is 127.0.0.1, from which no
packet leaves the machine; or the machine's own IP addresses on the interfaces meant."""

LOOPBACK = ("127.0.0.1",)

FRESH_S = 0.5
"""For so long at most, what the system has listed is taken for what is: several ask at each poll."""


def chosen(interfaces: Interfaces) -> tuple[str, ...] | None:
    """The addresses meant by an ``interfaces`` argument; None for all.

    Raises:
        ValueError: It is none of the forms of `Interfaces`.
    """
    if interfaces is None:
        return None
    if interfaces == "loopback":
        return LOOPBACK
    if isinstance(interfaces, str) or not interfaces:
        raise ValueError(
            f"interfaces={interfaces!r} is not understood: give None for all, 'loopback', "
            "or a list of this machine's own IP addresses"
        )
    for address in interfaces:
        try:
            ip = ip_address(address)
        except ValueError as error:
            raise ValueError(f"interfaces: {address!r} is not an IP address of this machine") from error
        if ip.version == 6 and ip.is_loopback:
            raise ValueError(f"interfaces: multicast does not work on {address}; give 'loopback', which is 127.0.0.1")
    return tuple(interfaces)


def own() -> frozenset[tuple[str, str]]:
    """Every (interface name, IP address without scope) of this machine now.

    Raises:
        DiscoveryError: The system does not tell.
    """
    return frozenset((adapter.name, _text(ip)) for adapter in _adapters() for ip in adapter.ips)


def networks() -> tuple[str, ...]:
    """Every IP address of this machine with the length of its network's prefix, as in ``"192.168.1.20/24"``.

    Raises:
        DiscoveryError: The system does not tell.
    """
    return tuple(sorted(f"{_text(ip)}/{ip.network_prefix}" for adapter in _adapters() for ip in adapter.ips))


def announced(addresses: tuple[str, ...] | None) -> tuple[str, ...]:
    """The addresses to announce on the chosen interfaces, sorted; loopback only where there is nothing else.

    Raises:
        DiscoveryError: A chosen address is not this machine's.
    """
    mine = {address for _, address in own()}
    if addresses is None:
        return tuple(sorted(address for address in mine if not ip_address(address).is_loopback)) or LOOPBACK
    for address in addresses:
        if address.partition("%")[0] not in mine:
            has = ", ".join(sorted(mine)) or "none"
            down = "; its loopback is switched off: `ip link set lo up`" if address in LOOPBACK else ""
            raise DiscoveryError(f"interfaces: {address} is not an address of this machine, which has {has}{down}")
    return tuple(sorted({address.partition("%")[0] for address in addresses}))


def link_local() -> tuple[str, ...]:
    """The names of the interfaces with a link-local IPv6 address, sorted."""
    return tuple(sorted({name for name, address in own() if ":" in address and ip_address(address).is_link_local}))


def named(address: str) -> str:
    """The name of the interface that has an address.

    Raises:
        DiscoveryError: None has it.
    """
    for name, candidate in own():
        if candidate == address:
            return name
    raise DiscoveryError(f"no interface of this machine has the address {address}")


def _adapters() -> tuple[ifaddr.Adapter, ...]:
    return _adapters_at(int(time.monotonic() / FRESH_S))


@lru_cache(maxsize=1)
def _adapters_at(moment: int) -> tuple[ifaddr.Adapter, ...]:  # noqa: ARG001 - the next moment asks the system anew
    import ifaddr

    try:
        return tuple(ifaddr.get_adapters())
    except OSError as error:
        raise DiscoveryError(f"the system does not list its network interfaces: {error}") from error


def _text(ip: ifaddr.IP) -> str:
    return ip.ip if isinstance(ip.ip, str) else ip.ip[0].partition("%")[0]
