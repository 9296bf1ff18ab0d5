"""What a program is told of a node."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import cast

from actors.demand import ACCELERATOR, NODE_ID, PYTHON_MINOR
from actors.frozen import travelling
from actors.version import PYTHON

NODE_NAME = "actors.io/node-name"
PACKAGES = ("mlx-actors", "grpcio", "numpy", "mlx", "mlx-lm")


@travelling
@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node of the cluster.

    Attributes:
        id: from the device's key.
        name: for people; unique in the cluster.
        address: its door as ``"HOST:PORT"``, empty where it has none.
        alive: whether it answers.
        pid: of its process; None on a Ray cluster, which does not tell it.
        found_by: ``"zeroconf"``, or ``"local"`` for one that was started here.
        resources: what it has in all, by which actors are placed: ``"CPU"``, ``"GPU"``, ``"memory"`` (bytes),
            ``"node:NAME"`` (1, of this node alone) and what `actors.init` was told of.
        labels: what `actors.init` was told of, and those that begin with ``ray.io/`` and ``actors.io/``, which it gives
            itself.
        device: chip, platform and memory in bytes.
        versions: of Python and of packages that matter.
        draining: whether nothing new is placed there, since it is to be closed.
    """

    id: str
    name: str
    address: str
    alive: bool
    pid: int | None
    found_by: str
    resources: dict[str, float]
    labels: dict[str, str]
    device: dict[str, object]
    versions: dict[str, str]
    draining: bool = False


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


def totals(name: str, found: dict[str, object], given: dict[str, float]) -> dict[str, float]:
    """Returns what a node has, as actors are placed by it.

    Args:
        name: of the node.
        found: what `device` has found out.
        given: what `actors.init` was told, which goes before what is found.
    """
    cpus, memory = cast("int", found["cpus"]), cast("int", found["memory"])
    here = {"CPU": cpus, "GPU": int(_accelerator() is not None), "memory": memory, **given, f"node:{name}": 1}
    return {name: float(amount) for name, amount in here.items() if amount}


def labels(id: str, name: str, given: dict[str, str]) -> dict[str, str]:
    """Returns the labels of a node: what `actors.init` was told, and what it says of itself."""
    own = {
        NODE_ID: id, NODE_NAME: name, "actors.io/platform": f"{platform.system()}-{platform.machine()}",
        PYTHON_MINOR: PYTHON,
    }  # fmt: skip
    accelerator = _accelerator()
    if accelerator:
        own[ACCELERATOR] = accelerator
    return {**given, **own}


def _accelerator() -> str | None:
    """Returns the kind of the GPU that MLX could use, such as ``"H100"`` or ``"Apple-M2"``; None without one.

    Loading MLX would tell for certain, at a cost no node need bear.
    """
    if sys.platform == "darwin":
        return _chip().replace(" ", "-") if platform.machine() == "arm64" else None
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1", "NoDevFiles"}:
        return None
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        model = re.search(r"Model:\s*(.+)", information.read_text(errors="replace"))
        kind = re.match(r"\w+\s+([A-Z0-9]+)", model[1]) if model else None  # as Ray names them: "NVIDIA H100 80GB"
        return kind[1] if kind else "NVIDIA"
    return "NVIDIA" if Path("/dev/nvidia0").exists() else None


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that two nodes should agree on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
