"""Devices of a LAN, as hosts of a lab on this machine: how soon they pair, find, miss and find each other again.

    python benchmarks/lan.py [pairing] [mesh] [changes] [tls] [large] [idle] [local] [--hosts 12] [--gbit 1] [--json]

Without a word all parts run. Hosts are network namespaces on a virtual switch (root, Linux), and all share the
processors of one machine: what starts interpreters is slower here than on devices of their own. Ratios are of one run.
The part ``tls`` builds the transport without TLS itself; nothing in the package does. The switch is as fast as the
processors; ``--gbit`` gives the hosts of ``large`` the links of a real network.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from house import House
from netlab import netlab

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

PATIENCE = 60.0
POLL_SECONDS = 0.02
IDLE_SECONDS = 60.0
SETTLED_SECONDS = 4.0
HERE = str(Path(__file__).with_name("lan_tls.py"))
LARGE = str(Path(__file__).with_name("lan_large.py"))

JOIN = """
import sys, time, json
import actors
from actors.cli import main
code = sys.stdin.readline().strip()
begun = time.monotonic()
try:
    main(["join", code])
except SystemExit as end:
    assert not end.code
joined = time.monotonic()
cluster = actors.init()
found = time.monotonic()
@actors.remote
class Echo:
    def echo(self, value): return value
far = next(n for n in actors.nodes() if n.id != actors.get_runtime_context().get_node_id())
assert actors.get(Echo.options(node=far.name).remote().echo.remote(1)) == 1
called = time.monotonic()
print(json.dumps({"join": joined - begun, "init": found - joined, "call": called - found, "all": called - begun}))
"""

INIT = """
import time, json
import actors
begun = time.monotonic()
actors.init()
answer = sum(n.alive for n in actors.nodes())
print(json.dumps({"seconds": time.monotonic() - begun, "nodes": answer}))
"""


class Asker:
    """Asks the nodes of a house what they see, through their Unix sockets."""

    def __init__(self, house: House) -> None:
        from actors.ids import new_id
        from actors.process import Process

        self._house = house
        self._process = Process(new_id("command"), Path(tempfile.mkdtemp(prefix="lan-")), "", "asker")

    def seen(self, host: int) -> dict[str, bool]:
        """Which members a host's node knows, and whether they answer."""
        from actors import device
        from actors.residing import address_of

        try:
            text = next(self._house.home(host).rglob("node.json")).read_bytes()
            address = address_of(device.Running(**json.loads(text)))
            circle = self._process.portal.run(self._process.ask(address, "trust", "circle", timeout=5))
        except Exception:  # it is just starting, or just ending
            return {}
        return {info.name: info.alive for info in circle["nodes"]}

    def until(self, hosts: list[int], condition: Callable[[dict[str, bool]], bool]) -> float:
        """Waits until all hosts see it so; returns the seconds that took."""
        begun, waiting = time.monotonic(), list(hosts)
        while waiting:
            waiting = [host for host in waiting if not condition(self.seen(host))]
            if time.monotonic() - begun > PATIENCE:
                raise TimeoutError(f"hosts {waiting} never saw it: {[self.seen(host) for host in waiting]}")
            if waiting:
                time.sleep(POLL_SECONDS)
        return time.monotonic() - begun

    def close(self) -> None:
        """Asks no more."""
        self._process.portal.run(self._process.close("done"))
        self._process.portal.close()


@contextmanager
def street(hosts: int, paired: int, gbit: float | None = None) -> Iterator[tuple[House, Asker]]:
    """A lab whose first hosts are paired, and run.

    Args:
        hosts: how many.
        paired: how many of them.
        gbit: what each may send, in Gbit/s; None for as much as it can.
    """
    with netlab(hosts) as lab, tempfile.TemporaryDirectory(prefix="lan-") as folder:
        house = House(lab, Path(folder))
        if gbit is not None:
            shape = f"tc qdisc add dev eth0 root tbf rate {1000 * gbit:g}mbit burst 256kb latency 50ms"
            for host in range(1, hosts + 1):
                lab.run(host, *shape.split())
        asker = Asker(house)
        try:
            house.pair(paired)
            yield house, asker
        finally:
            house.stop(hosts)
            asker.close()


def _pid(house: House, host: int) -> int:
    pid: int = json.loads(next(house.home(host).rglob("node.json")).read_bytes())["pid"]
    return pid


def all_of(count: int) -> Callable[[dict[str, bool]], bool]:
    return lambda seen: sum(seen.values()) == count


def pairing() -> dict[str, float]:
    """From the code to the first call, and the first `init` among four."""
    told: dict[str, float] = {}
    with street(4, 3) as (house, asker):
        asker.until([1, 2, 3], all_of(3))
        house.does(4, "start")
        with house.invitation(1) as (shown, _):
            joiner = house.start(4, "-c", JOIN)
            out, _ = joiner.communicate(shown["code"] + "\n", timeout=PATIENCE)
            last = json.loads(out.splitlines()[-1])
            told.update({f"code to first call: {part}": seconds for part, seconds in last.items()})
        asker.until([1, 2, 3, 4], all_of(4))
        for what in ("where a node runs", "that starts its node"):
            if what.startswith("that"):
                house.does(4, "stop")
                asker.until([1, 2, 3], all_of(3))
            process = house.start(4, "-c", INIT)
            found = json.loads(process.communicate(timeout=PATIENCE)[0].splitlines()[-1])
            assert found["nodes"] == 4, found
            told[f"init among 4 {what}"] = found["seconds"]
    return told


