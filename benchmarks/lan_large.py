"""The two ends of `lan.py`'s part ``large``: 64 MiB to an actor of another device and back, beside a raw gRPC stream.

First small calls to it, beside a ping-pong on such a stream.

And beside a raw stream that does what cannot be spared, and nothing else: its sender copies the value once, so that it
may be changed, its receiver writes the bytes to memory that the actor's process could map.

python benchmarks/lan_large.py serve FOLDER
python benchmarks/lan_large.py call FOLDER HOST NODE
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from lan_tls import CALLS, LARGE, identity, raw_latency, raw_throughput, serve_raw

import actors
from actors.identity import TrustSet

ROUNDS, SMALL_ROUNDS = 25, 7


@actors.remote
class Keeper:
    """Takes and gives what is large."""

    def __init__(self) -> None:
        self._data = np.ones(LARGE, np.uint8)

    def take(self, data: np.ndarray) -> int:
        """Returns how much came."""
        return int(data.nbytes)

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return value

    def give(self) -> np.ndarray:
        """Returns as much."""
        return self._data


def serve(folder: Path) -> None:
    """Serves the raw stream until standard input ends."""
    mine, theirs = identity(folder, "server"), identity(folder, "client")

    async def run() -> None:
        server = await serve_raw(mine, TrustSet([mine.certificate, theirs.certificate]))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)

    asyncio.run(run())


def _called(keeper: Any) -> float:
    times = []
    for number in range(CALLS):
        begun = time.perf_counter()
        assert actors.get(keeper.echo.remote(number)) == number
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def call(folder: Path, host: str, node: str) -> None:
    """Prints the ratios."""
    mine, theirs = identity(folder, "client"), identity(folder, "server")
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    times: dict[str, list[float]] = {"raw": [], "bare": [], "argument": [], "result": []}
    small: dict[str, list[float]] = {"raw": [], "actor": []}
    data, kept = np.ones(LARGE, np.uint8), np.ones(LARGE, np.uint8)
    with actors.init():
        keeper = Keeper.options(node=node).remote()
        actors.get(keeper.take.remote(1 * data[:1]))
        for _ in range(SMALL_ROUNDS):
            ping = asyncio.run_coroutine_threadsafe(raw_latency(host, mine, theirs.certificate), loop)
            small["raw"].append(ping.result(60))
            small["actor"].append(_called(keeper))
        for _ in range(ROUNDS):  # by turns: what else the machine does meets all alike
            raw = asyncio.run_coroutine_threadsafe(raw_throughput(host, mine, theirs.certificate), loop)
            times["raw"].append(LARGE / raw.result(60))
            begun = time.perf_counter()
            np.copyto(kept, data)
            copied = time.perf_counter() - begun
            bare = asyncio.run_coroutine_threadsafe(raw_throughput(host, mine, theirs.certificate, kept), loop)
            times["bare"].append(copied + LARGE / bare.result(60))
            begun = time.perf_counter()
            assert actors.get(keeper.take.remote(data)) == LARGE
            times["argument"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            assert actors.get(keeper.give.remote()).nbytes == LARGE
            times["result"].append(time.perf_counter() - begun)
    loop.call_soon_threadsafe(loop.stop)
    ratios = [ours / raw for ours, raw in zip(small["actor"], small["raw"], strict=True)]
    found = {"a call over a ping-pong on a raw gRPC stream with TLS": statistics.median(ratios)}
    names = {"bare": "copied, streamed and landed by hand", "argument": "as argument", "result": "as result"}
    for what, name in names.items():
        found[f"64 MiB {name}, over a raw gRPC stream with TLS"] = min(times["raw"]) / min(times[what])
        found[f"64 MiB {name}: the same, by medians"] = statistics.median(times["raw"]) / statistics.median(times[what])
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        call(Path(sys.argv[2]), *sys.argv[3:5])
