"""Traffic: how many bytes the links of this process have carried, to and from which device and by which way."""

from __future__ import annotations

import threading

_Key = tuple[str | None, str]


class Traffic:
    """What one link has carried; its owner adds to it.

    Args:
        node: id of the device at the other end; None for this one.
        path: ``"socket"`` for a socket of this host, ``"grpc"``.

    Attributes:
        sent: bytes.
        received: bytes.
    """

    __slots__ = ("_key", "received", "sent")

    def __init__(self, node: str | None, path: str) -> None:
        self._key = (node, path)
        self.sent = 0
        self.received = 0
        with _lock:
            _carrying.add(self)

    def over(self) -> None:
        """The link has ended."""
        with _lock:
            if self in _carrying:
                _carrying.remove(self)
                self.add_to(_carried)

    def add_to(self, sums: dict[_Key, list[int]]) -> None:
        """Adds what it has carried so far to that of others."""
        both = sums.setdefault(self._key, [0, 0])
        both[0] += self.sent
        both[1] += self.received


_lock = threading.Lock()
_carrying: set[Traffic] = set()
_carried: dict[_Key, list[int]] = {}


def carried() -> tuple[tuple[str | None, str, int, int], ...]:
    """Returns what all links of this process have carried so far: device, path, bytes sent, bytes received."""
    with _lock:
        sums = {key: list(both) for key, both in _carried.items()}
        for traffic in _carrying:
            traffic.add_to(sums)
    return tuple((node, path, sent, received) for (node, path), (sent, received) in sums.items())
