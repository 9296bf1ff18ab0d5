"""The gRPC servers of a process: its Unix socket, and a node's door."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from actors._wire import distributed_comm_pb2 as pb
from actors.refusals import refused
from actors.transport.core_call import AVAILABLE
from actors.transport.core_server import CoreServer
from actors.transport.fivecalls import FiveCalls
from actors.transport.grpc_link import STREAM, GrpcLink
from actors.transport.options import server_options, unix_server_options
from actors.transport.public import PublicCalls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from actors.public import Part
    from actors.transport.core_link import CoreLink
    from actors.transport.reception import Reception

_SERVICE, _METHOD = STREAM[1:].split("/")
_SHORT_NAME = _SERVICE.rpartition(".")[2]
_PUBLIC = "Call"
CLOSE_SECONDS = 0.2  # for what was written last


class StreamServer:
    """Serves the `Stream` call.

    Args:
        reception: takes the streams that come in.

    Attributes:
        public: calls a public method of a named actor, for `PublicCalls`; None where that is not served.
    """

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self.public: Callable[[str, str, str, Sequence[Part], float], Awaitable[Part]] | None = None
        self._member: Callable[[Any], str | None] | None = None
        self._servers: list[grpc.aio.Server] = []
        self._door: grpc.aio.Server | None = None
        self._links: set[GrpcLink | CoreLink] = set()
        self._core: CoreServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen_socket(self, path: str) -> None:
        """Listens on a Unix socket, in a folder that only this user may enter."""
        if AVAILABLE:
            self._core = CoreServer(path, STREAM, unix_server_options(), self._came)
            return
        server = self._server(self._serve_local, unix_server_options())
        server.add_insecure_port(f"unix:{path}")
        await server.start()

    async def listen_door(
        self,
        address: str,
        credentials: grpc.ServerCredentials,
        member: Callable[[Any], str | None],
    ) -> int:
        """Listens with mutual TLS at ``"HOST:PORT"``; port 0 takes a free one. Returns the port.

        Args:
            address: host and port.
            credentials: which demand and check the client's certificate.
            member: says which member of the cluster a caller is, by gRPC's context of its call; None for a stranger.
        """
        self._member = member
        server = self._server(self._serve_door, server_options())
        handlers = _five_calls()
        if self.public is not None:
            calls = PublicCalls(self.public, member)
            handlers[_PUBLIC] = grpc.unary_unary_rpc_method_handler(
                calls.serve, pb.PublicCall.FromString, pb.PublicReply.SerializeToString
            )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        try:
            port = int(server.add_secure_port(address, credentials))
        except BaseException:
            self._servers.remove(server)
            raise
        await server.start()
        self._door = server
        return port

    async def close_door(self) -> None:
        """Ends all streams that came in by the door, and listens there no more."""
        for link in [link for link in self._links if link.node is not None]:
            await link.close()
        door, self._door = self._door, None
        if door is not None:
            self._servers.remove(door)
            await door.stop(CLOSE_SECONDS)

    async def evict(self, node: str) -> None:
        """Ends the streams of a device."""
        for link in [link for link in self._links if link.node == node]:
            await link.close()

    def _server(self, serve: Any, options: Any) -> grpc.aio.Server:
        handler = grpc.stream_stream_rpc_method_handler(serve)
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
        self._servers.append(server)
        return server

    def _came(self, link: CoreLink) -> None:
        task = asyncio.get_running_loop().create_task(self._serve_core(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_core(self, link: CoreLink) -> None:
        self._links.add(link)
        try:
            await self._reception.greet(link)
        finally:
            await link.close()
            self._links.discard(link)

    async def _serve_local(self, _: Any, context: Any) -> None:
        await context.send_initial_metadata(())  # see _serve
        await self._serve(GrpcLink(context))

    async def _serve_door(self, _: Any, context: Any) -> None:
        node = self._member(context) if self._member is not None else None
        if node is None:
            refused("a stranger at the door")
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this device is not a member of the cluster")
        await context.send_initial_metadata(())  # see _serve
        await self._serve(GrpcLink(context, node))

    async def _serve(self, link: GrpcLink) -> None:
        # Each caller of this has sent the initial metadata: grpc.aio sends it with the first write, and were that
        # write cancelled, the stream would never end.
        self._links.add(link)
        work = asyncio.create_task(self._reception.greet(link))
        closed = asyncio.create_task(link.closed())
        try:
            # The handler's return ends the stream: a reader that waits for the client would hold it open.
            await asyncio.wait({work, closed}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            closed.cancel()
            await asyncio.gather(work, closed, return_exceptions=True)
            self._links.discard(link)

    async def close(self) -> None:
        """Ends all streams and stops listening."""
        for link in list(self._links):
            await link.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
        if self._core is not None:
            await self._core.close()
        for server in self._servers:
            # Without the grace a goodbye just written would be cut off.
            await server.stop(CLOSE_SECONDS)
        self._servers.clear()


def _five_calls() -> dict[str, grpc.RpcMethodHandler[Any, Any]]:
    """Returns the handlers of the schema's other calls.

    Not by the generated function, which registers a parsing `Stream` too, and that would come before ours.
    """
    servicer = FiveCalls()
    handlers = {}
    for method in pb.DESCRIPTOR.services_by_name[_SHORT_NAME].methods:
        if method.name in {_METHOD, _PUBLIC}:
            continue
        kind = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        request = getattr(pb, method.input_type.name)
        answer = getattr(pb, method.output_type.name)
        handlers[method.name] = kind(getattr(servicer, method.name), request.FromString, answer.SerializeToString)
    return handlers
