"""This device's place among others: its key, and whom it trusts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.identity import Identity, TrustSet

if TYPE_CHECKING:
    from pathlib import Path

    import grpc

    from actors.transport.grpc_link import CredentialsFor

TRUST = "trust"


def load(folder: Path) -> tuple[Identity, TrustSet]:
    """Reads a device's identity and the certificates it trusts from its folder."""
    return Identity.load(folder), TrustSet.load(folder / TRUST)


def credentials_from(folder: Path) -> CredentialsFor:
    """Returns what a process needs to be let in at other devices' doors; nothing is read before the first use."""

    def credentials_for(node: str) -> tuple[grpc.ChannelCredentials, tuple[tuple[str, Any], ...]]:
        from actors.transport.credentials import channel_credentials
        from actors.transport.link import GoneError

        identity, certificate = Identity.load(folder), TrustSet.load_one(folder / TRUST, node)
        if certificate is None:
            raise GoneError(f"device {node} is not trusted by this one", node_too=True)
        return channel_credentials(identity, certificate)

    return credentials_for
