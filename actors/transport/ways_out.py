"""The ways out of a process: Unix sockets within the host, gRPC through a node's door to others."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.address import host_key
from actors.transport.link import UnreachableError
from actors.transport.local_link import dial_local

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.address import Address
    from actors.transport.grpc_link import CredentialsFor, GrpcDialer
    from actors.transport.link import RawLink

TRANSPORT = "ACTORS_TRANSPORT"


def all_by_grpc() -> bool:
    """Whether processes of one host, too, are to talk by gRPC: ``ACTORS_TRANSPORT=grpc``, inherited by all."""
    return os.environ.get(TRANSPORT, "") == "grpc"


class WaysOut:
    """Dials processes here and elsewhere. See `actors.transport.link.Dialer`. gRPC is loaded when it is needed.

    Args:
        credentials: see `GrpcDialer`.
        node_address: finds where a node is now; None for one that is not known.
        lost: told of a node that did not answer there.
    """

    def __init__(
        self,
        credentials: CredentialsFor | None = None,
        node_address: Callable[[str], Awaitable[Address | None]] | None = None,
        lost: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.credentials_for = credentials
        self._node_address = node_address
        self._lost = lost
        self._grpc: GrpcDialer | None = None

    async def dial(self, address: Address, lane: str) -> RawLink:
        """See `actors.transport.link.Dialer`."""
        if address.host == host_key() and not all_by_grpc():
            return await dial_local(address.socket)
        if self._grpc is None:
            from actors.transport.grpc_link import GrpcDialer

            self._grpc = GrpcDialer(self.credentials_for)
        if address.doors or self._node_address is None:
            return await self._grpc.dial(address, lane)
        node = await self._node_address(address.node)
        if node is None:
            raise UnreachableError("its node is not known here")
        try:
            return await self._grpc.dial(replace(address, doors=node.doors), lane)
        except UnreachableError:
            self._lost(address.node)  # it may have moved
            raise

    async def close(self) -> None:
        """See `actors.transport.link.Dialer`."""
        if self._grpc is not None:
            await self._grpc.close()
