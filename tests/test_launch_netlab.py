"""A job over two hosts with a network between them: inside each host first, then streams; and a cable that is cut."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

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
large = np.arange(2_500_000, dtype=np.float64)
for turn in range(3):  # sent between the hosts from where it lies, and changed as soon as the call is over
    own = large + rank + turn
    total = collective.allreduce(own)
    own[:] = -1
    checks.append((total == 4 * (large + turn) + 6).all())
    total[:] = -1
    parts = collective.allgather(large + rank + turn)
    checks += [(part == large + turn + other).all() for other, part in enumerate(parts)]
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


FOUND = """
import sys
import numpy as np
from actors.communicator import GRPCCommunicator
with GRPCCommunicator() as job:
    job.init(int(sys.argv[1]), 2, job="two hosts", timeout=40)
    print("found:", job.allreduce(np.full(3, job.rank + 1.0))[0], flush=True)
    job.barrier()
"""

PHASES = """
import os, sys, time
import numpy as np
from actors import collective
from actors.collective.wire import WireFabric
from actors.exceptions import CollectiveError

rank, size = collective.get_rank(), collective.get_world_size()
x = np.ones(1 << 20, np.float32)
for _ in range(3):  # one rank calls another op, shape or collective: an error on all, and the group goes on
    for wrong in (
        lambda: collective.allreduce(x, "max" if rank == 3 else "sum", timeout=20),
        lambda: collective.allreduce(x[: len(x) - (rank == 0)], timeout=20),
        lambda: collective.broadcast(x, 1, timeout=20) if rank == 2 else collective.allgather(x, timeout=20),
    ):
        try:
            wrong()
            print("missed", flush=True)
        except CollectiveError as error:
            assert "do not call the same" in str(error), error
    assert collective.allreduce(x)[-1] == size
print("agreed", flush=True)

# Host 2 falls silent once so many chunks of this call have left this rank, as when its cable is pulled there and then.
after, sent, send = int(sys.argv[1]), 0, WireFabric.send
def counted(self, dst, tag, value, **options):
    global sent
    sent += isinstance(value, np.ndarray)
    if rank == 2 and sent > after:
        print("pull", flush=True)
        time.sleep(60)
    send(self, dst, tag, value, **options)
WireFabric.send = counted
begun = time.monotonic()
try:
    while True:
        collective.allreduce(x, deterministic="ordered" in sys.argv, timeout=4)
except CollectiveError as error:
    print("told:", round(time.monotonic() - begun), error, flush=True)
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

    def python(self, host: int, *argv: str) -> subprocess.Popen[str]:
        home = f"ACTORS_HOME={self._folder / f'home{host}'}"
        return self.lab.exec(host, ["env", home, sys.executable, *argv], stderr=subprocess.STDOUT)

    def alive(self) -> int:
        return sum(node["alive"] for node in json.loads(self.does(1, "list", "nodes", "--json")))

    def pair(self) -> None:
        for host in (1, 2):
            self.does(host, "start")
        invite = self.begin(1, "invite", "--json")
        assert invite.stdout is not None
        shown = next(line for line in invite.stdout if line.startswith("{"))
        self.does(2, "join", json.loads(shown)["code"])
        assert invite.wait(30) == 0
        eventually(lambda: self.alive() == 2, within=30)


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


@pytest.mark.slow
def test_ranks_of_a_job_find_each_other_between_devices(pair: Pair) -> None:
    script = pair.script.with_name("found.py")
    script.write_text(FOUND)
    pair.lab.heal(2)
    eventually(lambda: pair.alive() == 2, within=60)
    ranks = [pair.python(rank + 1, str(script), str(rank)) for rank in range(2)]
    for rank in ranks:
        said, _ = rank.communicate(timeout=90)
        assert (rank.returncode, "found: 3.0" in said) == (0, True), said


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("after", "way"), [(0, "mixed"), (1, "mixed"), (2, "mixed"), (1, "ordered")])
def test_a_cable_that_is_cut_in_any_phase(pair: Pair, after: int, way: str) -> None:
    """In the reduce-scatter between hosts, in the all-gather, and in the next call; before that, ranks disagree."""
    script = pair.script.with_name("phases.py")
    script.write_text(PHASES)
    pair.lab.heal(2)
    eventually(lambda: pair.alive() == 2, within=60)
    job = pair.begin(1, "launch", "-n", "4", "--nodes", "all", str(script), str(after), way)
    assert job.stdout is not None
    told: list[str] = []
    try:
        agreed = 0
        for line in iter(job.stdout.readline, ""):
            agreed += "agreed" in line
            assert "missed" not in line
            if "pull" in line:
                pair.lab.cut(2)
            told += [line] if "told:" in line else []
            if len(told) == 2:
                break
        assert agreed == 4
        assert {line[:3] for line in told} == {"[0]", "[1]"}, told  # host 2 is not heard any more
        assert all("rank 2 (" in line or "rank 3 (" in line for line in told), told
    finally:
        job.kill()
        job.wait(60)
        pair.lab.heal(2)