def changes() -> dict[str, float]:
    """A node that is killed, started anew, cut off and plugged in again: how soon all others know."""
    told: dict[str, list[float]] = {}
    with street(4, 4) as (house, asker):
        hosts = [1, 2, 3, 4]
        asker.until(hosts, all_of(4))
        for _ in range(3):
            os.kill(_pid(house, 4), 9)
            told.setdefault("killed, known to all", []).append(asker.until([1, 2, 3], all_of(3)))
            house.does(4, "start")
            told.setdefault("restarted, back at all", []).append(asker.until(hosts, all_of(4)))
            house.lab.cut(4)
            told.setdefault("cut, known to all", []).append(asker.until([1, 2, 3], all_of(3)))
            asker.until([4], all_of(1))
            house.lab.heal(4)
            told.setdefault("healed, in use by all", []).append(asker.until(hosts, all_of(4)))
    return {what: max(times) for what, times in told.items()}


def mesh(hosts: int) -> dict[str, float]:
    """All hosts start at once; how long after the last is ready all know all."""
    with street(hosts, hosts) as (house, asker):
        everybody = list(range(1, hosts + 1))
        asker.until(everybody, all_of(hosts))
        stops = [house.actors(host, "stop") for host in everybody]
        assert not any(stop.wait(PATIENCE) for stop in stops)
        starts = [house.actors(host, "start") for host in everybody]
        assert not any(start.wait(PATIENCE) for start in starts)
        return {f"mesh of {hosts} after the last start": asker.until(everybody, all_of(hosts))}


def idle() -> dict[str, float]:
    """What a node among eight costs that nobody uses."""
    with street(8, 8) as (house, asker):
        everybody = list(range(1, 9))
        asker.until(everybody, all_of(8))
        nodes = [_pid(house, host) for host in everybody]
        time.sleep(12)
        before = [_processor_seconds(node) for node in nodes]
        time.sleep(IDLE_SECONDS)
        used = [_processor_seconds(node) - b for node, b in zip(nodes, before, strict=True)]
        among_eight = _memory_of_a_fresh_node(house, asker, 8)
        for host in everybody[2:]:
            house.does(host, "stop")
        among_two = _memory_of_a_fresh_node(house, asker, 2)
    return {
        "node among 8, idle: % of a core": 100 * statistics.median(used) / IDLE_SECONDS,
        "memory per known peer: MB": max(0.0, (among_eight - among_two) / 6 / 1e6),
    }


def _processor_seconds(pid: int) -> float:
    """What all threads of a process have run so far; its ticks of 10 ms are too coarse for one at rest."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def _memory_of_a_fresh_node(house: House, asker: Asker, count: int) -> float:
    """The memory that host 1's node has for itself, so many seconds after it has met all of so many nodes."""
    told = []
    for _ in range(3):
        house.does(1, "stop")
        house.does(1, "start")
        asker.until([1], all_of(count))
        time.sleep(SETTLED_SECONDS)
        told.append(psutil.Process(_pid(house, 1)).memory_full_info().uss)
    return statistics.median(told)


def local() -> dict[str, float]:
    """32 nodes on this machine."""
    import actors

    begun = time.monotonic()
    with actors.init(local_nodes=32, timeout=PATIENCE):
        return {"32 nodes on this machine": time.monotonic() - begun}


def tls() -> dict[str, float]:
    """Calls and 64 MiB between two hosts, over the transport with and without TLS, and over a raw gRPC stream."""
    with netlab(2) as lab, tempfile.TemporaryDirectory(prefix="lan-") as folder:
        server = lab.exec(1, [sys.executable, HERE, "serve", folder])
        _ready(server)
        client = lab.exec(2, [sys.executable, HERE, "call", folder, lab.address(1)])
        return _found(server, client)


def large(gbit: float | None) -> dict[str, float]:
    """64 MiB between a program and an actor of another device, through that device's door, and a raw gRPC stream."""
    with street(2, 2, gbit) as (house, asker), tempfile.TemporaryDirectory(prefix="lan-") as folder:
        asker.until([1, 2], all_of(2))
        server = house.start(1, LARGE, "serve", folder)
        _ready(server)
        client = house.start(2, LARGE, "call", folder, house.lab.address(1), "host1")
        return _found(server, client)


def _ready(server: subprocess.Popen[str]) -> None:
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"


def _found(server: subprocess.Popen[str], client: subprocess.Popen[str]) -> dict[str, float]:
    """Returns what a client found out, and ends its server."""
    out, _ = client.communicate(timeout=180)
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    assert server.stdin is not None
    server.stdin.close()
    server.wait(PATIENCE)
    return found


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "pairing": lambda _: pairing(),
    "mesh": lambda given: mesh(given.hosts),
    "changes": lambda _: changes(),
    "tls": lambda _: tls(),
    "large": lambda given: large(given.gbit),
    "idle": lambda _: idle(),
    "local": lambda _: local(),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--hosts", type=int, default=12, help="of the mesh")
    parser.add_argument("--gbit", type=float, help="what each host of large may send, in Gbit/s; default: all it can")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    import actors
    import discovery

    for package in (actors, discovery):  # as pip does where it installs a copy
        compileall.compile_dir(Path(package.__file__).parent, quiet=2)
    figures: dict[str, float] = {}
    for part in arguments.parts or PARTS:
        figures.update(PARTS[part](arguments))
        if not arguments.json:
            print(f"[{part}]", flush=True)
            for what, value in figures.items():
                print(f"  {what:<45} {value:8.3f}", flush=True)
            figures = {}
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
