"""Messages between two ranks, in order for each tag."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from actors.exceptions import CollectiveError

from .packing import Spec, pack, unpack
from .ranks import check_rank

if TYPE_CHECKING:
    from .fabric import Fabric

Lane = tuple[int, int | str]
"""The other rank and the tag."""


class Mail:
    """What this rank sends to and receives from single other ranks, apart from the collectives."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._guard = threading.Lock()
        self._sent: Counter[Lane] = Counter()
        self._received: Counter[Lane] = Counter()
        # One receiver at a time for each lane, or two would wait for the same message.
        self._receiving: defaultdict[Lane, threading.Lock] = defaultdict(threading.Lock)

    def send(self, x: Any, dst: int, tag: int | str) -> None:
        """Hands ``x`` over for rank ``dst``."""
        lane = self._lane(dst, tag, "dst")
        packed = pack(x)
        with self._guard:
            number = self._sent[lane]
            self._sent[lane] += 1
        self._fabric.send(lane[0], f"mail/{lane[1]!r}/{number}", (packed.spec.plain(), packed.data))

    def recv(self, src: int, tag: int | str, seconds: float) -> Any:
        """Returns the next value of rank ``src`` with this tag."""
        deadline = self._fabric.now() + seconds
        lane = self._lane(src, tag, "src")
        with self._guard:
            turn = self._receiving[lane]
        if not turn.acquire(timeout=seconds):
            raise CollectiveError(f"another thread of this rank has been receiving the same for {seconds:g} s")
        try:
            spec, data = self._next(lane, deadline, seconds)
            self._received[lane] += 1
        finally:
            turn.release()
        return unpack(Spec.of(spec), data)

    def _next(self, lane: Lane, deadline: float, seconds: float) -> Any:
        src, tag = lane
        try:
            return self._fabric.recv(src, f"mail/{tag!r}/{self._received[lane]}", deadline)
        except TimeoutError:
            raise CollectiveError(
                f"{self._fabric.describe(src)} sent nothing with tag {tag!r} within {seconds:g} s"
            ) from None

    def _lane(self, rank: int, tag: int | str, name: str) -> Lane:
        number = check_rank(rank, self._fabric.size, name)
        if number == self._fabric.rank:
            raise ValueError(f"{name}={number} is this rank itself: keep the value instead of sending it")
        if not isinstance(tag, int | str):
            raise TypeError(f"tag must be an integer or a string, not {type(tag).__name__}")
        return number, tag if isinstance(tag, str) else int(tag)
