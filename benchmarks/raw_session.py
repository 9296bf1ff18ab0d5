"""The floor of calls that lose nothing: our guarantees in as little Python as they take, and nothing else.

Over a Unix socket. Each call has a number, a deadline and an acknowledgement of the answers before it; its sender keeps
it until it is answered, so that another connection could bring it again; who is called drops what came before and keeps
each answer until that is acknowledged. Nothing else that the runtime does is here: no handles, no count of who refers
to a value, no retries, no word of deaths, no lanes for large values, no loop for whoever does not wait, no tracing.

As in the runtime, whoever waits reads the socket itself (``Session``), and only the head of what comes is read there.
``Handed`` is the plain design instead: a thread at each end reads, and hands over to the thread that waits or runs.

``python raw_session.py ADDRESS read|handed [PEER]`` is the process that is called; see `raw_socket`.
"""

from __future__ import annotations

import os
import pickle
import platform
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from samples import Count, check, timed
from target import Target
from workloads import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HEAD = struct.Struct("<IQQd")
"""Of a message: length of what follows, number, the last number that came from the other side, deadline."""

PATIENCE_SECONDS = 30.0
STOP_SECONDS = 5.0


class Frames:
    """Cuts what a socket brings into messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._left = b""

    def wait(self) -> Iterator[tuple[int, int, float, bytes]]:
        """Waits for one message at least, and yields all that have come; raises EOFError where none will."""
        data = self._connection.recv(1 << 16)
        if not data:
            raise EOFError
        data, at = self._left + data, 0
        while len(data) - at >= HEAD.size:
            length, number, acknowledged, deadline = HEAD.unpack_from(data, at)
            end = at + HEAD.size + length
            if end > len(data):
                break
            yield number, acknowledged, deadline, data[at + HEAD.size : end]
            at = end
        self._left = data[at:]


class Caller:
    """Calls the object behind a socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._frames = Frames(self._socket)
        self._lock = threading.Lock()  # of the next four
        self._number = 0
        self._answered = 0  # all up to here
        self._kept: dict[int, bytes] = {}  # not answered yet: what another connection would bring again
        self._answers: dict[int, bytes] = {}
        self._reading = threading.Lock()

    def post(self, method: str, *args: Any) -> int:
        """Makes a call and returns its number."""
        body = pickle.dumps((method, args), 5)
        with self._lock:
            self._number = number = self._number + 1
            message = HEAD.pack(len(body), number, self._answered, monotonic() + PATIENCE_SECONDS) + body
            self._kept[number] = message
            self._socket.sendall(message)
        return number

    def take(self, number: int) -> Any:
        """Waits for the answer of a call and returns it."""
        while number in self._kept:
            with self._reading:
                if number in self._kept:
                    self._read()
        return pickle.loads(self._answers.pop(number))

    def call(self, method: str, *args: Any) -> Any:
        """Calls a method and returns its result."""
        return self.take(self.post(method, *args))

    def _read(self) -> None:
        for number, _, _, body in self._frames.wait():
            with self._lock:
                if number in self._kept:  # else it came twice
                    self._answers[number] = body
                    self._answered = number
                    del self._kept[number]

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()


class HandedCaller(Caller):
    """The same with a thread that reads."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._waiting: dict[int, threading.Lock] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._read()
            except (EOFError, OSError):
                return
            for number in [number for number in list(self._waiting) if number not in self._kept]:
                self._waiting.pop(number).release()

    def take(self, number: int) -> Any:
        """See `Caller`."""
        if number in self._kept:
            waiting = threading.Lock()
            waiting.acquire()
            self._waiting[number] = waiting
            if number in self._kept:
                waiting.acquire()
            self._waiting.pop(number, None)
        return pickle.loads(self._answers.pop(number))


class Callee:
    """Answers one caller: each call once, in order; keeps each answer until the caller has it."""

    def __init__(self, connection: socket.socket, target: Target) -> None:
        self._connection = connection
        self._frames = Frames(connection)
        self._target = target
        self._last = 0
        self._answers: deque[tuple[int, bytes]] = deque()

    def run(self) -> None:
        """Reads and runs on this thread, until the caller hangs up."""
        while True:
            try:
                calls = self._new()
            except EOFError:
                return
            self._connection.sendall(b"".join([self._answer(number, body) for number, body in calls]))

    def run_handed(self) -> None:
        """Reads on this thread and runs on another."""
        mailbox: SimpleQueue[list[tuple[int, bytes]]] = SimpleQueue()

        def work() -> None:
            while True:
                calls = mailbox.get()
                self._connection.sendall(b"".join([self._answer(number, body) for number, body in calls]))

        threading.Thread(target=work, daemon=True).start()
        while True:
            try:
                mailbox.put(self._new())
            except EOFError:
                return

    def _new(self) -> list[tuple[int, bytes]]:
        calls = []
        for number, acknowledged, deadline, body in self._frames.wait():
            while self._answers and self._answers[0][0] <= acknowledged:
                self._answers.popleft()
            if number > self._last and monotonic() < deadline:  # else it came twice, or too late
                self._last = number
                calls.append((number, body))
        return calls

    def _answer(self, number: int, body: bytes) -> bytes:
        method, args = pickle.loads(body)
        value = pickle.dumps(getattr(self._target, method)(*args), 5)
        message = HEAD.pack(len(value), number, self._last, 0.0) + value
        self._answers.append((number, message))
        return message


class Relaying(Target):
    """An object that asks another one."""

    def __init__(self, peer: Caller) -> None:
        super().__init__()
        self._peer = peer

    def relay(self, value: int) -> Any:
        """Returns what the other object's echo returns."""
        return self._peer.call("echo", value)


CALLERS = {"read": Caller, "handed": HandedCaller}


class Session:
    """See `side.Side`; it has no workloads but the small calls."""

    version = platform.python_version()
    kind = "read"

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []
        self._callers: list[Caller] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        target = str(folder / "target.sock")
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

    def _started(self, path: str, *peer: str) -> Caller:
        command = [sys.executable, __file__, path, self.kind, *peer]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"a process at a socket could not start: exit code {process.wait()}")
        self._callers.append(CALLERS[self.kind](path))
        return self._callers[-1]

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._target.call("echo", stamp), stamp))

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def batch(stamp: int) -> None:
            values = list(range(stamp, stamp + IN_FLIGHT))
            numbers = [self._target.post("echo", value) for value in values]
            check([self._target.take(number) for number in numbers], values)

        return timed(count, batch)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._relay.call("relay", stamp), stamp))

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


class Handed(Session):
    """The same, its threads as one would write them first."""

    kind = "handed"


def main() -> None:
    """Serves until standard input ends."""
    path, kind, *peer = sys.argv[1:]
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    target = Relaying(CALLERS[kind](peer[0])) if peer else Target()

    def end() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end, daemon=True).start()
    print("serving", flush=True)
    while True:
        connection, _ = listening.accept()
        callee = Callee(connection, target)
        run = callee.run if kind == "read" else callee.run_handed
        threading.Thread(target=run, daemon=True).start()


if __name__ == "__main__":
    main()
