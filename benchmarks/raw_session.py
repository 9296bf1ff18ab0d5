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

import pickle
import socket
import struct
import sys
import threading
from collections import deque
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from raw_socket import Giving, Relaying, Socket, listen
from samples import Count, check, timed
from workloads import IN_FLIGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from target import Target

HEAD = struct.Struct("<IQQd")
"""Of a message: length of what follows, number, the last number that came from the other side, deadline."""

PATIENCE_SECONDS = 30.0


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


CALLERS = {"read": Caller, "handed": HandedCaller}


class Session(Socket):
    """The same side with calls that lose nothing; it has no workloads but the small calls."""

    program = __file__
    words = ("read",)
    caller = Caller

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def batch(stamp: int) -> None:
            values = list(range(stamp, stamp + IN_FLIGHT))
            numbers = [self._target.post("echo", value) for value in values]
            check([self._target.take(number) for number in numbers], values)

        return timed(count, batch)


class Handed(Session):
    """The same, its threads as one would write them first."""

    words = ("handed",)
    caller = HandedCaller


def main() -> None:
    """Serves until standard input ends."""
    path, kind, *peer = sys.argv[1:]
    target = Relaying(CALLERS[kind](peer[0])) if peer else Giving()

    def answer(connection: socket.socket) -> None:
        callee = Callee(connection, target)
        (callee.run if kind == "read" else callee.run_handed)()

    listen(path, answer)


if __name__ == "__main__":
    main()
