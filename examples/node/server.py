"""A named actor that clients in other languages may call, and rank 0 of a job of two, whose rank 1 is such a client."""

from __future__ import annotations

import sys

import numpy as np

import actors
from actors.communicator import GRPCCommunicator


@actors.remote
class Open:
    """Three methods are public, one is not."""

    @actors.method(public=True)
    def describe(self, about: dict[str, object], numbers: list[int]) -> dict[str, object]:
        """Takes and gives JSON."""
        return {"hello": about["from"], "sum": sum(numbers)}

    @actors.method(public=True)
    async def double(self, array: np.ndarray) -> np.ndarray:
        """Doubles a tensor."""
        return array * 2

    @actors.method(public=True)
    def same(self, array: np.ndarray) -> np.ndarray:
        """Gives an array back, of any dtype."""
        return array

    def secret(self) -> str:
        """Is for those who have a handle."""
        return "for members only"


def main() -> None:
    """Serves until the job is done."""
    base_port = int(sys.argv[1]) if len(sys.argv) > 1 else 50100
    with actors.init():
        opened = Open.options(name="open").remote()
        job = GRPCCommunicator()
        job.init(0, 2, base_port=base_port)
        print("ready: run client.js", flush=True)
        print("the sum of both ranks:", job.allreduce(np.array([10.0, 20.0, 30.0])), flush=True)
        job.finalize()
        actors.kill(opened)


if __name__ == "__main__":
    main()
