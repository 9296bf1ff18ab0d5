"""The two ends of `lan.py`'s part ``tls``: one transport with mutual TLS and one that this file builds without.

python benchmarks/lan_tls.py serve FOLDER
python benchmarks/lan_tls.py call FOLDER HOST
"""

from __future__ import annotations

import json
import mmap
import statistics
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental
import numpy as np

from actors.address import Address
from actors.identity import Identity, TrustSet
from actors.ids import new_id
from actors.process import Process
from actors.transport.bulk import CHUNK_BYTES
from actors.transport.credentials import channel_credentials, peer_node_id, server_credentials
from actors.transport.options import channel_options, server_options

SECURE, PLAIN, RAW, BARE = 50101, 50102, 50103, 50105
CALLS, ROUNDS = 300, 7
LARGE, CHUNK = 64 << 20, CHUNK_BYTES  # what a raw stream does best with, too
CHUNKS, LANDED, PING = "/raw.Raw/Chunks", "/raw.Raw/Landed", "/raw.Raw/Ping"
DATA = np.frombuffer(bytes(LARGE), np.uint8)


class Echo:
    """The service that is called."""

    async def echo(self, _: Any, value: object) -> object:
        """Returns what came."""
        return value

    async def take(self, _: Any, data: Any) -> int:
        """Returns how much came."""
        return int(data.nbytes)


def identity(folder: Path, who: str) -> Identity:
    """The key of one end."""
    place = folder / who
    place.mkdir(mode=0o700, exist_ok=True)
    return Identity.load_or_create(place)


async def _chunks(requests: Any, _: Any) -> bytes:
    total = 0
    async for chunk in requests:
        total += len(chunk)
    return str(total).encode()


async def _landed(requests: Any, _: Any) -> bytes:
    """Writes the chunks to memory that another process could map, as who relays them to one must."""
    at = 0
    async for chunk in requests:
        _memory()[at : at + len(chunk)] = chunk
        at += len(chunk)
    return str(at).encode()


async def _ping(_: Any, context: Any) -> None:
    while isinstance(message := await context.read(), bytes):
        await context.write(message)


@cache
def _memory() -> mmap.mmap:
    with tempfile.TemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(bytes(LARGE))
        file.flush()
        return mmap.mmap(file.fileno(), LARGE)


async def _serve(process: Process, mine: Identity, theirs: Identity) -> grpc.aio.Server:
    trust = TrustSet([mine.certificate, theirs.certificate])
    await process.server.listen_door(
        f"0.0.0.0:{SECURE}", server_credentials(mine, trust), lambda c: peer_node_id(c.auth_context(), trust)
    )
    # What the door does, on a port without TLS.
    plain = process.server._by_grpc()
    plain._member = lambda context: peer_node_id(context.auth_context(), trust) or theirs.node_id
    open_to_all = plain._server(plain._serve_door, server_options())
    open_to_all.add_insecure_port(f"0.0.0.0:{PLAIN}")
    await open_to_all.start()
    return await serve_raw(mine, trust)


async def serve_raw(mine: Identity, trust: TrustSet) -> grpc.aio.Server:
    """Serves the raw streams: one counts what it is sent, one writes it to shared memory, one sends it back."""
    raw = grpc.aio.server(options=server_options())
    _memory()
    service = CHUNKS[1:].split("/", maxsplit=1)[0]
    handlers = {
        way.rpartition("/")[2]: grpc.stream_unary_rpc_method_handler(handler)
        for way, handler in ((CHUNKS, _chunks), (LANDED, _landed))
    }
    handlers[PING.rpartition("/")[2]] = grpc.stream_stream_rpc_method_handler(_ping)
    raw.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    raw.add_secure_port(f"0.0.0.0:{RAW}", server_credentials(mine, trust))
    raw.add_insecure_port(f"0.0.0.0:{BARE}")
    await raw.start()
    return raw


def serve(folder: Path) -> None:
    """Serves until standard input ends."""
    mine, theirs = identity(folder, "server"), identity(folder, "client")
    process = Process("node-served", folder, mine.node_id, "server")
    process.serve("echo", Echo())
    raw = process.portal.run(_serve(process, mine, theirs))
    print("ready", flush=True)
    sys.stdin.read()
    process.portal.run(raw.stop(None))


