"""A node record as the TXT record of DNS-SD (RFC 6763, section 6), and back. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING

from .record import NodeRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

TXT_LIMIT = 400
"""Bytes that a TXT record stays under: RFC 6763 asks for this so that an announcement fits one packet."""

NAME_LIMIT = 128
TXT_VERSION = "1"

_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BOOT = re.compile(r"[!-~]{0,32}")
_CLUSTER = re.compile(r"[!-~]{0,64}")
_NUMBER = re.compile(r"[0-9]{1,5}")


def to_txt(record: NodeRecord, revision: int = 0) -> bytes:
    """Encode what DNS-SD's other records (instance name, SRV, A, AAAA) do not say.

    Args:
        record: The node to announce.
        revision: How often its addresses have changed since its boot. A node that only loses an address announces
            nothing that the caches of others would count as new, but for this.

    Returns:
        The TXT record's bytes, fewer than `TXT_LIMIT`.

    Raises:
        ValueError: A field cannot be announced; the message names it.
    """
    check(record)
    entries = {
        "v": TXT_VERSION,
        "name": record.name,
        "boot": record.boot,
        "cluster": record.cluster,
        "protocol": str(record.protocol),
        "revision": str(revision),
    }
    strings = [f"{key}={value}".encode() for key, value in entries.items()]
    return b"".join(bytes([len(string)]) + string for string in strings)


def from_txt(instance: str, txt: bytes, port: int, addresses: Iterable[str]) -> NodeRecord:
    """Decode a TXT record, together with what the other records say.

    Args:
        instance: The DNS-SD instance name without the service type, which is the node's id.
        txt: The TXT record, from anybody on the network.
        port: The port of the SRV record.
        addresses: The addresses of the A and AAAA records, best first.

    Raises:
        ValueError: It is not the record of a node; the message says why. No other exception is raised.
    """
    if len(txt) >= TXT_LIMIT:
        raise ValueError(f"the TXT record has {len(txt)} bytes; a node's has fewer than {TXT_LIMIT}")
    entries = _entries(txt)
    if entries.get("v") != TXT_VERSION:
        raise ValueError(f"the TXT record is of version {entries.get('v')!r}; this release reads {TXT_VERSION!r}")
    missing = [key for key in ("name", "boot", "cluster", "protocol") if key not in entries]
    if missing:
        raise ValueError(f"the TXT record lacks {', '.join(missing)}")
    if not _NUMBER.fullmatch(entries["protocol"]):
        raise ValueError(f"protocol={entries['protocol']!r} in the TXT record is not a version number")
    record = NodeRecord(
        id=instance,
        name=entries["name"],
        port=port,
        addresses=tuple(addresses),
        boot=entries["boot"],
        cluster=entries["cluster"],
        protocol=int(entries["protocol"]),
    )
    check(record)
    return record


def check(record: NodeRecord) -> None:
    """Raise a ``ValueError`` that names the field where a record is not one that can be announced."""
    if not _ID.fullmatch(record.id):
        raise ValueError(f"node id {record.id!r} is not 1 to 63 lowercase letters, digits and inner hyphens")
    if not record.name or not record.name.isprintable():
        raise ValueError(f"node name {record.name!r} is empty or holds characters that cannot be shown")
    if len(record.name.encode()) > NAME_LIMIT:  # printable text has no surrogates, so this encodes
        raise ValueError(f"node name {record.name!r} takes {len(record.name.encode())} bytes; at most {NAME_LIMIT}")
    if not 1 <= record.port <= 65535:
        raise ValueError(f"port {record.port} of node {record.name!r} is not between 1 and 65535")
    for address in record.addresses:
        if not _is_ip(address):
            raise ValueError(f"address {address!r} of node {record.name!r} is not an IP address")
    if not _BOOT.fullmatch(record.boot):
        raise ValueError(f"boot nonce {record.boot!r} is not at most 32 printable ASCII characters without spaces")
    if not _CLUSTER.fullmatch(record.cluster):
        raise ValueError(f"cluster tag {record.cluster!r} is not at most 64 printable ASCII characters without spaces")
    if not 0 <= record.protocol <= 65535:
        raise ValueError(f"protocol version {record.protocol} of node {record.name!r} is not between 0 and 65535")


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _entries(txt: bytes) -> dict[str, str]:
    """The ``key=value`` strings of a TXT record; of a repeated key the first counts, as RFC 6763 has it."""
    entries: dict[str, str] = {}
    position = 0
    while position < len(txt):
        end = position + 1 + txt[position]
        if end > len(txt):
            raise ValueError(f"the TXT record ends {end - len(txt)} bytes before its string at byte {position} does")
        try:
            text = txt[position + 1 : end].decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"the TXT record's string at byte {position} is not UTF-8") from error
        key, equals, value = text.partition("=")
        if equals:
            entries.setdefault(key.lower(), value)
        position = end
    return entries
