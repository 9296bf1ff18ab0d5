"""Where a process can be reached: plain data, so that a handle can travel with it."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from actors.frozen import travelling


@travelling
@dataclass(frozen=True, slots=True)
class Address:
    """The ways to one process.

    Attributes:
        process: id of the process, new at each start; a stream that meets another one is refused.
        host: key of the host it runs on, see `host_key`.
        socket: path of its Unix socket, for callers on the same host.
        node: id of the node it belongs to, whose door relays to it.
        doors: the node's TCP doors as ``"HOST:PORT"``, for callers elsewhere; empty if it has none.
        node_name: the node's name, for people.
        guest: which of the light actors that this process hosts; empty for the process itself.
        arena: key of the memory that it shares with processes of its host, see `actors.arena`; empty for none.
    """

    process: str
    host: str
    socket: str
    node: str
    doors: tuple[str, ...] = ()
    node_name: str = ""
    guest: str = ""
    arena: str = ""

    @property
    def is_node(self) -> bool:
        """Whether the process is a node itself."""
        return self.process.startswith("node-")

    @property
    def life(self) -> str:
        """What tells one life of an actor from the next: the process, or what stands for it in a shared one."""
        return f"{self.process}/{self.guest}" if self.guest else self.process

    @property
    def host_process(self) -> Address:
        """The address of the process itself."""
        return replace(self, guest="") if self.guest else self


@cache
def host_key() -> str:
    """Returns a key that two processes share when one may dial the other's Unix socket.

    That is: same boot of the same machine, same network namespace, same user, same ``ACTORS_HOME``: one home is one
    device.
    """
    parts = (_boot_id(), _network_namespace(), str(os.getuid()), os.environ.get("ACTORS_HOME", ""))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _boot_id() -> str:
    if sys.platform == "darwin":
        import subprocess

        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _network_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/net")
    except OSError:  # macOS has none
        return ""
