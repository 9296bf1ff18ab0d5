"""The part of `models.py` that asks what a hop takes: within a host, by gRPC there, and to another host.

As a program of its own it measures hops between the nodes of the cluster that it finds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models_floor import floors

import actors
from actors.models.stage import Row, Step
from actors.models.stageactor import StageActor, connect
from actors.models.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HIDDEN: Final = 576  # numbers of a hidden state, float32: 2.3 kB
HOPS: Final = 400
HOSTS: Final = 2
PAIR: Final = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor

async def main():
    turns = ThreadPoolExecutor(1)
    reader, writer = await asyncio.open_unix_connection(sys.argv[1])
    loop = asyncio.get_running_loop()
    while data := await reader.readexactly(2304):
        writer.write(await loop.run_in_executor(turns, bytes, data))

try:
    asyncio.run(main())
except asyncio.IncompleteReadError:
    pass
"""


class Constant:
    """Stands where a stage's layers are: does nothing, and gives a hidden state."""

    def run(self, step: Step, hidden: Any, finish: Any) -> Any:
        """What goes on from here: what came, or a first hidden state."""
        import mlx.core as mx

        out = mx.ones((1, 1, HIDDEN)) if hidden is None else hidden
        mx.eval(out)
        return out if finish is None else finish(out)


@actors.remote
class Bare(StageActor):
    """A stage without arithmetic: everything else that a hop takes."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._line, self._others = None, []
        self._model: Any = Constant()

    async def carried(self) -> tuple[int, int]:
        """Returns the bytes that this process has sent and received so far."""
        from actors.transport.traffic import carried

        sums = carried()
        return sum(each[2] for each in sums), sum(each[3] for each in sums)

    async def pass_(self, times: int) -> float:
        """Returns the seconds that a token takes through all stages, half of them being quicker."""
        step, took = Step((Row("sequence-0123456789", (7,)),)), []
        for _ in range(times):
            start = time.perf_counter()
            await self.begin(step, None)
            took.append(time.perf_counter() - start)
        return statistics.median(took)


def hop(say: Callable[[str, float, str], None]) -> None:
    """A hop of 2.3 kB on one host, and what two event loops and a socket take that do nothing else."""
    with actors.init(local_nodes=3):
        one, two, three = passed()
        say("hop: a stage alone, without arithmetic, us", one, "")
        say("hop: the second stage adds, us", two - one, "<= 60")
        say("hop: the third stage adds, us", three - two, "<= 60")
        say("hop: a bare pair of event loops, a thread at the far end, us", asyncio.run(_pair()) * 1e6, "")


def far(say: Callable[[str, float, str], None]) -> None:
    """A hop of 2.3 kB by gRPC, within a host and to another one with mutual TLS (a network lab: root, Linux).

    What bare processes take there and back comes first.
    """
    floors(say)
    with _all_by_grpc(), actors.init(local_nodes=2):
        one, two = passed()
        say("hop: by gRPC on one host, the second stage adds, us", two - one, "<= 300")
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from house import House
    from netlab import netlab

    with netlab(HOSTS) as lab, tempfile.TemporaryDirectory(prefix="hop-") as folder:
        house = House(lab, Path(folder))
        try:
            house.pair(HOSTS)
            out, _ = house.start(1, __file__).communicate(timeout=90)
        finally:
            house.stop(HOSTS)
    say("hop: to another host with mutual TLS, the second stage adds, us", float(out.split()[-1]), "<= 350")


@contextmanager
def _all_by_grpc() -> Iterator[None]:
    os.environ["ACTORS_TRANSPORT"] = "grpc"  # inherited by nodes and their processes
    try:
        yield
    finally:
        del os.environ["ACTORS_TRANSPORT"]


def passed() -> list[float]:
    """Microseconds that a token takes through a line of one stage, of two, and so on, one on each node there is."""
    here = actors.get_runtime_context().node_name
    names = sorted((node.name for node in actors.nodes()), key=lambda name: name != here)
    lines = [_line(names[: number + 1]) for number in range(len(names))]
    for line in lines:
        actors.get(line[-1].pass_.remote(50))
    took: list[list[float]] = [[] for _ in lines]
    for _ in range(5):
        for number, line in enumerate(lines):
            took[number].append(actors.get(line[-1].pass_.remote(HOPS)) * 1e6)
    return list(map(min, took))


def _line(names: list[str]) -> list[Any]:
    """Stages without arithmetic, one on each of these nodes; the last one is on the first of them, where this is."""
    line = [Bare.options(node=name).remote() for name in reversed(names)]
    if len(line) > 1:
        connect(line)
    return line


async def _pair() -> float:
    place = f"/tmp/hop-{os.getpid()}.sock"
    met: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_unix_server(lambda *ends: met.set_result(ends), place)
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", PAIR, place)
    try:
        reader, writer = await met
        took = []
        for _ in range(5 * HOPS):
            start = time.perf_counter()
            writer.write(bytes(4 * HIDDEN))
            await reader.readexactly(4 * HIDDEN)
            took.append(time.perf_counter() - start)
        writer.close()
        return statistics.median(took)
    finally:
        server.close()
        other.kill()
        await other.wait()
        os.unlink(place)


def wire(say: Callable[[str, float, str], None]) -> None:
    """Bytes that a token takes on the wire between two stages by gRPC, as the first stage's process counts them."""
    with _all_by_grpc(), actors.init(local_nodes=2):
        one, other = (node.name for node in actors.nodes())
        first, last = _line([other, one])
        actors.get(last.pass_.remote(50))
        before = actors.get(first.carried.remote())
        actors.get(last.pass_.remote(5 * HOPS))
        sent, received = (
            (now - then) / (5 * HOPS) for now, then in zip(actors.get(first.carried.remote()), before, strict=True)
        )
        say("wire: bytes of a token to the stage before", received, "")
        say("wire: bytes of a token back from it, above the hidden state", sent - 4 * HIDDEN, "")
        say("wire: bytes of a token and hop above the hidden state", sent + received - 4 * HIDDEN, "<= 256")


if __name__ == "__main__":
    with actors.init(expect_nodes=HOSTS, timeout=60):
        alone, two_hosts = passed()
        print(two_hosts - alone)
