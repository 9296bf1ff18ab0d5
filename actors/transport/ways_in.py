"""The ways into a process: its socket and, at a node, the door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.transport.local_server import LocalServer
from actors.transport.reception import Reception
from actors.transport.ways_out import all_by_grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import grpc

    from actors.address import Address
    from actors.public import Part
    from actors.transport.acceptor import Acceptor
    from actors.transport.grpc_server import StreamServer
    from actors.transport.link import Dialer


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
        self, address: str, credentials: Callable[[], grpc.ServerCredentials], member: Callable[[Any], str | None]
    ) -> int:
        """See `StreamServer`; the credentials are made here."""
        return await self._by_grpc().listen_door(address, credentials(), member)

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
