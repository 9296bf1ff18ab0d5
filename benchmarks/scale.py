"""What grows with the nodes of a cluster: the table of docs/scale.md, measured on this machine.

Run it by ``python benchmarks/scale.py [NODES …]``; without numbers, from 1 to 32. Each count is a cluster of its own,
in a process of its own.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import psutil

import actors

COUNTS = (1, 2, 4, 8, 16, 32)
IDLE_SECONDS = 10.0
CALLS = 200
MIB = 1 << 20


@actors.remote
class Echo:
    """The smallest actor."""

    def echo(self, value: object) -> object:
        """Returns what it is given."""
        return value


def measure(count: int) -> dict[str, float]:
    """Returns what a cluster of so many nodes takes."""
    begun = time.perf_counter()
    with actors.init(local_nodes=count, log_to_driver=False, timeout=300):
        met = time.perf_counter() - begun
        time.sleep(3)  # spare workers are there
        nodes = [psutil.Process(node.pid) for node in actors.nodes()]
        spares = [child for node in nodes for child in node.children()]
        before = [_cpu(node) for node in nodes]
        time.sleep(IDLE_SECONDS)
        idle = [100 * (_cpu(node) - then) / IDLE_SECONDS for node, then in zip(nodes, before, strict=True)]
        return {
            "met_s": met,
            "node_mib": statistics.median(node.memory_info().rss for node in nodes) / MIB,
            "spare_mib": statistics.median(spare.memory_info().rss for spare in spares) / MIB,
            "idle_percent": statistics.median(idle),
            "connections": statistics.median(len(_connections(node)) for node in nodes),
            "placed_ms": _placed() * 1e3,
            "call_us": _call() * 1e6,
        }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _connections(process: psutil.Process) -> list[Any]:
    return [one for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]


def _placed() -> float:
    """Seconds from making a named actor, whose name all nodes are asked for, until it has answered."""
    taken = []
    for number in range(5):
        begun = time.perf_counter()
        echo = Echo.options(name=f"echo-{number}").remote()
        actors.get(echo.echo.remote(None))
        taken.append(time.perf_counter() - begun)
        actors.kill(echo)
        time.sleep(1)  # a spare worker is there again
    return statistics.median(taken)


def _call() -> float:
    echo = Echo.options(node=actors.nodes()[-1].name).remote()
    actors.get(echo.echo.remote(None))
    begun = time.perf_counter()
    for _ in range(CALLS):
        actors.get(echo.echo.remote(None))
    return (time.perf_counter() - begun) / CALLS


def main() -> None:
    """Prints the table, or what a single count gave."""
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(measure(int(sys.argv[2]))))
        return
    print("| nodes | until all know all | memory of a node | of its spare worker | idle CPU of a node | "
          "connections of a node | a named actor made | a call |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for count in map(int, sys.argv[1:]) if sys.argv[1:] else COUNTS:
        done = subprocess.run([sys.executable, __file__, "--one", str(count)], stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {count} | {found['met_s']:.1f} s | {found['node_mib']:.0f} MiB | {found['spare_mib']:.0f} MiB | "
            f"{found['idle_percent']:.1f} % | {found['connections']:.0f} | {found['placed_ms']:.0f} ms | "
            f"{found['call_us']:.0f} µs |",
            flush=True,
        )


if __name__ == "__main__":
    main()
