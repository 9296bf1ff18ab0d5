"""An all-reduce of 64 MiB between two hosts of a lab, beside gloo by TCP and raw gRPC chunk streams with TLS.

    python benchmarks/collectives_lan.py [--rounds 7] [--gbit 1] [--json]

About a minute, root and Linux (see `lan.py`). All take turns, round after round. Of the raw streams one sends 64 MiB to
the other host; or two do, one each way, which is what an all-reduce of two ranks has to move; or two without TLS, which
tells its share; or these do besides what cannot be spared of what is ours: the bytes are cut out of an array, written
to memory that another process could map, and half of them are added up; or all of an all-reduce is done by hand, with
two processes on each host (`collectives_by_hand.py`). Gloo encrypts nothing. Both hosts share the processors of one
machine, and its memory is their network, unless ``--gbit`` makes it one of a real speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

HERE = str(Path(__file__))
BY_HAND = str(Path(__file__).with_name("collectives_by_hand.py"))
PAYLOAD = 64 << 20
PATIENCE = 120.0
ONE_WAY, BOTH_WAYS = "raw gRPC stream", "raw gRPC streams both ways"
OPEN = "both ways without TLS"
BARE = "both ways, cut, landed, added"
HAND = "an all-reduce by hand"
GO, LANDING, UNSEALED = "go", "landing", "without TLS"


def serve(turn: Callable[[], Any], **others: Callable[[], Any]) -> None:
    """Answers each line of standard input with the seconds that a turn, or the one of this name, took here."""
    print(json.dumps("ready"), flush=True)
    for word in sys.stdin:
        begun = time.perf_counter()
        answer = others.get(word.strip(), turn)()
        print(json.dumps(answer if answer is not None else time.perf_counter() - begun), flush=True)


def ours() -> None:
    """The driver of a rank on each host, on one of them."""
    import numpy as np

    import actors
    from actors import collective

    @actors.remote
    class Rank:
        def __init__(self) -> None:
            self._data = np.ones(PAYLOAD // 4, np.float32)

        def reduce(self) -> float:
            collective.barrier()
            begun = time.perf_counter()
            total = collective.allreduce(self._data)
            seconds = time.perf_counter() - begun
            assert total[0] == total[-1] == 2
            return seconds

    with actors.init():
        ranks = Rank.options(scheduling_strategy="SPREAD", num_cpus=0).group(2)
        actors.get(ranks.reduce.remote())
        serve(lambda: max(actors.get(ranks.reduce.remote())))


def gloo(rank: int, store: str) -> None:
    """A rank of torch.distributed."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    data = torch.zeros(PAYLOAD // 4)

    def turn() -> float:
        dist.barrier()
        begun = time.perf_counter()
        dist.all_reduce(data)
        return time.perf_counter() - begun

    turn()
    serve(turn)


def raw(folder: Path, number: int, hosts: list[str]) -> None:
    """One end of the raw streams: serves one and sends another, where it is told to."""
    import threading

    import numpy as np
    from lan_tls import identity, raw_throughput, serve_raw

    from actors.identity import TrustSet

    names = ["first", "second"]
    mine, theirs = identity(folder, names[number]), identity(folder, names[1 - number])
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)

    server = run(serve_raw(mine, TrustSet([mine.certificate, theirs.certificate])))
    value = np.ones(PAYLOAD, np.uint8)
    halves = value.view(np.float32).reshape(2, -1)

    def stream(data: Any = None, certificate: bytes | None = theirs.certificate) -> float:
        return PAYLOAD / float(run(raw_throughput(hosts[1 - number], mine, certificate, data)))

    def landing() -> float:
        begun, streaming = time.perf_counter(), stream(value)
        spent = time.perf_counter() - begun - streaming  # to connect
        np.add(halves[0], halves[1], out=halves[0])
        return time.perf_counter() - begun - spent

    serve(stream, **{LANDING: landing, UNSEALED: lambda: stream(None, None)})
    run(server.stop(None))


class Side:
    """The processes of one side."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes
        for process in processes:
            self._answer(process)

    def turn(self, ends: int = 2, word: str = GO) -> float:
        """Has the first processes do it at once; returns the seconds of the slowest."""
        asked = self._processes[:ends]
        for process in asked:
            assert process.stdin is not None
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
        return max(self._answer(process) for process in asked)

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> Any:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                return json.loads(line)
            except ValueError:  # a library's own words
                continue
        raise RuntimeError(f"{process.args} ended")

    def close(self) -> None:
        """Ends them."""
        for process in self._processes:
            process.communicate(timeout=PATIENCE)


def measure(rounds: int, gbit: float | None) -> dict[str, list[float]]:
    """Returns the seconds of each side, over links of so many Gbit/s each way."""
    from collective_jobs import ENTRIES
    from environments import interpreter, prepare
    from lan import all_of, street
    from lan_tls import identity

    prepare(ENTRIES["gloo"])
    python = str(interpreter(ENTRIES["gloo"]))
    with street(2, 2, gbit) as (house, asker), tempfile.TemporaryDirectory(prefix="lan-") as folder:
        asker.until([1, 2], all_of(2))
        for name in ("first", "second"):
            identity(Path(folder), name)
        addresses = [house.lab.address(host) for host in (1, 2)]
        streams = Side([house.start(n + 1, HERE, "raw", folder, str(n), *addresses) for n in (0, 1)])
        hands = Side([house.start(n + 1, BY_HAND, "rank", folder, str(n), *addresses) for n in (0, 1)])
        words = ["env", "GLOO_SOCKET_IFNAME=eth0", "OMP_NUM_THREADS=1", python, HERE, "gloo"]
        of_gloo = Side([house.lab.exec(n + 1, [*words, str(n), f"{folder}/store"]) for n in (0, 1)])
        of_ours = Side([house.start(1, HERE, "ours")])
        turns: dict[str, Callable[[], float]] = {
            "ours": of_ours.turn,
            "gloo": of_gloo.turn,
            ONE_WAY: lambda: streams.turn(1),
            BOTH_WAYS: streams.turn,
            OPEN: lambda: streams.turn(word=UNSEALED),
            BARE: lambda: streams.turn(word=LANDING),
            HAND: hands.turn,
        }
        times: dict[str, list[float]] = {name: [] for name in turns}
        with closing(streams), closing(hands), closing(of_gloo), closing(of_ours):
            for _ in range(rounds):
                for name, turn in turns.items():
                    times[name].append(turn())
        return times


def main() -> None:
    """Prints how many times as long as ours the others take: by medians, and by the quickest turn of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--gbit", type=float, help="what each host may send, in Gbit/s; default: all it can")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    times = measure(arguments.rounds, arguments.gbit)
    figures = {
        side: {name: of(found) / of(times["ours"]) for name, of in (("median", statistics.median), ("best", min))}
        for side, found in times.items()
    }
    if arguments.json:
        print(json.dumps({"seconds": times, "times as long as ours": figures}))
        return
    print(f"{'64 MiB between two hosts':34}{'seconds':>10}{'best':>8}{'times ours':>12}{'best':>8}")
    for side, found in times.items():
        ratio = figures[side]
        print(f"{side:34}{statistics.median(found):10.3f}{min(found):8.3f}{ratio['median']:12.2f}{ratio['best']:8.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        ours()
    elif sys.argv[1:2] == ["gloo"]:
        gloo(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1:2] == ["raw"]:
        raw(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:6])
    else:
        main()
