"""Links over gRPC: the `Stream` call of the schema, dialled and served."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import grpc

import actors.transport.aio  # noqa: F401 - before the first channel
from actors.address import host_key
from actors.transport.core_call import AVAILABLE, DialledCall
from actors.transport.core_link import CoreLink
from actors.transport.doors import Doors
from actors.transport.framing import Framing
from actors.transport.knock import DIAL_SECONDS, probe_door, probe_socket, target
from actors.transport.link import INQUIRY, LinkLostError, UnreachableError
from actors.transport.options import channel_options, unix_channel_options
from actors.transport.proved import Proved
from actors.transport.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from actors.address import Address
    from actors.transport.link import RawLink

PROMPT_SECONDS = 0.3
"""By then a door on the LAN has answered, if it does."""

STREAM = "/distributed_comm.DistributedComm/Stream"


class _Stream(Protocol):
    """What grpc's client call and server context have in common."""

    async def read(self) -> Any: ...
    async def write(self, message: bytes) -> None: ...


class GrpcLink(Framing):
    """One end of a `Stream` call."""

    def __init__(self, stream: _Stream, node: str | None = None) -> None:
        self.node = node
        self._stream = stream
        self._traffic = Traffic(node, "grpc")
        self._ended = asyncio.Event()
        self._writing = asyncio.Lock()  # a second write under way would end the stream

    async def read_bytes(self) -> bytes | None:
        """Returns the next frame unparsed, or None at the end."""
        try:
            data = await self._stream.read()
        except (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.InternalError):
            return None
        if not isinstance(data, bytes):
            return None
        self._traffic.received += len(data)
        return data

    async def write_bytes(self, data: bytes) -> None:
        """Writes a frame that is already serialised."""
        try:
            async with self._writing:
                await self._stream.write(data)
                self._traffic.sent += len(data)
        except (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.InternalError) as error:
            raise LinkLostError(str(error)) from error

    async def close(self) -> None:
        """See `Link`."""
        self._traffic.over()
        self._ended.set()

    async def closed(self) -> None:
        """Waits until this end has been closed."""
        await self._ended.wait()


class DialledLink(GrpcLink):
    """The dialling end; it owns its channel."""

    def __init__(self, channel: grpc.aio.Channel, call: Any, node: str | None) -> None:
        super().__init__(call, node)
        self._channel = channel
        self._call = call

    async def close(self) -> None:
        """See `Link`."""
        await super().close()
        self._call.cancel()  # an abandoned aio stream is never cancelled by itself
        await self._channel.close(None)


class AskedLink(DialledLink):
    """A link by which was asked who is there; once that is known, its channel is the next one's."""

    def __init__(self, channel: grpc.aio.Channel, node: str, door: str, proved: Proved) -> None:
        super().__init__(channel, _stream(channel), node)
        self._door = door
        self._proved = proved

    async def close(self) -> None:
        """See `Link`."""
        assert self.node is not None
        if not self._traffic.received:
            await super().close()
            return
        await GrpcLink.close(self)
        self._call.cancel()
        self._proved.keep(self.node, self._door, self._channel)


class GrpcDialer:
    """Dials the Unix socket of a process on this host, and the door of its node for one elsewhere.

    Args:
        credentials: gives the channel credentials and options for the node with this id; None where this process
            may only talk to its own host.
    """

    def __init__(self, credentials: CredentialsFor | None = None) -> None:
        self.credentials_for = credentials
        self._doors = Doors()
        self._proved = Proved()

    async def dial(self, address: Address, lane: str) -> RawLink:
        """See `Dialer`; each lane is a connection of its own."""
        if address.host == host_key():
            await probe_socket(address.socket)
            return await _open_socket(address.socket)
        return await self._dial_door(address, lane)

    async def _dial_door(self, address: Address, lane: str) -> RawLink:
        if not address.doors:
            raise UnreachableError("its node has no door that is open to other hosts")
        if self.credentials_for is None:
            raise UnreachableError("this process has no key to show at another device's door")
        credentials, options = self.credentials_for(address.node)
        proved = self._proved.take(address.node, address.doors)
        if proved is not None:
            return DialledLink(proved, _stream(proved), address.node)

        async def up(door: str) -> grpc.aio.Channel:
            return await _up(
                grpc.aio.secure_channel(target(door), credentials, options=(*channel_options(), *options)), door
            )

        async def attempt(door: str) -> DialledLink:
            channel = await _up_or_gone(door, up)
            if lane == INQUIRY:
                return AskedLink(channel, address.node, door, self._proved)
            return DialledLink(channel, _stream(channel), address.node)

        return await self._doors.open(address.node, address.doors, attempt)

    async def close(self) -> None:
        """See `Dialer`; other channels belong to their links."""
        await self._proved.close()


class CredentialsFor(Protocol):
    """Looks up how to prove this device to a node, and how to tell that it is that node."""

    def __call__(self, node: str) -> tuple[grpc.ChannelCredentials, tuple[tuple[str, Any], ...]]:
        """Raises GoneError where the node is not trusted."""


async def _open_socket(path: str) -> RawLink:
    where, options = f"unix:{path}", unix_channel_options()
    if not AVAILABLE:
        plain = await _up(grpc.aio.insecure_channel(where, options=options), path)
        return DialledLink(plain, _stream(plain), None)
    channel = grpc.insecure_channel(where, options=options)
    try:
        return CoreLink(DialledCall(channel, STREAM), asyncio.get_running_loop())
    except BaseException:
        channel.close()
        raise


async def _up_or_gone(door: str, up: Callable[[str], Awaitable[grpc.aio.Channel]]) -> grpc.aio.Channel:
    """Returns a channel to a door that is up.

    gRPC does not say why it has none. So whether anybody listens is found out aside, and only where it has none soon: a
    connection that says nothing costs the other side as much as the beginning of a real one.

    Raises:
        GoneError: nothing listens there.
        UnreachableError: no answer.
    """
    opening = asyncio.ensure_future(up(door))
    try:
        await asyncio.wait({opening}, timeout=PROMPT_SECONDS)
        promptly = opening.done()
        if not promptly or opening.exception() is not None:
            await probe_door(door)
            if not promptly and opening.done() and opening.exception() is not None:
                return await up(door)  # the network was not there yet
        return await opening
    except BaseException:
        if not opening.cancel():
            with contextlib.suppress(Exception):
                await opening.result().close(None)
        raise


async def _up(channel: grpc.aio.Channel, where: str) -> grpc.aio.Channel:
    """Returns the channel when it is up; closes it where it does not come up."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise UnreachableError(f"no connection to {where}")
                await channel.wait_for_state_change(state)
    except TimeoutError as error:
        await channel.close(None)
        raise UnreachableError(f"{where} did not answer within {DIAL_SECONDS:g} s") from error
    except BaseException:
        await channel.close(None)
        raise
    return channel


def _stream(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(STREAM, None, None)(None)
