"""The least that a hop takes: 2.3 kB there and back between two processes that do nothing else.

    python benchmarks/models_floor.py

A hop is a message to the next stage, and one back. Within a host: a Unix socket whose ends two threads block at. By
gRPC: one stream on loopback, in clear and with mutual TLS, whose far end is a thread of grpc's own server; the near end
is grpc.aio's on an event loop, or a thread that waits in gRPC's core itself, as `actors.transport.core_call` does it.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import grpc

import actors.transport.aio  # noqa: F401 - before the first channel
from actors.identity import Identity, TrustSet
from actors.transport.core_call import DialledCall, Event
from actors.transport.credentials import channel_credentials, server_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NBYTES: Final = 2304
TIMES: Final = 2000
ECHO: Final = """
import socket, sys
far = socket.socket(fileno=int(sys.argv[1]))
while data := far.recv(4096):
    far.sendall(data)
"""
STREAM: Final = "/floor.Floor/Stream"


def floors(say: Callable[[str, float, str], None]) -> None:
    """What 2.3 kB there and back take, with nothing else in either process."""
    say("floor: a Unix socket, threads that block at it, us", _socket(), "")
    for secure, what in ((False, "in clear"), (True, "with mutual TLS")):
        say(f"floor: a gRPC stream {what}, by an event loop, us", _grpc(_by_loop, secure=secure), "")
        say(f"floor: a gRPC stream {what}, by a thread in its core, us", _grpc(_in_core, secure=secure), "")


def _socket() -> float:
    near, far = socket.socketpair()
    child = subprocess.Popen([sys.executable, "-c", ECHO, str(far.fileno())], pass_fds=[far.fileno()])
    far.close()

    def once() -> None:
        near.sendall(bytes(NBYTES))
        near.recv(NBYTES)

    try:
        return _median(once)
    finally:
        near.close()
        child.wait()


def _grpc(measure: Callable[[Any], float], *, secure: bool) -> float:
    """Measures over a channel, of the kind that `measure` is for, to a server in a process of its own."""
    mine, yours = Identity.create(), Identity.create()
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", *(["secure"] if secure else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        for part in (yours.private_key, yours.certificate, mine.certificate):
            server.stdin.write(len(part).to_bytes(4, "little") + part)
        server.stdin.flush()
        address = f"127.0.0.1:{int(server.stdout.readline())}"
        return measure((address, *channel_credentials(mine, yours.certificate)) if secure else (address,))
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def _by_loop(where: Any) -> float:
    async def run() -> float:
        channel = grpc.aio.secure_channel(*where) if len(where) > 1 else grpc.aio.insecure_channel(*where)
        async with channel:
            stream = channel.stream_stream(STREAM, None, None)(None)
            took = []
            for _ in range(TIMES):
                start = time.perf_counter()
                await stream.write(bytes(NBYTES))
                await stream.read()
                took.append(time.perf_counter() - start)
            await stream.done_writing()
            await stream.read()
            return statistics.median(took) * 1e6

    return asyncio.run(run())


def _in_core(where: Any) -> float:
    channel = grpc.secure_channel(*where) if len(where) > 1 else grpc.insecure_channel(*where)
    call = DialledCall(channel, STREAM)
    sent = [True]

    def until(wanted: Event) -> None:
        while (event := call.next()[0]) is not wanted:
            sent[0] = sent[0] or event is Event.SENT

    def once() -> None:
        if not sent[0]:
            until(Event.SENT)
        sent[0] = False
        call.send(bytes(NBYTES))
        call.receive()
        until(Event.MESSAGE)

    try:
        return _median(once)
    finally:
        call.cancel()
        until(Event.OVER)
        call.drain()


def _median(once: Callable[[], None]) -> float:
    took = []
    for _ in range(TIMES):
        start = time.perf_counter()
        once()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e6


def _serve(secure: bool) -> None:
    def echo(messages: Iterator[bytes], _: Any) -> Iterator[bytes]:
        yield from messages

    key, certificate, theirs = (sys.stdin.buffer.read(_length()) for _ in range(3))
    server = grpc.server(ThreadPoolExecutor(2))
    service, method = STREAM[1:].split("/")
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    if secure:
        identity = Identity("", certificate, key)
        port = server.add_secure_port("127.0.0.1:0", server_credentials(identity, TrustSet([theirs])))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.buffer.read()
    server.stop(0).wait()


def _length() -> int:
    return int.from_bytes(sys.stdin.buffer.read(4), "little")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        _serve("secure" in sys.argv)
    else:
        floors(lambda what, value, _: print(f"{what:<66} {value:>7.0f}"))
