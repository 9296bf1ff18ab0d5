"""The ledger of bytes: what the processes of a node have sent and received, also those that have ended."""

from __future__ import annotations

from collections import OrderedDict

MOST_PROCESSES = 5_000  # whose last word is kept

Carried = tuple[tuple["str | None", str, int, int], ...]
"""Device at the other end (None: this one), path, bytes sent, bytes received: of one process, since it began."""


class Ledger:
    """Adds up what processes say of themselves, each of which says again and again what it has carried so far."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, dict[tuple[str | None, str], tuple[int, int]]] = OrderedDict()
        self._sums: dict[tuple[str | None, str], list[int]] = {}

    def take(self, process: str, carried: Carried) -> None:
        """A process says what it has carried."""
        before = self._last.pop(process, {})
        now = {(node, path): (sent, received) for node, path, sent, received in carried}
        for key, (sent, received) in now.items():
            sums = self._sums.setdefault(key, [0, 0])
            known = before.get(key, (0, 0))
            sums[0] += max(0, sent - known[0])  # a report may be overtaken by a later one
            sums[1] += max(0, received - known[1])
            now[key] = (max(sent, known[0]), max(received, known[1]))
        self._last[process] = before | now
        if len(self._last) > MOST_PROCESSES:
            self._last.popitem(last=False)

    def total(self) -> Carried:
        """Returns what all have carried."""
        return tuple((node, path, sent, received) for (node, path), (sent, received) in self._sums.items())
