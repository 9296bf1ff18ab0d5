"""MLX's own collectives, `mx.distributed`, as what carries the arrays of a group.

Its ring begins once in a process, knows sums, minima, maxima and gathering, and waits for ever for a rank that is
gone. So its work runs on a thread that can be left behind: whoever waits looks meanwhile whether the others live. Its
connections are plain TCP, without encryption, also between hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from actors.arrays import BFLOAT16
from actors.exceptions import CollectiveError

from .channel import Channel, SilentRankError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from actors.reduction import Reduction

    from .agreement import Offer
    from .fabric import Fabric

OPS = {"sum": "all_sum", "mean": "all_sum", "min": "all_min", "max": "all_max"}
CALLS = frozenset({"allreduce", "reduce", "broadcast", "allgather", "barrier"})
LOOK_SECONDS = 0.05

_begun: str | None = None  # the group that this process's ring was begun for


def check(offer: Offer) -> None:
    """Raises ValueError for a collective that MLX's ring does not have; the same on all ranks."""
    if offer.call not in CALLS:
        raise ValueError(f"backend='mlx' has no {offer.call}: MLX's ring has {', '.join(sorted(CALLS))}; use 'auto'")
    if offer.terms is not None and offer.terms.endswith("deterministic=True"):
        raise ValueError("backend='mlx' does not reduce in the order of ranks: leave deterministic=True out")
    if offer.op is not None and offer.op not in OPS:
        raise ValueError(f"backend='mlx' has no op {offer.op!r}: MLX's ring has {', '.join(OPS)}; use backend='auto'")
    for spec in offer.specs:
        if offer.op is not None and spec.name not in _names():
            raise ValueError(f"backend='mlx' does not reduce {spec.name}: it takes {', '.join(sorted(_names()))}")


def _names() -> frozenset[str]:
    whole = (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
    return frozenset({"bool", "float16", BFLOAT16, "float32", "complex64", *whole})


class Engine:
    """This process's end of MLX's ring.

    Args:
        fabric: the ranks.
        host: the address of this rank that the others reach.
    """

    def __init__(self, fabric: Fabric, host: str) -> None:
        self._fabric = fabric
        self._host = host
        self._group: Any = None
        self._jobs: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._work, name="mlx-ring", daemon=True).start()

    def _work(self) -> None:
        while True:
            future, step = self._jobs.get()
            try:
                future.set_result(step())
            except BaseException as error:
                future.set_exception(error)

    def meet(self, deadline: float) -> None:
        """Begins the ring; every rank calls it, before its first collective."""
        global _begun  # noqa: PLW0603 - MLX's own state is the process's
        if self._group is not None or self._fabric.size == 1:
            return
        if _begun is not None:
            raise CollectiveError(
                f"backend='mlx': {self._fabric.describe(self._fabric.rank)} was in group {_begun!r} with it "
                "already, and MLX begins its ring once in a process: use backend='auto', or new actors"
            )
        _begun = self._fabric.group
        channel = Channel(self._fabric, 0, deadline)
        mine = f"{self._host}:{_free_port(self._host)}"
        # A process that has had its ring says so, since all would wait for it in vain.
        for other in _others(channel):
            channel.send(other, "ring", mine)
        hosts = [mine if rank == channel.rank else channel.recv(rank, "ring") for rank in range(channel.size)]
        self._wait(channel, lambda: self._begin(hosts, channel.rank))

    def _begin(self, hosts: Sequence[str], rank: int) -> None:
        import mlx.core as mx

        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([[host] for host in hosts], file)
            file.flush()
            os.environ["MLX_HOSTFILE"], os.environ["MLX_RANK"] = file.name, str(rank)
            try:
                self._group = mx.distributed.init(strict=True, backend="ring")
            finally:
                del os.environ["MLX_HOSTFILE"], os.environ["MLX_RANK"]

    def all_reduce(self, channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any]:
        """Returns the reduction of all ranks' flat arrays."""
        result = self._run(channel, OPS[reduction.op], flat, reduction.dtype)
        if reduction.op != "mean":
            return result
        wide = reduction.start(result)
        return reduction.narrowed(wide / wide.dtype.type(reduction.ranks))

    def broadcast(self, channel: Channel, root: int, flat: npt.NDArray[Any]) -> None:
        """Brings the root's flat array to all, as the sum of it and zeros; in whole numbers, so that no bit is lost."""
        bits = flat.view(np.uint8)
        sent = bits if channel.rank == root else np.zeros_like(bits)
        np.copyto(bits, self._run(channel, "all_sum", sent, "uint8"))

    def all_gather(self, channel: Channel, flat: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Returns all ranks' flat arrays in rank order."""
        whole = self._run(channel, "all_gather", flat.view(np.uint8), "uint8").view(flat.dtype)
        return [np.ascontiguousarray(part) for part in np.split(whole, channel.size)]

    def _run(self, channel: Channel, call: str, flat: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
        def step() -> npt.NDArray[Any]:
            import mlx.core as mx

            x = mx.array(flat)
            if dtype == BFLOAT16:
                x = x.view(mx.bfloat16)
            y = getattr(mx.distributed, call)(x, group=self._group, stream=mx.cpu)
            if dtype == BFLOAT16:
                y = y.view(mx.uint16)
            mx.eval(y)
            return np.array(y)

        result: npt.NDArray[Any] = self._wait(channel, step)
        return result

    def _wait(self, channel: Channel, step: Callable[[], Any]) -> Any:
        """Runs a step on the ring's thread, and returns its result unless a rank dies or time is up."""
        future: Future[Any] = Future()
        self._jobs.put((future, step))
        while True:
            left = channel.deadline - time.monotonic()
            with contextlib.suppress(FutureTimeoutError):
                return future.result(max(0.0, min(LOOK_SECONDS, left)))
            if future.done():
                return future.result()
            for other in _others(channel):
                with contextlib.suppress(SilentRankError):  # raises where that rank has died, or the group is over
                    Channel(channel.fabric, channel.call, 0.0).recv(other, "ring?")
            if left <= 0:
                raise SilentRankError((channel.rank - 1) % channel.size)


def _others(channel: Channel) -> list[int]:
    return [rank for rank in range(channel.size) if rank != channel.rank]


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
