"""What a program is told of a node."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("mlx-actors", "grpcio", "numpy", "mlx", "mlx-lm")


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node of the cluster.

    Attributes:
        id: from the device's key.
        name: for people; unique in the cluster.
        address: its door as ``"HOST:PORT"``, empty where it has none.
        alive: whether it answers.
        pid: of its process.
        found_by: ``"zeroconf"``, or ``"local"`` for one that was started here.
        resources: what actors may be placed by, such as ``{"CPU": 8.0}``.
        labels: what was said of it.
        device: chip, platform and memory in bytes.
        versions: of Python and of packages that matter.
    """

    id: str
    name: str
    address: str
    alive: bool
    pid: int
    found_by: str
    resources: dict[str, float]
    labels: dict[str, str]
    device: dict[str, object]
    versions: dict[str, str]


def device() -> dict[str, object]:
    """Returns what this machine is: chip, platform, number of CPUs, memory in bytes."""
    return {
        "chip": _chip(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def _chip() -> str:
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that two nodes should agree on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
