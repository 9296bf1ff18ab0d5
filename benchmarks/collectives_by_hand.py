"""An all-reduce of two ranks on two hosts, by hand: what two processes on each must do, and nothing else.

On each host one process has the port: it writes each chunk that comes to memory that both map, and says so by a byte
in a pipe. The other is the rank: it cuts its chunks out of its array, sends them, adds up what comes of its own half,
sends that, and takes the other half out of the memory. No numbers, acknowledgements, credit, errors or deadlines.

python benchmarks/collectives_by_hand.py rank FOLDER NUMBER HOST HOST
python benchmarks/collectives_by_hand.py door FOLDER NUMBER MEMORY PIPE
"""

from __future__ import annotations

import asyncio
import mmap
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from collectives_lan import PATIENCE, PAYLOAD, serve
from lan_tls import CHUNK, identity

from actors.identity import TrustSet
from actors.transport.credentials import channel_credentials, server_credentials
from actors.transport.options import channel_options, server_options

PORT, CHUNKS = 50104, "/hand.Hand/Chunks"
NAMES = ("first", "second")
EACH = PAYLOAD // 2 // CHUNK  # chunks of a half


def keys(folder: Path, number: int) -> tuple[Any, Any]:
    """Returns this end's key and the other's."""
    return identity(folder, NAMES[number]), identity(folder, NAMES[1 - number])


async def door(folder: Path, number: int, memory: Path, pipe: int) -> None:
    """Has the port, until standard input ends."""
    mine, theirs = keys(folder, number)
    with memory.open("r+b") as file:
        landing = mmap.mmap(file.fileno(), PAYLOAD)

    async def land(requests: Any, _: Any) -> bytes:
        at = 0
        async for chunk in requests:
            landing[at : at + len(chunk)] = chunk
            at += len(chunk)
            os.write(pipe, b".")
        return b""

    server = grpc.aio.server(options=server_options())
    service, _, method = CHUNKS[1:].partition("/")
    handler = grpc.stream_unary_rpc_method_handler(land)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    trust = TrustSet([mine.certificate, theirs.certificate])
    server.add_secure_port(f"0.0.0.0:{PORT}", server_credentials(mine, trust))
    await server.start()
    os.write(pipe, b".")
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


class Rank:
    """The rank: its array, and where what comes is landed."""

    def __init__(self, number: int, landing: mmap.mmap, pipe: int) -> None:
        self._data, self._result = np.ones(PAYLOAD // 4, np.float32), np.empty(PAYLOAD // 4, np.float32)
        self._landed = np.frombuffer(landing, np.float32).reshape(2 * EACH, -1)
        self._pipe = pipe
        own, other = (self._data.reshape(2, EACH, -1)[half] for half in (number, 1 - number))
        total, taken = (self._result.reshape(2, EACH, -1)[half] for half in (number, 1 - number))
        self._own, self._other, self._total, self._taken = own, other, total, taken

    async def send(self, channel: grpc.aio.Channel, reduced: asyncio.Queue[int]) -> None:
        """Sends the half that is not its own, then what its own comes to."""
        call = channel.stream_unary(CHUNKS)()
        for chunk in self._other:
            await call.write(bytes(memoryview(chunk).cast("B")))
        for _ in range(EACH):
            await call.write(bytes(memoryview(self._total[await reduced.get()]).cast("B")))
        await call.done_writing()
        await call

    def take(self, loop: asyncio.AbstractEventLoop, reduced: asyncio.Queue[int]) -> None:
        """Works on the chunks as they come."""
        come = 0
        while come < 2 * EACH:
            for number in range(come, come + len(os.read(self._pipe, 2 * EACH))):
                if number < EACH:
                    np.add(self._own[number], self._landed[number], out=self._total[number])
                    loop.call_soon_threadsafe(reduced.put_nowait, number)
                else:
                    np.copyto(self._taken[number - EACH], self._landed[number])
                come += 1
        assert self._result[0] == self._result[-1] == 2


def rank(folder: Path, number: int, hosts: list[str]) -> None:
    """Takes part where it is told to."""
    mine, theirs = keys(folder, number)
    reading, writing = os.pipe()
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(bytes(PAYLOAD))
        file.flush()
        landing = mmap.mmap(file.fileno(), PAYLOAD)
        words = [sys.executable, __file__, "door", str(folder), str(number), file.name, str(writing)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[writing])
        os.read(reading, 1)
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    me = Rank(number, landing, reading)

    async def connected() -> grpc.aio.Channel:
        credentials, options = channel_credentials(mine, theirs.certificate)
        where = f"{hosts[1 - number]}:{PORT}"
        channel = grpc.aio.secure_channel(where, credentials, options=(*channel_options(), *options))
        await channel.channel_ready()
        return channel

    channel = asyncio.run_coroutine_threadsafe(connected(), loop).result(PATIENCE)

    def turn() -> float:
        reduced: asyncio.Queue[int] = asyncio.Queue()
        begun = time.perf_counter()
        sending = asyncio.run_coroutine_threadsafe(me.send(channel, reduced), loop)
        me.take(loop, reduced)
        sending.result(PATIENCE)
        return time.perf_counter() - begun

    serve(turn)
    asyncio.run_coroutine_threadsafe(channel.close(), loop).result(PATIENCE)
    process.communicate(timeout=PATIENCE)


if __name__ == "__main__":
    if sys.argv[1] == "door":
        asyncio.run(door(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])))
    else:
        rank(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:6])
