"""Devices in a house: hosts of a lab that are paired with each other, for tests between network namespaces."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from netlab import Lab

SETTLED_S = 45.0
COMMAND = "from actors.cli import main; main()"


class House:
    """Hosts of a lab, each a device. They are called host1, host2 and so on, as their hosts are.

    Args:
        lab: the network.
        folder: for the devices' homes.
        python: the interpreter of each host, by its number; this one where none is named.
    """

    def __init__(self, lab: Lab, folder: Path, python: dict[int, list[str]] | None = None) -> None:
        self.lab = lab
        self.folder = folder
        self._python = python or {}

    def home(self, host: int) -> Path:
        """The ``ACTORS_HOME`` of a host."""
        return self.folder / str(host)

    def start(self, host: int, *argv: str, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        """Starts Python on a host; ``options`` are of Popen."""
        python = self._python.get(host, [sys.executable])
        return self.lab.exec(host, ["env", f"ACTORS_HOME={self.home(host)}", *prefix, *python, *argv], **options)

    def actors(self, host: int, *argv: str, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        """Starts the command on a host; ``options`` are of Popen."""
        return self.start(host, "-c", COMMAND, *argv, prefix=prefix, **options)

    def run(self, host: int, *argv: str, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
        """Runs the command on a host; returns its exit status and what it printed."""
        process = self.actors(host, *argv, prefix=prefix)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def does(self, host: int, *argv: str) -> str:
        """Runs a command that must succeed."""
        status, out = self.run(host, *argv)
        assert status == 0, (host, argv, status, out)
        return out

    def pair(self, hosts: int, *, alone: int = 0) -> str:
        """Starts a node on each host and pairs the first of them; returns the code.

        Args:
            hosts: how many are paired.
            alone: how many more are started, and stay strangers.
        """
        starts = [self.actors(host, "start") for host in range(1, hosts + alone + 1)]
        assert [start.wait(60) for start in starts] == [0] * len(starts)
        with self.invitation(1, "--uses", str(hosts - 1)) as (shown, invite):
            for host in range(2, hosts + 1):
                self.does(host, "join", shown["code"])
            assert invite.wait(30) == 0
        code: str = shown["code"]
        return code

    @contextlib.contextmanager
    def invitation(
        self, host: int, *argv: str, **options: Any
    ) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
        """What `actors invite` shows on a host, and its process; ``options`` are of Popen."""
        invite = self.actors(host, "invite", "--json", *argv, **options)
        assert invite.stdout is not None
        try:
            yield json.loads(invite.stdout.readline()), invite
        finally:
            invite.kill()
            invite.communicate()

    def status(self, host: int) -> dict[str, Any]:
        """What `actors status --json` shows."""
        status: dict[str, Any] = json.loads(self.run(host, "status", "--json")[1])
        return status

    def answer(self, host: int) -> set[str]:
        """The members that answer to a host, itself included."""
        return {member["name"] for member in self.status(host)["members"] if member["alive"]}

    def log(self, host: int) -> str:
        """What the node of a host has said."""
        return "".join(path.read_text(errors="replace") for path in sorted(self.home(host).rglob("node.log")))

    def switch(self, *argv: str) -> None:
        """Runs a command in the namespace of the switch."""
        subprocess.run(["ip", "netns", "exec", f"{self.lab.name}-switch", *argv], check=True, timeout=10)

    def stop(self, hosts: int) -> None:
        """Ends the nodes."""
        for host in range(1, hosts + 1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.run(host, "stop")


def eventually(condition: Callable[[], Any], seconds: float = SETTLED_S) -> Any:
    """Waits until something holds, and returns it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail("it did not come to be so in time")
        time.sleep(0.1)
    return found
