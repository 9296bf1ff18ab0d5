"""A wiretap on a lab's switch: records every frame that passes, and finds things in what it has recorded."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from netlab import COMMAND_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from netlab import Lab

# Frames that come in at a port; what goes out again is the same.
RECORD = """
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 64 << 20)
with open(sys.argv[1], "wb") as out:
    print("ready", flush=True)
    while True:
        frame, (port, _, direction, *_) = wire.recvfrom(1 << 17)
        if direction != socket.PACKET_OUTGOING and port.startswith("port"):
            out.write(len(frame).to_bytes(4, "big") + frame)
            out.flush()
"""


class Wiretap:
    """Listens while the block lasts."""

    def __init__(self, lab: Lab, path: Path) -> None:
        self._path = path
        namespace = f"{lab.name}-switch"
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", RECORD, str(path)], stdout=subprocess.PIPE
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(COMMAND_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _frames(self) -> Iterator[bytes]:
        data, at = self._path.read_bytes(), 0
        while at + 4 <= len(data):
            length = int.from_bytes(data[at : at + 4], "big")
            yield data[at + 4 : at + 4 + length]
            at += 4 + length

    def _flows(self) -> dict[tuple[str, int, str, int], bytes]:
        """What each side of each TCP connection over IPv4 and IPv6 has sent, in order."""
        pieces: dict[tuple[str, int, str, int], dict[int, bytes]] = defaultdict(dict)
        for frame in self._frames():
            parsed = _tcp(frame)
            if parsed is not None and parsed[2]:
                pieces[parsed[0]].setdefault(parsed[1], parsed[2])
        return {flow: b"".join(parts[number] for number in sorted(parts)) for flow, parts in pieces.items()}

    def saw(self, what: bytes) -> bool:
        """Whether this went over the switch in clear, within a packet or over several of one connection."""
        if what in self._path.read_bytes():
            return True
        return any(what in sent for sent in self._flows().values())

    def first_bytes(self, port: int) -> list[tuple[str, bytes]]:
        """The first bytes that callers at a port have sent, with their IPv4 addresses."""
        return [
            (source, sent[:5])
            for (source, _, _, target), sent in self._flows().items()
            if target == port and ":" not in source
        ]

    def sent(self, source: str, not_at: set[int]) -> bytes:
        """What a host has sent on its first connection that has none of these ports at either end."""
        flows = self._flows()
        return next(
            (
                sent
                for (host, own, _, port), sent in flows.items()
                if host == source and port not in not_at and own not in not_at
            ),
            b"",
        )


def _tcp(frame: bytes) -> tuple[tuple[str, int, str, int], int, bytes] | None:
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == 6:
        start = 14 + (frame[14] & 15) * 4
        end = 14 + int.from_bytes(frame[16:18], "big")
        source, target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
    elif kind == b"\x86\xdd" and frame[20] == 6:
        start, end = 54, 54 + int.from_bytes(frame[18:20], "big")
        source, target = (socket.inet_ntop(socket.AF_INET6, part) for part in (frame[22:38], frame[38:54]))
    else:
        return None
    ports = struct.unpack("!HH", frame[start : start + 4])
    number = int.from_bytes(frame[start + 4 : start + 8], "big")
    payload = frame[start + (frame[start + 12] >> 4) * 4 : end]
    return (source, ports[0], target, ports[1]), number, payload
