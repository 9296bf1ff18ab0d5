"""The ways in and out of a process: Unix sockets within the host, gRPC through a node's door to others."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from actors.address import host_key
from actors.transport.link import UnreachableError
from actors.transport.local_link import dial_local
from actors.transport.local_server import LocalServer
from actors.transport.reception import Reception

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import grpc

    from actors.address import Address
    from actors.public import Part
    from actors.transport.acceptor import Acceptor
    from actors.transport.grpc_link import CredentialsFor, GrpcDialer
    from actors.transport.grpc_server import StreamServer
    from actors.transport.link import Dialer, RawLink

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


class WaysIn:
    """Where others come in: the socket of this process and, at a node, the door.

    Args:
        me: id of this process.
        acceptor: takes the links that are meant for this process.
    """

    def __init__(self, me: str, acceptor: Acceptor) -> None:
        self._reception = Reception(me, acceptor)
        self._local: LocalServer | None = None
        self._grpc: StreamServer | None = None
        self._public: Callable[[str, str, str, Sequence[Part], float], Awaitable[Part]] | None = None

    def relay_to(self, route: Callable[[str], Address | None], dialer: Dialer) -> None:
        """See `Reception`."""
        self._reception.relay_to(route, dialer)

    def serve_public(self, call: Callable[[str, str, str, Sequence[Part], float], Awaitable[Part]]) -> None:
        """Takes public calls at the door; see `actors.transport.public`."""
        self._public = call

    async def listen_socket(self, path: str) -> None:
        """Listens on a Unix socket, in a folder that only this user may enter."""
        if all_by_grpc():
            await self._by_grpc().listen_socket(path)
        else:
            self._local = LocalServer(self._reception)
            await self._local.listen(path)

    async def listen_door(
        self, address: str, credentials: grpc.ServerCredentials, member: Callable[[Any], str | None]
    ) -> int:
        """See `StreamServer`."""
        return await self._by_grpc().listen_door(address, credentials, member)

    async def close_door(self) -> None:
        """See `StreamServer`."""
        if self._grpc is not None:
            await self._grpc.close_door()

    async def evict(self, node: str) -> None:
        """See `StreamServer`."""
        if self._grpc is not None:
            await self._grpc.evict(node)

    def _by_grpc(self) -> StreamServer:
        if self._grpc is None:
            from actors.transport.grpc_server import StreamServer

            self._grpc = StreamServer(self._reception)
            self._grpc.public = self._public
        return self._grpc

    async def close(self) -> None:
        """Ends all links and stops listening."""
        if self._local is not None:
            await self._local.close()
        if self._grpc is not None:
            await self._grpc.close()
