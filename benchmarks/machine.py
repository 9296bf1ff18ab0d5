"""The machine and the versions that figures were taken with."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version

import psutil


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run took place. ``load`` is the load average of the last minute before it began."""

    system: str
    processor: str
    cores: int
    memory_gb: float
    load: float
    python: str
    grpcio: str
    numpy: str


def this_machine() -> Machine:
    """Returns the facts about this machine."""
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        cores=_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        load=round(os.getloadavg()[0], 2),
        python=platform.python_version(),
        grpcio=version("grpcio"),
        numpy=version("numpy"),
    )


def _cores() -> int:
    """Returns how many cores this process may use; macOS cannot tell and gives all."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
