"""One collective of a random program, as a rank of each side calls it: the same meaning in each library's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CALLS = (
    *("allreduce", "reduce", "broadcast", "allgather", "gather", "scatter", "reducescatter", "alltoall"),
    *("ring of messages", "barrier"),
)
OPS = ("sum", "product", "min", "max")


def array_of(call: Mapping[str, Any], rank: int) -> np.ndarray:
    """Returns what a rank brings: whole numbers so small that every order of adding them gives the same bits."""
    random = np.random.default_rng([call["seed"], rank])
    return random.integers(1, 4, call["shape"]).astype(call["dtype"])


def by_ours(call: Mapping[str, Any], x: np.ndarray, rank: int, size: int) -> Any:
    """Does it by this package."""
    from actors import collective as c

    op, root = call["op"], call["root"]
    there = rank == root
    todo: dict[str, Callable[[], Any]] = {
        "allreduce": lambda: c.allreduce(x, op),
        "reduce": lambda: c.reduce(x, root, op),
        "broadcast": lambda: c.broadcast(x if there else None, root),
        "allgather": lambda: c.allgather(x),
        "gather": lambda: c.gather(x, root),
        "scatter": lambda: c.scatter(np.split(x, size) if there else None, root),
        "reducescatter": lambda: c.reducescatter(x, op),
        "alltoall": lambda: c.alltoall(np.split(x, size)),
        "ring of messages": lambda: (c.send(x, (rank + 1) % size), c.recv((rank - 1) % size))[1],
        "barrier": c.barrier,
    }
    return todo[call["what"]]()


def by_gloo(call: Mapping[str, Any], x: np.ndarray, rank: int, size: int) -> Any:
    """Does it by torch.distributed."""
    import torch
    import torch.distributed as dist

    op = {"sum": "SUM", "product": "PRODUCT", "min": "MIN", "max": "MAX"}[call["op"]]
    how, root = getattr(dist.ReduceOp, op), call["root"]
    tensor, there = torch.from_numpy(x.copy()), rank == root
    many = [torch.empty_like(tensor) for _ in range(size)]
    part = torch.empty_like(tensor[: len(tensor) // size])
    parts = [torch.empty_like(part) for _ in range(size)]

    def messages() -> Any:
        sent = dist.isend(tensor, (rank + 1) % size)
        dist.recv(many[0], (rank - 1) % size)
        sent.wait()
        return many[0]

    def after(result: Any, step: Callable[[], Any]) -> Any:
        step()
        return result

    split = [piece.contiguous() for piece in tensor.split(max(1, len(part)))][:size] if len(part) else parts
    todo: dict[str, Callable[[], Any]] = {
        "allreduce": lambda: after(tensor, lambda: dist.all_reduce(tensor, how)),
        "reduce": lambda: after(tensor if there else None, lambda: dist.reduce(tensor, root, how)),
        "broadcast": lambda: after(tensor, lambda: dist.broadcast(tensor, root)),
        "allgather": lambda: after(many, lambda: dist.all_gather(many, tensor)),
        "gather": lambda: after(many if there else None, lambda: dist.gather(tensor, many if there else None, root)),
        "scatter": lambda: after(part, lambda: dist.scatter(part, split if there else None, root)),
        "reducescatter": lambda: after(part, lambda: dist.reduce_scatter_tensor(part, tensor, how)),
        "alltoall": lambda: after(parts, lambda: dist.all_to_all(parts, split)),
        "ring of messages": messages,
        "barrier": dist.barrier,
    }
    found = todo[call["what"]]()
    if call["what"] == "barrier" or found is None:
        return None
    return [one.numpy() for one in found] if isinstance(found, list) else found.numpy()


def by_mpi(call: Mapping[str, Any], x: np.ndarray, rank: int, size: int) -> Any:
    """Does it by mpi4py, with the calls that take buffers."""
    from mpi4py import MPI

    comm, root = MPI.COMM_WORLD, call["root"]
    op = {"sum": MPI.SUM, "product": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}[call["op"]]
    there = rank == root
    whole, many = np.empty_like(x), np.empty((size, *x.shape), x.dtype)
    part = np.empty_like(x[: len(x) // size])

    def after(result: Any, step: Callable[[], Any]) -> Any:
        step()
        return result

    todo: dict[str, Callable[[], Any]] = {
        "allreduce": lambda: after(whole, lambda: comm.Allreduce(x, whole, op)),
        "reduce": lambda: after(whole if there else None, lambda: comm.Reduce(x, whole, op, root)),
        "broadcast": lambda: after(x, lambda: comm.Bcast(x, root)),
        "allgather": lambda: after(list(many), lambda: comm.Allgather(x, many)),
        "gather": lambda: after(list(many) if there else None, lambda: comm.Gather(x, many, root)),
        "scatter": lambda: after(part, lambda: comm.Scatter(x, part, root)),
        "reducescatter": lambda: after(part, lambda: comm.Reduce_scatter_block(x, part, op)),
        "alltoall": lambda: after(np.split(whole, size), lambda: comm.Alltoall(x, whole)),
        "ring of messages": lambda: after(
            whole, lambda: comm.Sendrecv(x, (rank + 1) % size, recvbuf=whole, source=(rank - 1) % size)
        ),
        "barrier": comm.Barrier,
    }
    return todo[call["what"]]()
