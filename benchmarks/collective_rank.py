"""One rank of one side of the benchmark of collectives: ``python collective_rank.py SIDE``.

It finds ``RANK`` and ``WORLD_SIZE`` (or what MPI's launcher sets) and the harness's socket, ``BENCH_SOCKET``, in its
environment; does what it is told there, and answers with when each operation began and ended. `time.perf_counter` is
one clock for all processes of a host.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import collective_calls as calls
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Operation = "Callable[[], Any]"


class Ours:
    """This package, as the ranks of `actors launch` use it."""

    def __init__(self) -> None:
        from importlib.metadata import version

        from actors import collective

        self._c = collective
        self.version = version("mlx-actors")
        self.rank, self.size = collective.get_rank(), collective.get_world_size()

    def operation(self, what: str, x: np.ndarray) -> Callable[[], Any]:
        """Returns what does one operation; its result, where it has one."""
        c = self._c
        parts = np.split(x, 200) if "200" in what else []
        kinds = [(part.shape, part.dtype) for part in parts]

        def by_hand() -> list[np.ndarray]:
            """The least that a tree takes: that all is as the ranks have agreed, one array, and its pieces."""
            assert [(part.shape, part.dtype) for part in parts] == kinds
            return list(c.allreduce(np.frombuffer(b"".join(parts), x.dtype)).reshape(len(parts), -1))

        return {
            "allreduce": lambda: c.allreduce(x),
            "barrier": c.barrier,
            "broadcast": lambda: c.broadcast(x if self.rank == 0 else None),
            "allgather": lambda: c.allgather(x),
            "reducescatter": lambda: c.reducescatter(x),
            "tree of 200": lambda: c.allreduce(parts),
            "200 joined by hand": by_hand,
        }[what]


class Gloo:
    """torch.distributed's gloo, on the CPU."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist

        torch.set_num_threads(1)
        self._torch, self._dist = torch, dist
        self.version = torch.__version__
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        store = f"file://{os.environ['BENCH_STORE']}"
        dist.init_process_group("gloo", init_method=store, rank=self.rank, world_size=self.size)

    def operation(self, what: str, x: np.ndarray) -> Callable[[], Any]:
        """Returns what does one operation, in place as its users do."""
        torch, dist = self._torch, self._dist
        tensor = torch.from_numpy(x)
        if what == "allreduce":
            return lambda: dist.all_reduce(tensor)
        if what == "broadcast":
            return lambda: dist.broadcast(tensor, 0)
        if what == "allgather":
            whole = torch.empty(x.size * self.size)
            return lambda: dist.all_gather_into_tensor(whole, tensor)
        if what == "reducescatter":
            part = torch.empty(x.size // self.size)
            return lambda: dist.reduce_scatter_tensor(part, tensor)
        if what == "barrier":
            return dist.barrier
        raise NotImplementedError


class Mlx:
    """MLX's own ring. A barrier and a broadcast are made of its all_sum, as its users make them."""

    def __init__(self) -> None:
        from importlib.metadata import version

        import mlx.core as mx

        mx.set_default_device(mx.cpu)
        os.environ["MLX_RANK"] = os.environ["RANK"]
        self._mx = mx
        self._group = mx.distributed.init(strict=True, backend="ring")
        self.version = version("mlx")
        self.rank, self.size = self._group.rank(), self._group.size()

    def operation(self, what: str, x: np.ndarray) -> Callable[[], Any]:
        """Returns what does one operation."""
        mx, group = self._mx, self._group
        array = mx.array(x if x.size else np.zeros(1, np.float32))
        mx.eval(array)
        if what in {"allreduce", "broadcast", "barrier"}:
            return lambda: mx.eval(mx.distributed.all_sum(array, group=group))
        if what == "allgather":
            return lambda: mx.eval(mx.distributed.all_gather(array, group=group))
        raise NotImplementedError


class Mpi:
    """Open MPI by mpi4py."""

    def __init__(self) -> None:
        from mpi4py import MPI

        self._mpi, self._comm = MPI, MPI.COMM_WORLD
        self.version = MPI.Get_library_version().split(",")[0].split("\n")[0].replace("\t", " ")
        self.rank, self.size = self._comm.rank, self._comm.size

    def operation(self, what: str, x: np.ndarray) -> Callable[[], Any]:
        """Returns what does one operation, in place as its users do."""
        comm, mpi = self._comm, self._mpi
        if what == "allreduce":
            return lambda: comm.Allreduce(mpi.IN_PLACE, x)
        if what == "broadcast":
            return lambda: comm.Bcast(x, 0)
        if what == "allgather":
            whole = np.empty(x.size * self.size, np.float32)
            return lambda: comm.Allgather(x, whole)
        if what == "reducescatter":
            part = np.empty(x.size // self.size, np.float32)
            return lambda: comm.Reduce_scatter_block(x, part)
        if what == "barrier":
            return comm.Barrier
        raise NotImplementedError


SIDES: dict[str, Callable[[], Any]] = {
    "ours": Ours, "gloo": Gloo, "mlx-ring": Mlx, "openmpi-tcp": Mpi, "openmpi-shm": Mpi,
}  # fmt: skip


def measure(side: Any, what: str, nbytes: int, repeats: int, together: bool) -> dict[str, Any]:
    """Returns when each of ``repeats`` operations began and ended here."""
    # Of zeros, so that sums in place stay what they are; written, since all pages that nobody has written are one.
    x = np.full(nbytes // 4, 0, np.float32)
    try:
        operation, barrier = side.operation(what, x), side.operation("barrier", np.zeros(0, np.float32))
    except (NotImplementedError, KeyError):
        return {"began": None, "ended": None}
    began, ended = [], []
    for turn in range(-2 if together else -max(2, repeats // 10), repeats):
        if together:
            barrier()
        start = time.perf_counter()
        result = operation()
        stop = time.perf_counter()
        del result
        if turn >= 0:
            began.append(start)
            ended.append(stop)
    barrier()
    return {"began": began, "ended": ended}


def memory(side: Any, nbytes: int, calls: int) -> dict[str, Any]:
    """Returns the bytes that this process holds beyond its own array: at most after 10 calls, and after ``calls``."""
    import psutil

    x = np.ones(nbytes // 4, np.float32)
    me = psutil.Process()
    before = me.memory_info().rss
    operation = side.operation("allreduce", x)
    seen = []
    for _ in range(calls):
        operation()
        seen.append(me.memory_info().rss - before)
    return {"first": max(seen[:10]), "last": max(seen[-10:])}


def program(side: Any, steps: list[dict[str, Any]]) -> list[str]:
    """Makes the calls of a random program; returns a digest of what each has returned here."""
    call = {"Ours": calls.by_ours, "Gloo": calls.by_gloo, "Mpi": calls.by_mpi}[type(side).__name__]
    return [_digest(call(step, calls.array_of(step, side.rank), side.rank, side.size)) for step in steps]


def _digest(result: Any) -> str:
    if result is None:
        return "nothing"
    parts = [np.ascontiguousarray(part) for part in (result if isinstance(result, list) else [result])]
    said = ", ".join(f"{part.dtype}{part.shape}" for part in parts)
    return f"{said} {hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest()[:12]}"


def main() -> None:
    """Serves the harness until it hangs up."""
    side = SIDES[sys.argv[1]]()
    with socket.socket(socket.AF_UNIX) as line, line.makefile("rw") as file:
        line.connect(os.environ["BENCH_SOCKET"])

        def say(words: dict[str, Any]) -> None:
            file.write(json.dumps(words) + "\n")
            file.flush()

        say({"side": sys.argv[1], "rank": side.rank, "version": side.version})
        for order in file:
            wanted = json.loads(order)
            do = {"measure": measure, "memory": memory, "program": program}[wanted.pop("do")]
            say(do(side, **wanted))


if __name__ == "__main__":
    main()
