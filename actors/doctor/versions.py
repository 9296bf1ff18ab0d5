"""What two nodes of different versions cannot do together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actors.doctor.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping

_EXTRAS = {"mlx-lm": "models"}


def minor(version: str) -> str:
    """``"3.12"`` of ``"3.12.1"``."""
    return ".".join(version.split(".")[:2])


def compare(here: Mapping[str, str], name: str, there: Mapping[str, str]) -> Finding:
    """Compares this node's versions with those of another one.

    Args:
        here: as `actors.nodeinfo.versions` gives them.
        name: of the other node.
        there: its versions.
    """
    mine, theirs = here.get("python", ""), there.get("python", "")
    if minor(mine) != minor(theirs):
        return Finding(
            "versions", ok=False,
            what=f"{name} runs Python {theirs}, this device {mine}: data and installed classes pass between them, "
            "code of a program's own does not",
            do=f"run both with Python {minor(max(mine, theirs, key=_number))}, or install your classes as a package "
            "on both",
        )  # fmt: skip
    ours, their = here.get("mlx-actors", ""), there.get("mlx-actors", "")
    if ours != their:
        newest = max(ours, their, key=_number)
        return Finding(
            "versions", ok=False, what=f"{name} runs mlx-actors {their}, this device {ours}",
            do=f"run `pip install -U 'mlx-actors>={newest}'` where it is older",
        )  # fmt: skip
    lacks = [extra for package, extra in _EXTRAS.items() if package in here and package not in there]
    told = f"; {name} lacks the extra {', '.join(lacks)} (pip install 'mlx-actors[{','.join(lacks)}]')" if lacks else ""
    return Finding("versions", ok=True, what=f"{name} runs Python {theirs} and mlx-actors {their}{told}")


def _number(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]
