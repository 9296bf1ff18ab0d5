"""The server processes of the raw gRPC sides."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

SERVER = Path(__file__).with_name("raw_server.py")
STOP_SECONDS = 5.0

_numbers = itertools.count(1)


class Server:
    """A server process on a Unix socket in ``folder``, or on a TCP port of loopback where there is no folder.

    Args:
        folder: for the socket.
        peer: kind of calls, and address, of the server that its object relays to.
    """

    def __init__(self, folder: Path | None, peer: tuple[str, str] | None = None) -> None:
        address = f"unix:{folder}/{next(_numbers)}.sock" if folder is not None else "127.0.0.1:0"
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), address, *(peer or ())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def address(self) -> str:
        """Waits until it serves and returns where."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"a raw gRPC server could not start: exit code {self._process.wait()}")
        return line

    def stop(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
