"""What a call is bound by whose state another node has before it is answered: bare hops between processes, and no more.

    python benchmarks/bare_state.py

A call is two hops: caller, actor, caller. Its state may be acknowledged to the actor, which answers then: caller,
actor, heir, actor, caller; or the heir may answer the caller in the actor's place: caller, actor, heir, caller. Each
process does nothing but pass 1.2 KB on, by datagrams of a Unix socket.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

CALLS, ROUNDS, WARM = 1000, 9, 200
BODY = bytes(1200)
ROUTES = {"a call": b"AC", "its state is acknowledged to the actor": b"AHAC", "the heir answers the caller": b"AHC"}
"""By the letters of who is next: actor, heir, caller."""


class Place:
    """Where a process gets what the others pass on to it.

    Args:
        folder: holds the sockets.
        name: a letter.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / name))

    def take(self) -> bytes:
        """Waits for the next one."""
        return self._socket.recv(4096)

    def pass_on(self, message: bytes) -> None:
        """Sends a message to whom its first letter says."""
        self._socket.sendto(message[1:], str(self._folder / chr(message[0])))

    def close(self) -> None:
        """Gives the socket back."""
        self._socket.close()


def relay(folder: Path, name: str) -> None:
    """Passes on what comes until an empty message does."""
    place = Place(folder, name)
    while message := place.take():
        place.pass_on(message)
    place.close()


def measure() -> dict[str, float]:
    """Returns the seconds of each kind of call; the kinds take turns."""
    with tempfile.TemporaryDirectory(prefix="bare-", dir="/tmp") as name, ExitStack() as stack:
        folder, spawn = Path(name), multiprocessing.get_context("spawn")
        caller = Place(folder, "C")
        stack.callback(caller.close)
        for letter in "AH":
            other = spawn.Process(target=relay, args=(folder, letter))
            other.start()
            stack.callback(other.join)
            while not (folder / letter).exists():
                time.sleep(0.01)
        stack.callback(lambda: [caller.pass_on(letter) for letter in (b"A", b"H")])
        took: dict[str, list[float]] = {kind: [] for kind in ROUTES}
        for number in range(ROUNDS + 1):
            for kind, route in ROUTES.items():
                calls = CALLS if number else WARM
                begun = time.perf_counter()
                for _ in range(calls):
                    caller.pass_on(route + BODY)
                    caller.take()
                if number:
                    took[kind].append((time.perf_counter() - begun) / calls)
        return {kind: statistics.median(each) for kind, each in took.items()}


def main() -> None:
    """Prints a line for each kind of call."""
    found = measure()
    for kind, seconds in found.items():
        print(f"{kind:40} {seconds * 1e6:7.1f} us, {seconds / found['a call']:.2f} times")


if __name__ == "__main__":
    main()
