"""Devices on this machine: each has an ``ACTORS_HOME`` of its own, and its door on 127.0.0.1."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = "from actors.cli import main; main()"
SECONDS = 60.0


def closed_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


class Device:
    """A device; its commands run as processes of their own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.home = home
        self.environment = {**os.environ, "ACTORS_HOME": str(home)}

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments], env=self.environment, timeout=SECONDS, check=False,
            capture_output=True, text=True, input=text,
        )  # fmt: skip

    def does(self, *arguments: str) -> str:
        """Runs a command that must succeed; returns what it prints."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments], env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def program(self, source: str) -> subprocess.Popen[str]:
        """Starts a driver on this device."""
        return subprocess.Popen(
            [sys.executable, "-c", source], env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def start(self) -> None:
        self.does("start", "--host", "127.0.0.1", "--port", "0")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return status

    @contextlib.contextmanager
    def invitation(self, *arguments: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
        """What `actors invite` shows, and its process."""
        process = self.begin("invite", "--host", "127.0.0.1", "--json", *arguments)
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline()), process
        finally:
            process.kill()
            process.communicate()

    def admit(self, other: Device) -> None:
        """Pairs another device with this one."""
        with self.invitation() as (shown, process):
            other.does("join", shown["code"], "--address", shown["address"])
            assert process.wait(10) == 0
