"""A rank of a job on the network."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from grpc import StatusCode

import actors.transport.aio  # noqa: F401 - before the first channel
from actors._wire import distributed_comm_pb2 as pb
from actors._wire import distributed_comm_pb2_grpc as pb_grpc
from actors.reach import shown_at
from actors.transport.credentials import channel_credentials, server_credentials
from actors.transport.fivecalls import SLACK_SECONDS, FiveCalls
from actors.transport.job import Job
from actors.transport.letterbox import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from actors.identity import Identity, TrustSet
    from actors.transport.letterbox import Member

MAX_PAYLOAD = 1 << 30

_OPTIONS = (
    ("grpc.max_send_message_length", MAX_PAYLOAD + (1 << 20)),
    ("grpc.max_receive_message_length", MAX_PAYLOAD + (1 << 20)),
    ("grpc.enable_http_proxy", 0),
)
_CHANNEL_OPTIONS = (
    *_OPTIONS,
    # Ranks start in any order: the first call should not wait long for the next try.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # a message sent twice would be received twice
)
_LEAVE_SECONDS = 2.0
_AGAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Trusted:
    """What a rank needs for ranks on other devices.

    Attributes:
        identity: this device's.
        trust: the devices that may take part, this one too.
    """

    identity: Identity
    trust: TrustSet


class Endpoint:
    """A rank on the network: its server, and a channel to every rank. All its methods run on one event loop.

    Args:
        member: who it is in its job.
        addresses: of all ranks.
        trusted: with it all connections are mutual TLS; without, they are in clear, for this machine alone.
    """

    def __init__(self, member: Member, addresses: Sequence[str], trusted: Trusted | None = None) -> None:
        self.member = member
        self._addresses = addresses
        self._trusted = trusted
        self._job = Job(member)
        # Without so_reuseport=0 two servers would share a port without a word.
        self._server = grpc.aio.server(options=(*_OPTIONS, ("grpc.so_reuseport", 0)))
        self._channels: dict[int, grpc.aio.Channel] = {}
        self._met: set[int] = set()

    @classmethod
    async def start(cls, member: Member, addresses: Sequence[str], trusted: Trusted | None = None) -> Endpoint:
        """Listens.

        Raises:
            OSError: it cannot, on that port.
        """
        _try_port(member.rank, addresses[member.rank])
        self = cls(member, addresses, trusted)
        pb_grpc.add_DistributedCommServicer_to_server(FiveCalls(self._job), self._server)  # type: ignore[no-untyped-call]
        try:
            if trusted is None:
                self._server.add_insecure_port(addresses[member.rank])
            else:
                credentials = server_credentials(trusted.identity, trusted.trust)
                self._server.add_secure_port(addresses[member.rank], credentials)
            await self._server.start()
        except BaseException:
            await self.leave()
            raise
        return self

    async def take(self, source: int, tag: str) -> pb.CommData:
        """Takes a message out of this rank's own letterbox."""
        return (await self._job.letterbox.take(source, tag, "", self.member.timeout)).data

    async def call(self, name: str, rank: int, request: Any) -> Any:
        """Calls a rank's server.

        Raises:
            Refused: it was not reached, or did not answer OK.
        """
        deadline = asyncio.get_running_loop().time() + self.member.timeout
        await self._meet(rank)
        left = deadline - asyncio.get_running_loop().time()
        stub = pb_grpc.DistributedCommStub(self._channels[rank])  # type: ignore[no-untyped-call]
        try:
            return await getattr(stub, name)(request, timeout=left + SLACK_SECONDS)
        except grpc.aio.AioRpcError as error:
            where = f"{name} at rank {rank} ({self._addresses[rank]})"
            raise Refused(error.code(), f"{where}: {error.details()}") from None

    async def _meet(self, rank: int) -> None:
        """Waits for a rank that has not been started yet; one that was there and is gone is not waited for."""
        if rank in self._met:
            return
        seconds = self.member.timeout
        try:
            async with asyncio.timeout(seconds):
                if rank not in self._channels:
                    self._channels[rank] = await self._channel(rank)
                await self._channels[rank].channel_ready()
        except TimeoutError:
            where = f"rank {rank} was not reached at {self._addresses[rank]} within {seconds:.3g} s"
            advice = "start it, and give all ranks the same base_port, host and addresses"
            raise Refused(StatusCode.DEADLINE_EXCEEDED, f"{where}: {advice}") from None
        self._met.add(rank)

    async def _channel(self, rank: int) -> grpc.aio.Channel:
        """Opens a channel, with TLS once it is known which device is there."""
        address, trusted = self._addresses[rank], self._trusted
        if trusted is None:
            return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS)
        while (node := await asyncio.to_thread(shown_at, address)) is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(_AGAIN_SECONDS)
        certificate = trusted.trust.get(node)
        if certificate is None:
            raise Refused(
                StatusCode.PERMISSION_DENIED,
                f"the device at {address}, where rank {rank} should be, is not paired with this one: run `actors "
                "invite` on one of them and `actors join CODE` on the other",
            )
        credentials, options = channel_credentials(trusted.identity, certificate)
        return grpc.aio.secure_channel(address, credentials, options=(*_CHANNEL_OPTIONS, *options))

    async def leave(self) -> None:
        """Fails what waits here, lets answers under way arrive, and closes everything."""
        self._job.close()
        await self._server.stop(_LEAVE_SECONDS)
        for channel in self._channels.values():
            await channel.close(None)


def _try_port(rank: int, address: str) -> None:
    """Binds and lets go of a port, since gRPC does not say why it cannot.

    Raises:
        OSError: the message names the port and says what to do.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As gRPC does: the connections of a job that has just ended are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise OSError(
                error.errno, f"port {port} on {host}, where rank {rank} would listen, {what}: choose another base_port"
            ) from error
