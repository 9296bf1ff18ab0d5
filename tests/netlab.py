"""Several hosts on one Linux machine, as network namespaces on one virtual switch, for tests that need a network.

The hosts are made by a script, found beside the repository or through ``NETLAB_SCRIPT``. Where it cannot work, tests
skip with the reason.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SCRIPT = Path(os.environ.get("NETLAB_SCRIPT") or Path(__file__).parents[2] / "shared" / "netlab" / "netlab")
COMMAND_S = 30.0

_numbers = itertools.count(1)


def unavailable() -> str | None:
    """Why no lab can be made here, or None where one can."""
    if sys.platform != "linux":
        return "netlab: network namespaces are Linux's"
    if os.geteuid() != 0:
        return "netlab: only root makes network namespaces (or run the tests under `unshare -Urnm`)"
    if shutil.which("ip") is None:
        return "netlab: the command `ip` (iproute2) is missing"
    if not SCRIPT.exists():
        return f"netlab: no script at {SCRIPT}; NETLAB_SCRIPT names another place"
    return None


class Lab:
    """Hosts 1 to N at 10.77.0.1 to 10.77.0.N, each reachable from the others through ``eth0``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._environment = {**os.environ, "NETLAB": name}
        self._processes: list[subprocess.Popen[str]] = []

    @staticmethod
    def address(host: int) -> str:
        """The IPv4 address of a host."""
        return f"10.77.0.{host}"

    def exec(self, host: int, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host, with pipes in text mode unless ``options`` of Popen say otherwise.

        The process is ended with the lab. Its pid is the command's own, so ``kill`` reaches it.
        """
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
        process = subprocess.Popen(
            [str(SCRIPT), "exec", str(host), *argv], env=self._environment, **{**pipes, **options}
        )
        self._processes.append(process)
        return process

    def run(self, host: int, *argv: str) -> str:
        """Run a command on a host to its end, and return its output; a failure raises CalledProcessError."""
        return self._script("exec", str(host), *argv)

    def cut(self, host: int) -> None:
        """Pull a host's cable: both directions drop silently."""
        self._script("cut", str(host))

    def mute(self, host: int) -> None:
        """A host hears and is not heard."""
        self._script("mute", str(host))

    def heal(self, host: int) -> None:
        """Plug a host's cable in again."""
        self._script("heal", str(host))

    def up(self, hosts: int) -> None:
        """Make the hosts, taking down what an earlier lab of this name left."""
        self._script("up", str(hosts))

    def down(self) -> None:
        """End all that runs on the hosts, and remove them."""
        self._script("down")
        for process in self._processes:
            process.kill()
            process.wait(COMMAND_S)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    def _script(self, *argv: str) -> str:
        done = subprocess.run(
            [str(SCRIPT), *argv], env=self._environment, timeout=COMMAND_S, check=True, capture_output=True, text=True
        )
        return done.stdout


@contextlib.contextmanager
def netlab(hosts: int) -> Iterator[Lab]:
    """A lab of so many hosts, of a name that no other process and no other lab of this one has."""
    if (reason := unavailable()) is not None:
        pytest.skip(reason)
    lab = Lab(f"netlab-{os.getpid()}-{next(_numbers)}")
    try:
        lab.up(hosts)
        yield lab
    finally:
        lab.down()
