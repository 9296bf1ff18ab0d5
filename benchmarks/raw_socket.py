"""The floor of calls within a host: a pickle each way over a Unix socket, and nothing else.

``python raw_socket.py ADDRESS [PEER]`` is the process that is called; with a peer its object also has ``relay``, which
asks the peer's ``echo``. It prints a line once it serves, and ends with its standard input. No call has a number, an
acknowledgement, a deadline or a count, and nothing survives a lost connection.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from raw_file import Much, going_on, mapped
from samples import Count, check, timed
from target import Target
from workloads import BESIDE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD_BYTES = 4
STOP_SECONDS = 5.0


def send(connection: socket.socket, value: Any) -> None:
    """Sends a value after its length."""
    data = pickle.dumps(value, 5)
    connection.sendall(len(data).to_bytes(HEAD_BYTES, "little") + data)


def receive(connection: socket.socket) -> Any:
    """Returns the next value; raises EOFError where none comes."""
    data = connection.recv(1 << 16)
    if not data:
        raise EOFError
    while len(data) < HEAD_BYTES + int.from_bytes(data[:HEAD_BYTES], "little"):
        data += connection.recv(1 << 16)
    return pickle.loads(data[HEAD_BYTES:])


class Caller:
    """Calls the object behind a socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method and returns its result."""
        send(self._socket, (method, args))
        return receive(self._socket)

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()


class Socket:
    """See `side.Side`; it has no workloads but the small calls.

    Attributes:
        program: what is run as the process that is called.
        words: what it is told after its address.
        caller: who calls it, made of that address.
    """

    version = platform.python_version()
    program = __file__
    words: tuple[str, ...] = ()
    caller: Callable[[str], Any] = Caller

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._callers: list[Any] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        self._path = target = str(folder / "target.sock")
        self._target = self._started(target)
        self._relay = self._started(str(folder / "relay.sock"), target)
        check([self._target.call("echo", 1), self._relay.call("relay", 2)], [1, 2])

    @property
    def pid(self) -> int:
        """Of the process that is called."""
        return self._processes[0].pid

    def call(self, method: str, value: int) -> Any:
        """Calls the object and returns what it says."""
        return self._target.call(method, value)

    def _started(self, path: str, *peer: str) -> Any:
        command = [sys.executable, self.program, path, *self.words, *peer]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"a process at a socket could not start: exit code {process.wait()}")
        self._callers.append(type(self).caller(path))
        return self._callers[-1]

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._target.call("echo", stamp), stamp))

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._relay.call("relay", stamp), stamp))

    alone = sync_call

    def beside(self, count: Count) -> list[float]:
        """Small calls by one connection while another thread here gets 1 GiB after 1 GiB by another."""
        much = type(self).caller(self._path)
        try:
            with going_on(lambda: check(mapped(much.call("give")), BESIDE_BYTES)):
                return self.sync_call(count)
        finally:
            much.close()

    def beside_argument(self, count: Count) -> list[float]:
        """The same while another thread here sends 1 GiB after 1 GiB."""
        much, own = type(self).caller(self._path), Much()
        try:
            with going_on(lambda: check(much.call("get", own.written()), BESIDE_BYTES)):
                return self.sync_call(count)
        finally:
            much.close()

    def stop(self) -> None:
        """See `side.Side`."""
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(STOP_SECONDS)
            process.stdout.close()
        for caller in self._callers:
            caller.close()


class Giving(Target):
    """An object that gives and gets much."""

    def __init__(self) -> None:
        super().__init__()
        self._much: Much | None = None

    def give(self) -> str:
        """Returns where 1 GiB lies now."""
        if self._much is None:
            self._much = Much()
        return self._much.written()

    def get(self, path: str) -> int:
        """Takes 1 GiB from there and returns how many bytes that were."""
        return mapped(path)


class Relaying(Target):
    """An object that asks another one."""

    def __init__(self, peer: Any) -> None:
        super().__init__()
        self._peer = peer

    def relay(self, value: int) -> Any:
        """Returns what the other object's echo returns."""
        return self._peer.call("echo", value)


def serve(connection: socket.socket, target: Target) -> None:
    """Answers one caller until it hangs up."""
    while True:
        try:
            method, args = receive(connection)
        except EOFError:
            return
        send(connection, getattr(target, method)(*args))


def listen(path: str, answer: Callable[[socket.socket], object]) -> None:
    """Has each caller answered on a thread of its own, until standard input ends."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()

    def end() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    print("serving", flush=True)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def main() -> None:
    """Serves until standard input ends."""
    path, *peer = sys.argv[1:]
    target = Relaying(Caller(peer[0])) if peer else Giving()
    listen(path, lambda connection: serve(connection, target))


if __name__ == "__main__":
    main()
