"""`actors launch`: scripts as ranks of one job, in real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import eventually
from devices import COMMAND, Device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 90.0
MARK = "ACTORS_TEST_LAUNCH"

Start = "Callable[..., subprocess.Popen[str]]"


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Any]:
    """Starts a job of a script given as text."""
    started = []

    def start(size: int, source: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        script = tmp_path / "script.py"
        script.write_text(source)
        job = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "launch", "-n", str(size), *options, str(script), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, MARK: str(tmp_path)},
            start_new_session=True,
        )  # fmt: skip
        started.append(job)
        return job

    yield start
    for job in started:
        job.kill()
        job.communicate()


@pytest.fixture
def launch(begin: Any) -> Callable[..., tuple[int, list[str], str]]:
    """Runs a job to its end; returns its status, its lines in order of the ranks, and what it complained of."""

    def run(*arguments: Any, **options: Any) -> tuple[int, list[str], str]:
        job = begin(*arguments, **options)
        said, complaints = job.communicate(timeout=SECONDS)
        return job.returncode, sorted(said.splitlines()), complaints

    return run


def of_job(folder: Path) -> list[psutil.Process]:
    """All that lives of the jobs of this test."""

    def belongs(process: psutil.Process) -> bool:
        try:
            return process.environ().get(MARK) == str(folder)
        except (psutil.Error, OSError):
            return False

    return [process for process in psutil.process_iter() if belongs(process)]


def test_a_rank_is_a_program_that_knows_its_place(launch: Any) -> None:
    status, said, complaints = launch(
        3,
        "import json, os, sys\n"
        "names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR')\n"
        "print(json.dumps([sys.argv[1:], __name__, os.path.basename(__file__), [os.environ[n] for n in names]]))\n"
        "assert 0 < int(os.environ['MASTER_PORT']) < 65536\n"
        "assert sys.path[0] == os.path.dirname(__file__) and sys.stdin.read() == ''\n"
        "print('a complaint', file=sys.stderr)\n"
        "sys.stdout.write('no end of line')\n",
        "--epochs", "3",
    )  # fmt: skip
    assert status == 0, complaints
    for rank in range(3):
        place = [str(rank), str(rank), "3", "3", "127.0.0.1"]
        assert f"[{rank}] {json.dumps([['--epochs', '3'], '__main__', 'script.py', place])}" in said
        assert f"[{rank}] no end of line" in said
        assert f"[{rank}] a complaint" in complaints.splitlines()
    assert len(said) == 6


def test_the_ranks_are_a_group_and_communicators_find_each_other(launch: Any) -> None:
    status, said, complaints = launch(
        8,
        "import time\n"
        "import numpy as np\n"
        "from actors import collective\n"
        "from actors.communicator import GRPCCommunicator\n"
        "total = collective.allreduce(np.full(3, collective.get_rank()))\n"
        "large = collective.allreduce(np.ones(300_000, np.float32))\n"
        "collective.barrier()\n"
        "for x in (np.ones(3), np.ones(2_000_000)):\n"
        "    if collective.get_rank() == 0: time.sleep(1)\n"
        "    begun = time.process_time()\n"
        "    collective.barrier()\n"  # those who wait do so asleep
        "    assert time.process_time() - begun < 0.5\n"
        "    assert collective.allreduce(x)[0] == 8\n"
        "with GRPCCommunicator() as job:\n"
        "    job.init()\n"
        "    job.send({'from': job.rank}, (job.rank + 1) % job.world_size)\n"
        "    left = job.receive((job.rank - 1) % job.world_size)['from']\n"
        "    print(total.tolist(), large[0], job.allreduce(np.ones(1))[0], left)\n"
        "    job.barrier()\n",
    )
    assert (status, complaints) == (0, "")
    assert said == [f"[{rank}] [28, 28, 28] 8.0 8.0 {(rank - 1) % 8}" for rank in range(8)]


def test_the_group_of_a_job_that_was_destroyed_is_not_met_again(launch: Any) -> None:
    status, said, complaints = launch(
        2,
        "import numpy as np\n"
        "from actors import collective\n"
        "from actors.exceptions import CollectiveError\n"
        "pair = collective.split(0)\n"
        "collective.destroy_group(collective.get_group())\n"
        "try:\n"
        "    collective.barrier(timeout=20)\n"
        "except CollectiveError as error:\n"
        "    print(str(error)[:48], pair.allreduce(np.ones(1))[0])\n",
    )
    assert (status, complaints) == (0, "")
    assert said == [f"[{rank}] the group of all ranks of this job was destroyed 2.0" for rank in range(2)]


@pytest.mark.slow
def test_the_script_of_the_page_on_mpi(launch: Any) -> None:
    page = (Path(__file__).parents[1] / "docs" / "from-mpi.md").read_text("utf-8")
    text = page.partition("A script under `actors launch`:\n\n")[2].partition("\n## ")[0]
    status, said, complaints = launch(3, textwrap.dedent(text))
    assert (status, said, complaints) == (0, ["[0] [3 3 3]"], "")


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("sys.exit(7)", 7, "exit status 7"),
        ("raise RuntimeError('oops')", 1, "exit status 1"),
        ("os.kill(os.getpid(), 9)", 137, "SIGKILL"),
    ],
)
def test_the_first_failure_ends_all(launch: Any, tmp_path: Path, how: str, status: int, words: str) -> None:
    found, said, complaints = launch(
        3,
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('begun')\n"
        f"if os.environ['RANK'] == '1': {how}\n"
        "time.sleep(600)\n",
    )
    assert found == status
    assert "rank 1 on node" in complaints
    assert words in complaints
    assert "[1] begun" in said
    assert ("oops" in complaints) == ("oops" in how)
    assert "launch/rank.py" not in complaints
    eventually(lambda: not of_job(tmp_path), what="no process is left")


SLEEPERS = (
    "import os, subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "try:\n"
    "    print(os.getpid())\n"
    "    time.sleep(600)\n"
    "except KeyboardInterrupt:\n"
    "    print('interrupted')\n"
)


def pids(job: subprocess.Popen[str], count: int) -> list[int]:
    assert job.stdout is not None
    return [int(job.stdout.readline().split()[1]) for _ in range(count)]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_job(begin: Any, tmp_path: Path, number: int, status: int) -> None:
    job = begin(2, SLEEPERS)
    pids(job, 2)
    job.send_signal(number)
    said, _ = job.communicate(timeout=SECONDS)
    assert job.returncode == status
    assert (said.count("interrupted") == 2) == (number == signal.SIGINT)
    eventually(lambda: not of_job(tmp_path), what="no process is left")


def test_nothing_survives_a_launcher_that_is_killed(begin: Any, tmp_path: Path) -> None:
    job = begin(3, SLEEPERS)
    first = pids(job, 3)[0]
    if sys.platform == "linux":
        os.kill(first, signal.SIGSTOP)  # also a rank that is stopped must go
    job.kill()
    job.communicate(timeout=SECONDS)
    eventually(lambda: not of_job(tmp_path), within=20, what="no process is left")


def test_a_rank_that_has_ended_fails_the_collective_of_the_others(launch: Any) -> None:
    status, said, complaints = launch(
        3,
        "import os, sys\n"
        "import numpy as np\n"
        "from actors import collective\n"
        "from actors.exceptions import CollectiveError\n"
        "if os.environ['RANK'] == '2': sys.exit()\n"
        "try:\n"
        "    collective.allreduce(np.ones(1))\n"
        "except CollectiveError as error:\n"
        "    print(error)\n",
    )
    assert (status, complaints) == (0, "")
    assert said == [f"[{rank}] rank 2 of script.py ended with exit status 0" for rank in range(2)]


def test_wrong_use_is_said_at_once(launch: Any, tmp_path: Path) -> None:
    assert launch(0, "")[0] == 2
    missing = subprocess.run(
        [sys.executable, "-c", COMMAND, "launch", "-n", "2", str(tmp_path / "missing.py")],
        capture_output=True, text=True, check=False, timeout=SECONDS,
    )  # fmt: skip
    assert missing.returncode == 2
    assert "missing.py" in missing.stderr
    status, _, complaints = launch(2, "", options=("--nodes", "nowhere"))
    assert status != 0
    assert "nowhere" in complaints


def test_a_job_over_two_devices(tmp_path: Path) -> None:
    """Two devices of one machine: like two hosts, they share no memory and no sockets, and files are sent."""
    first, second = Device(tmp_path / "first"), Device(tmp_path / "second")
    work = tmp_path / "work"
    work.mkdir()
    (work / "beside.py").write_text("VALUE = 5\n")
    (work / "job.py").write_text(
        "import os\n"
        "import numpy as np\n"
        "import beside\n"
        "from actors import collective\n"
        "total = collective.allreduce(np.full(400_000, float(collective.get_rank())))\n"
        "assert 'shared memory and then streams' in collective.get_group().explain(64 << 20)\n"
        "small = collective.allreduce(np.ones(2))\n"
        "print(os.environ['LOCAL_RANK'], os.environ['LOCAL_WORLD_SIZE'], beside.VALUE, total[-1], small[0],\n"
        "      os.environ['ACTORS_HOME'].split('/')[-1])\n"
    )
    try:
        first.start()
        first.admit(second)
        second.start()
        eventually(lambda: len(json.loads(first.run("list", "nodes", "--json").stdout)) == 2, within=30)
        done = first.run("launch", "-n", "4", "--nodes", "all", str(work / "job.py"))
        assert done.returncode == 0, done.stderr
        said = sorted(done.stdout.splitlines())
        homes = [line.split()[-1] for line in said]
        assert homes[0] == homes[1] != homes[2] == homes[3]
        assert [line.rsplit(" ", 1)[0] for line in said] == [f"[{r}] {r % 2} 2 5 6.0 4.0" for r in range(4)]
    finally:
        second.run("stop")
        first.run("stop")
