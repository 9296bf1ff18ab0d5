"""The jobs of the benchmark of collectives: the ranks of each side, started, told what to do, and ended."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environments import interpreter, prepare
from side import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RANK = Path(__file__).with_name("collective_rank.py")
START_SECONDS = 90.0
STEP_SECONDS = 120.0
STOP_SECONDS = 10.0

TORCH, MPI = ("torch==2.13.0", "numpy"), ("mpi4py", "openmpi", "numpy", "psutil")
ENTRIES = {
    "ours": Entry("ours", "this package, under `actors launch`", RANK.stem, "Ours"),
    "gloo": Entry("gloo", "torch.distributed's gloo", RANK.stem, "Gloo", TORCH),
    "mlx-ring": Entry("mlx-ring", "MLX's own ring", RANK.stem, "Mlx"),
    "openmpi-tcp": Entry("openmpi", "Open MPI by TCP", RANK.stem, "Mpi", MPI),
    "openmpi-shm": Entry("openmpi", "Open MPI by shared memory", RANK.stem, "Mpi", MPI),
}


class JobFailedError(Exception):
    """A side could not be started, or a rank of it ended or fell silent."""


class Job:
    """The ranks of one side."""

    def __init__(self, side: str, size: int) -> None:
        self.side, self.size, self.version = side, size, ""
        self._ranks: list[Any] = [None] * size
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            prepare(ENTRIES[side])
            self._start()
        except (OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
            self.close()
            raise JobFailedError(f"{side}: {error}") from error

    def _start(self) -> None:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp"))
        self._log = Path(folder) / "log"
        door = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        door.bind(f"{folder}/door")
        door.listen(self.size)
        door.settimeout(START_SECONDS)
        shared = {
            "BENCH_SOCKET": f"{folder}/door", "BENCH_STORE": f"{folder}/store", "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        for command, variables in self._commands(folder):
            with self._log.open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        command, env={**os.environ, **shared, **variables}, stdin=subprocess.DEVNULL, stdout=log,
                        stderr=log, start_new_session=True,
                    )
                )  # fmt: skip
        for _ in range(self.size):
            try:
                line, _ = door.accept()
            except TimeoutError:
                raise RuntimeError(
                    f"its ranks did not start:\n{self._log.read_text(errors='replace')[-800:]}"
                ) from None
            line.settimeout(STEP_SECONDS)
            file = self._stack.enter_context(line.makefile("rw"))
            self._stack.enter_context(line)
            said = json.loads(file.readline())
            self._ranks[said["rank"]], self.version = file, said["version"]

    def _commands(self, folder: str) -> list[tuple[Sequence[str], Mapping[str, str]]]:
        python = str(interpreter(ENTRIES[self.side]))
        rank = [python, str(RANK), self.side]
        if self.side == "ours":
            launch = "from actors.cli import main; main()"
            return [([python, "-c", launch, "launch", "-n", str(self.size), *rank[1:]], {})]
        if self.side.startswith("openmpi"):
            lanes = "self,tcp" if self.side.endswith("tcp") else "self,sm"
            mpirun = str(Path(python).with_name("mpirun"))
            options = f"--allow-run-as-root --map-by :OVERSUBSCRIBE --bind-to none --mca pml ob1 --mca btl {lanes}"
            return [([mpirun, *options.split(), "-n", str(self.size), *rank], {})]
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(self.size)]))
        places = [{"RANK": str(r), "WORLD_SIZE": str(self.size), "MLX_HOSTFILE": str(hosts)} for r in range(self.size)]
        return [(rank, place) for place in places]

    def do(self, **order: Any) -> list[dict[str, Any]]:
        """Has all ranks do something; returns their answers in rank order.

        Raises:
            JobFailedError: one did not.
        """
        try:
            for rank in self._ranks:
                rank.write(json.dumps(order) + "\n")
                rank.flush()
            return [json.loads(rank.readline()) for rank in self._ranks]
        except (OSError, ValueError) as error:
            raise JobFailedError(f"{self.side}: {error}: {self._log.read_text(errors='replace')[-800:]}") from error

    def close(self) -> None:
        """Ends the ranks."""
        for rank in self._ranks:
            if rank is not None:
                rank.close()
        self._stack.close()
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait(STOP_SECONDS)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