async def _latency(process: Process, where: Address) -> float:
    times = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        await process.ask(where, "echo", "echo", 1)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


async def _throughput(process: Process, where: Address) -> float:
    begun = time.perf_counter()
    assert await process.ask(where, "echo", "take", DATA) == LARGE
    return LARGE / (time.perf_counter() - begun)


async def raw_latency(host: str, mine: Identity, certificate: bytes) -> float:
    """Seconds that a small message takes there and back on one stream, the median; see `raw_throughput`."""
    credentials, options = channel_credentials(mine, certificate)
    times = []
    async with grpc.aio.secure_channel(f"{host}:{RAW}", credentials, options=(*channel_options(), *options)) as channel:
        call = channel.stream_stream(PING)()
        for _ in range(CALLS):
            begun = time.perf_counter()
            await call.write(b"1")
            assert await call.read() == b"1"
            times.append(time.perf_counter() - begun)
        call.cancel()
    return statistics.median(times)


async def raw_throughput(
    host: str, mine: Identity, certificate: bytes | None, value: np.ndarray | None = None
) -> float:
    """Bytes a second of one stream of chunks.

    Args:
        host: serves it.
        mine: this end's key.
        certificate: the other end's; None does without TLS.
        value: what is sent, and written to shared memory there; None sends one chunk again and again.
    """
    if certificate is None:
        opened = grpc.aio.insecure_channel(f"{host}:{BARE}", options=channel_options())
    else:
        credentials, options = channel_credentials(mine, certificate)
        opened = grpc.aio.secure_channel(f"{host}:{RAW}", credentials, options=(*channel_options(), *options))
    async with opened as channel:
        await channel.channel_ready()
        chunk = bytes(CHUNK)
        begun = time.perf_counter()
        if value is not None:
            view = memoryview(value)
        call = channel.stream_unary(CHUNKS if value is None else LANDED)()
        for start in range(0, LARGE, CHUNK):
            await call.write(chunk if value is None else bytes(view[start : start + CHUNK]))
        await call.done_writing()
        assert int(await call) == LARGE
        return LARGE / (time.perf_counter() - begun)


def call(folder: Path, host: str) -> None:
    """Prints the ratios."""
    mine, theirs = identity(folder, "client"), identity(folder, "server")

    def secure(_: str) -> Any:
        return channel_credentials(mine, theirs.certificate)

    def plain(_: str) -> Any:
        return grpc.experimental.insecure_channel_credentials(), ()

    ways = {}
    for name, credentials, port in (("with TLS", secure, SECURE), ("without", plain, PLAIN)):
        process = Process(new_id("driver"), folder, mine.node_id, "client", credentials)
        where = Address("node-served", "", "", theirs.node_id, (f"{host}:{port}",), "server")
        process.directory[where.node] = where
        ways[name] = process, where
    latency: dict[str, list[float]] = {name: [] for name in (*ways, "raw")}
    large: dict[str, list[float]] = {name: [] for name in (*ways, "raw")}
    for _ in range(ROUNDS):  # by turns: what else the machine does meets all alike
        for name, (process, where) in ways.items():
            latency[name].append(process.portal.run(_latency(process, where)))
            large[name].append(process.portal.run(_throughput(process, where)))
        latency["raw"].append(process.portal.run(raw_latency(host, mine, theirs.certificate), 60))
        large["raw"].append(process.portal.run(raw_throughput(host, mine, theirs.certificate), 60))

    def call_ratio(other: str) -> float:
        return statistics.median(a / b for a, b in zip(latency["with TLS"], latency[other], strict=True))

    found = {
        "a call with TLS over one without": call_ratio("without"),
        "a call with TLS over a ping-pong on a raw gRPC stream with TLS": call_ratio("raw"),
        "64 MiB with TLS over a raw gRPC stream with TLS": max(large["with TLS"]) / max(large["raw"]),
        "64 MiB with TLS over the same without": max(large["with TLS"]) / max(large["without"]),
    }
    print(json.dumps(found), flush=True)
    for process, _ in ways.values():
        process.portal.run(process.close("done"))
        process.portal.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        call(Path(sys.argv[2]), sys.argv[3])
