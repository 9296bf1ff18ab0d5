"""A job over two hosts with a network between them: inside each host first, then streams; and a cable that is cut."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from clusters import eventually
from netlab import Lab, netlab, unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.netlab, pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")]

WORK = """
import os, sys
import numpy as np
from actors import collective
from actors.communicator import GRPCCommunicator
from actors.exceptions import CollectiveError

rank, size = collective.get_rank(), collective.get_world_size()
x = np.arange(500_000, dtype=np.float32) + rank
checks = [
    np.allclose(collective.allreduce(x), 4 * np.arange(500_000) + 6),
    np.allclose(collective.allreduce(x, "mean", deterministic=True), np.arange(500_000) + 1.5),
    (collective.broadcast(x if rank == 3 else None, 3) == np.arange(500_000) + 3).all(),
    [int(part[0]) for part in collective.allgather(x)] == [0, 1, 2, 3],
    np.allclose(collective.reducescatter(x), (4 * np.arange(500_000) + 6)[rank * 125_000 : (rank + 1) * 125_000]),
    collective.gather({"from": rank}, 2) == ([{"from": r} for r in range(4)] if rank == 2 else None),
]
print("right:", all(checks), "shared memory and then streams" in collective.get_group().explain(64 << 20), flush=True)
if "--cut" in sys.argv:
    try:
        while True:
            collective.allreduce(x, timeout=4)
    except CollectiveError as error:
        print("told:", error, flush=True)
else:
    with GRPCCommunicator() as job:
        job.init()
        job.send({"from": rank}, (rank + 1) % size)
        print("communicator:", job.receive((rank - 1) % size)["from"], job.allreduce(np.ones(3))[0], flush=True)
        job.barrier()
"""


class Pair:
    """Two hosts, paired, each with its node."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self._folder = lab, folder
        self.script = folder / "work" / "job.py"
        self.script.parent.mkdir()
        self.script.write_text(WORK)

    def begin(self, host: int, *argv: str) -> subprocess.Popen[str]:
        home = f"ACTORS_HOME={self._folder / f'home{host}'}"
        command = ["env", home, sys.executable, "-c", "from actors.cli import main; main()", *argv]
        return self.lab.exec(host, command, stderr=subprocess.STDOUT)

    def does(self, host: int, *argv: str) -> str:
        process = self.begin(host, *argv)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        return said

    def pair(self) -> None:
        for host in (1, 2):
            self.does(host, "start")
        invite = self.begin(1, "invite", "--json")
        assert invite.stdout is not None
        shown = next(line for line in invite.stdout if line.startswith("{"))
        self.does(2, "join", json.loads(shown)["code"])
        assert invite.wait(30) == 0
        nodes: Any = lambda: json.loads(self.does(1, "list", "nodes", "--json"))  # noqa: E731
        eventually(lambda: sum(node["alive"] for node in nodes()) == 2, within=30)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with netlab(2) as lab:
        pair = Pair(lab, tmp_path_factory.mktemp("job"))
        pair.pair()
        yield pair
        lab.heal(2)
        for host in (2, 1):
            with contextlib.suppress(AssertionError):
                pair.does(host, "stop")


def test_two_hosts_of_two_ranks(pair: Pair) -> None:
    said = pair.does(1, "launch", "-n", "4", "--nodes", "all", str(pair.script)).splitlines()
    assert sorted(line for line in said if "right:" in line) == [f"[{rank}] right: True True" for rank in range(4)]
    wanted = [f"[{rank}] communicator: {(rank - 1) % 4} 4.0" for rank in range(4)]
    assert sorted(line for line in said if "communicator:" in line) == wanted


@pytest.mark.slow
def test_a_cut_cable_fails_the_collective_in_time(pair: Pair) -> None:
    job = pair.begin(1, "launch", "-n", "4", "--nodes", "all", str(pair.script), "--cut")
    assert job.stdout is not None
    lines = iter(job.stdout.readline, "")
    for _ in range(4):
        assert "right: True" in next(lines)
    pair.lab.cut(2)
    told = [next(line for line in lines if "told:" in line) for _ in range(2)]  # host 2 is not heard any more
    assert {line[:3] for line in told} == {"[0]", "[1]"}
    assert all("rank 2 (" in line or "rank 3 (" in line for line in told), told
    job.kill()
    job.wait(60)
