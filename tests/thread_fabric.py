"""A fabric whose ranks are threads of this process, with faults to order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.collective.group import Group
from actors.collective.terrain import Terrain, scattered
from actors.costs import Costs
from actors.exceptions import CollectiveError
from actors.messages import Payload
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


costs = Costs()
"""What the ways between the threads cost, for the choice of an algorithm."""


class Killed(BaseException):
    """Ends the thread of a rank that was killed: no handler for errors sees it, as none sees SIGKILL."""


@dataclass
class World:
    """What the ranks of one group share."""

    size: int
    group: str = "test"
    changed: threading.Condition = field(default_factory=threading.Condition)
    letters: dict[tuple[int, int, str], Payload] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)
    aborted: str | None = None
    parts: dict[str, World] = field(default_factory=dict)
    messages: int = 0
    bytes_sent: int = 0
    largest_backlog: int = 0

    def describe(self, rank: int) -> str:
        return f"rank {rank} (actor Member on node thread-{rank})"

    def kill(self, rank: int) -> None:
        """The rank's process is gone, and every other rank gets to know."""
        with self.changed:
            self.dead.add(rank)
            self.changed.notify_all()


class ThreadFabric:
    """One rank's end. Everything is pickled on its way, so that a shared array would show.

    Args:
        world: what the ranks share.
        rank: this rank.
        kill_after: the rank dies when it sends one message more than this.
        mute_after: the rank stops for good, without dying, when it sends one message more than this.
    """

    def __init__(
        self, world: World, rank: int, *, kill_after: int | None = None, mute_after: int | None = None
    ) -> None:
        self.world = world
        self.rank = rank
        self._kill_after, self._mute_after = kill_after, mute_after
        self._sent = 0

    @property
    def size(self) -> int:
        return self.world.size

    @property
    def group(self) -> str:
        return self.world.group

    @property
    def terrain(self) -> Terrain:
        return scattered(self.size, costs, "threads of one process")

    @property
    def aborted(self) -> str | None:
        return self.world.aborted

    def now(self) -> float:
        return time.monotonic()

    def meet(self, deadline: float) -> None:
        pass

    def sub(self, name: str, ranks: Sequence[int]) -> ThreadFabric:
        with self.world.changed:
            world = self.world.parts.setdefault(name, World(len(ranks), name))
            world.dead |= {ranks.index(rank) for rank in self.world.dead if rank in ranks}
        return ThreadFabric(world, ranks.index(self.rank))

    def close(self) -> None:
        pass

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:
        assert dst != self.rank
        assert 0 <= dst < self.size
        self._meet_fate()
        payload = dumps(value, lent=lent)
        if not lent:
            payload = Payload(payload.pickle, tuple(bytes(buffer) for buffer in payload.buffers))
        with self.world.changed:
            self._check(dst)
            key = (self.rank, dst, tag)
            assert key not in self.world.letters, f"tag used twice: {key}"
            self.world.letters[key] = payload
            self.world.messages += 1
            self.world.bytes_sent += payload.nbytes
            backlog = sum(letter.nbytes for letter in self.world.letters.values())
            self.world.largest_backlog = max(self.world.largest_backlog, backlog)
            self.world.changed.notify_all()

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        assert src != self.rank
        key = (src, self.rank, tag)
        with self.world.changed:
            while key not in self.world.letters:
                self._check(src)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self.world.changed.wait(left)
            payload = self.world.letters.pop(key)
        return loads(payload)

    def abort(self, reason: str) -> None:
        with self.world.changed:
            if self.rank not in self.world.dead and self.world.aborted is None:
                self.world.aborted = reason
                self.world.changed.notify_all()

    def leave(self, reason: str) -> None:
        self.abort(reason)

    def describe(self, rank: int) -> str:
        return self.world.describe(rank)

    def _meet_fate(self) -> None:
        if self._kill_after == self._sent:
            self.world.kill(self.rank)
        if self._mute_after == self._sent:
            with self.world.changed:
                self.world.changed.wait_for(lambda: self.world.aborted is not None, timeout=30)
                self.world.dead.add(self.rank)
        self._sent += 1

    def _check(self, peer: int) -> None:
        if self.rank in self.world.dead:
            raise Killed
        if self.world.aborted is not None:
            raise CollectiveError(self.world.aborted)
        if peer in self.world.dead:
            raise CollectiveError(f"{self.describe(peer)} died")


def run_ranks(fabrics: list[ThreadFabric], work: Callable[[Group], Any]) -> list[Any]:
    """Runs ``work`` on every rank at once; returns what each returned, or the exception it raised."""

    def one(fabric: ThreadFabric) -> Any:
        try:
            return work(Group(fabric))
        except (Exception, Killed) as error:
            return error

    with ThreadPoolExecutor(len(fabrics)) as pool:
        return list(pool.map(one, fabrics))


def run(size: int, work: Callable[[Group], Any], *, world: World | None = None) -> list[Any]:
    """Runs ``work`` on every rank of a sound group; raises what any of them raised."""
    world = world or World(size)
    results = run_ranks([ThreadFabric(world, rank) for rank in range(size)], work)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    assert world.letters == {}, "messages nobody read"
    return results
