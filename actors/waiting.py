"""A line that says who is waited for, on a terminal or a notebook's standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actors.nodeinfo import NodeInfo


class Waiting:
    """Says how many nodes are there yet, whenever that changes.

    Args:
        wanted: how many there shall be.
        timeout: seconds they have.
    """

    def __init__(self, wanted: int, timeout: float) -> None:
        self._wanted = wanted
        self._end = time.monotonic() + timeout
        self._said: list[str] = []

    def show(self, nodes: Iterable[NodeInfo]) -> None:
        """Takes the nodes as they are known now."""
        alive = sorted(node.name for node in nodes if node.alive)
        if alive != self._said and len(alive) < self._wanted and sys.stderr is not None:
            self._said = alive
            left = max(0.0, self._end - time.monotonic())
            print(
                f"actors: {len(alive)} of {self._wanted} nodes are here ({', '.join(alive)}); waiting for up to "
                f"{left:.0f} s",
                file=sys.stderr, flush=True,
            )  # fmt: skip
