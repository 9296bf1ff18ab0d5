"""Read by each interpreter of the side ``ours-tcp`` as it starts: what goes by gRPC goes over TCP on loopback.

The processes of a host meet at Unix sockets, and only devices by TCP, with TLS. So this gives each process a port
beside its socket, whose number lies beside that in a file, and has callers dial the port. No TLS, and no relay.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc

from actors.transport import core_server, grpc_link
from actors.transport.core_call import DialledCall, cygrpc
from actors.transport.core_link import CoreLink
from actors.transport.options import channel_options, server_options


class _Server(cygrpc.Server):  # type: ignore[misc]
    def __new__(cls, _: object, *more: object) -> Any:
        return super().__new__(cls, server_options(), *more)

    def __init__(self, *_: object) -> None:
        """`__new__` has done it."""

    def add_http2_port(self, address: bytes) -> int:
        port = int(super().add_http2_port(b"127.0.0.1:0"))
        Path(address.decode().removeprefix("unix:") + ".port").write_text(str(port))
        return int(super().add_http2_port(address))  # where is looked whether the process is there


async def _open_socket(path: str) -> CoreLink:
    port = Path(f"{path}.port").read_text()  # noqa: ASYNC240 - a few bytes of this machine's memory
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=channel_options())
    return CoreLink(DialledCall(channel, grpc_link.STREAM), asyncio.get_running_loop())


core_server.cygrpc = SimpleNamespace(
    Server=_Server, CompletionQueue=cygrpc.CompletionQueue, StatusCode=cygrpc.StatusCode
)
grpc_link._open_socket = _open_socket  # type: ignore[assignment]
