"""A group on Ray, as one of its ranks sees it: what the ranks send each other, and who is gone."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from actors.collective.channel import SilentRankError
from actors.collective.terrain import Terrain, scattered
from actors.costs import Costs
from actors.exceptions import CollectiveError

from . import gloo

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from actors.collective.channel import Channel
    from actors.reduction import Reduction

    from .membership import Membership

ABORT = "abort"  # the tag that ends a group; no algorithm uses it
LEAVE = "leave"  # that of the last message of a rank: the group is over for it alone; no algorithm uses it
MEETING = "meeting"  # the tag by which the ranks find out whether all have torch; no algorithm uses it
SLICE_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two questions whether a silent rank lives


class RayFabric:
    """One member's lane to the others; see `actors.collective.fabric.Fabric`.

    What they send each other goes as calls of a method that every actor here has, and so through Ray's object store;
    or by gloo, once all have met, where all have torch.
    """

    def __init__(self, owner: Membership, name: str, rank: int, size: int) -> None:
        self._owner = owner
        self.group, self.rank, self.size = name, rank, size
        self._arrived = owner.arrived
        self._sending = threading.Lock()
        self._sent: defaultdict[int, int] = defaultdict(int)  # how many messages, by rank
        self._taken: defaultdict[int, int] = defaultdict(int)
        self._ahead: dict[tuple[int, int], tuple[str, Any]] = {}  # came before one that was sent before it
        self._lost: set[int] = set()
        self._left: dict[int, tuple[str, int]] = {}  # why, and in how many of gloo's own all-reduces it took part
        self._reduced = 0
        self._met = size == 1
        self._lanes: gloo.Lanes | None = None
        self._inbox: dict[tuple[int, str], deque[Any]] = {}
        self.aborted: str | None = None  # see `Fabric`
        self._handles: Sequence[Any] = ()
        self._labels: Sequence[str] = ()

    @property
    def terrain(self) -> Terrain:
        """See `Fabric`."""
        way = "Ray's object store carries" if self._lanes is None else "gloo carries"
        native = self if self._lanes is not None else None
        return scattered(self.size, Costs(), f"{way} what the ranks send each other", native)

    def all_reduce(self, channel: Channel, flat: npt.NDArray[Any], reduction: Reduction) -> npt.NDArray[Any] | None:
        """See `actors.collective.terrain.NativeAllReduce`: gloo's own."""
        if self._lanes is None or channel.ranks is not None or not gloo.reduces(reduction.op, flat.dtype.name):
            return None
        work, result = self._lanes.all_reduce(reduction.op, flat)
        while not work.is_completed():
            self._check(channel.deadline)
            with suppress(RuntimeError):  # the slice is over, or the work has failed
                work.wait(timedelta(seconds=SLICE_SECONDS))
        if not work.is_success():
            raise self._failed_together(channel.deadline)
        self._reduced += 1
        if reduction.op == "mean":
            np.divide(result, result.dtype.type(self.size), out=result)
        return result

    def _check(self, deadline: float) -> None:
        """Raises where waiting for all the others is in vain."""
        if self.aborted is not None:
            raise CollectiveError(self.aborted)
        if self._lost:
            raise self._gone(min(self._lost))
        for reason, reduced in tuple(self._left.values()):
            if reduced <= self._reduced:  # else it has done its part of this one
                raise CollectiveError(reason)
        if time.monotonic() >= deadline:
            raise SilentRankError((self.rank - 1) % self.size, [rank for rank in range(self.size) if rank != self.rank])

    def _failed_together(self, deadline: float) -> CollectiveError:
        """Returns why gloo's reduction has failed: a rank is gone, as its connection will tell, or another said so."""
        until = min(deadline, time.monotonic() + LOOK_SECONDS)
        with self._arrived:
            while not self._lost and self.aborted is None and time.monotonic() < until:
                self._arrived.wait(SLICE_SECONDS)
        if self._lost:
            return self._gone(min(self._lost))
        return CollectiveError(self.aborted or "gloo has lost a connection to another rank")

    def entered(self, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """All members have been made: this is where they are."""
        with self._arrived:
            self._handles, self._labels = handles, labels
            self._arrived.notify_all()

    def meet(self, deadline: float) -> None:
        """See `Fabric`."""
        with self._arrived:
            while not self._handles and self.size > 1:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CollectiveError(
                        f"group {self.group!r} is not complete: on Ray, collectives can be called once every "
                        "constructor is over, and not in one"
                    )
                self._arrived.wait(min(SLICE_SECONDS, left))
        if not self._met:
            self._find_lanes(deadline)
            self._met = True

    def _find_lanes(self, deadline: float) -> None:
        """Goes over to gloo where all ranks have torch; each says so, rank 0 where they find each other."""
        host, mine = ray.util.get_node_ip_address(), gloo.is_there()
        left = deadline - time.monotonic()
        meeting = gloo.Meeting(host, 0, left) if mine and self.rank == 0 else None
        said: dict[int, Any] = {self.rank: meeting.address if meeting is not None else mine}
        others = [rank for rank in range(self.size) if rank != self.rank]
        for rank in others:
            self.send(rank, MEETING, said[self.rank])
        for rank in others:
            try:
                said[rank] = self.recv(rank, MEETING, deadline)
            except TimeoutError:
                raise SilentRankError(rank) from None
        if all(said.values()):
            there = meeting or gloo.Meeting(said[0][0], said[0][1], left)
            self._lanes = gloo.Lanes(there, host, self.rank, self.size, self.put, self.lost)

    def sub(self, name: str, ranks: Sequence[int]) -> RayFabric:
        """See `Fabric`."""
        part = self._owner.fabric(name, list(ranks).index(self.rank), len(ranks))
        part.entered([self._handles[rank] for rank in ranks], [self._labels[rank] for rank in ranks])
        return part

    def close(self) -> None:
        """See `Fabric`."""
        self._owner.forget(self.group)
        self.end("it was closed")
        if self._lanes is not None:
            self._lanes.close()

    def now(self) -> float:
        """See `Fabric`."""
        return time.monotonic()

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:
        """See `Fabric`."""
        if self.aborted is not None:
            raise CollectiveError(self.aborted)
        if dst in self._left:
            raise CollectiveError(self._left[dst][0])
        if dst in self._lost or (dst != self.rank and self._owner.is_dead(self._handles[dst])):
            raise self._gone(dst)
        with self._sending:
            number = self._sent[dst]
            if dst == self.rank:
                self.put(self.rank, number, tag, value)
            elif self._lanes is None:
                self._handles[dst]._actors_take.remote(self.group, self.rank, number, tag, value)  # noqa: SLF001 - ours
            else:
                try:
                    self._lanes.send(dst, number, tag, value, lent=lent)
                except RuntimeError:
                    raise self._gone(dst) from None
            self._sent[dst] = number + 1

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        """See `Fabric`."""
        key, looked = (src, tag), time.monotonic()
        while True:
            with self._arrived:
                waiting = self._inbox.get(key)
                if waiting is None and self.aborted is None and (deadline is None or time.monotonic() < deadline):
                    left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
                    self._arrived.wait(max(left, 0.0))
                    waiting = self._inbox.get(key)
                if waiting is not None:
                    value = waiting.popleft()
                    if not waiting:
                        del self._inbox[key]
                    return value
                left_behind, lost = self._left.get(src), src in self._lost  # it has sent nothing more: see `put`
            if self.aborted is not None:
                raise CollectiveError(self.aborted)
            if left_behind is not None:
                raise CollectiveError(left_behind[0])
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{self.describe(src)} sent nothing")
            if lost:
                raise self._gone(src)
            if time.monotonic() - looked > LOOK_SECONDS and src != self.rank:
                looked = time.monotonic()
                if self._owner.is_dead(self._handles[src], LOOK_SECONDS):
                    raise self._gone(src)

    def _gone(self, rank: int) -> CollectiveError:
        return CollectiveError(f"{self.describe(rank)} is gone: its actor on Ray has ended")

    def abort(self, reason: str) -> None:
        """See `Fabric`."""
        self.end(reason)
        for rank, handle in enumerate(self._handles):
            if rank != self.rank:
                handle._actors_take.remote(self.group, self.rank, 0, ABORT, reason)  # noqa: SLF001 - ours

    def leave(self, reason: str) -> None:
        """See `Fabric`."""
        if self.aborted is None and self._handles:
            for rank in range(self.size):
                if rank != self.rank:
                    with suppress(CollectiveError):  # it is gone itself
                        self.send(rank, LEAVE, (reason, self._reduced))
        self.end(reason)

    def describe(self, rank: int) -> str:
        """See `Fabric`."""
        return f"rank {rank} ({self._labels[rank]})" if self._labels else f"rank {rank}"

    def put(self, source: int, number: int, tag: str, value: Any) -> None:
        """A value has come; Ray may bring one before another that was sent first."""
        with self._arrived:
            if tag == ABORT:
                self.aborted = self.aborted or str(value)
            else:
                self._ahead[source, number] = (tag, value)
                while (next_one := self._ahead.pop((source, self._taken[source]), None)) is not None:
                    self._taken[source] += 1
                    if next_one[0] == LEAVE:
                        self._left[source] = next_one[1]
                        continue
                    self._inbox.setdefault((source, next_one[0]), deque()).append(next_one[1])
            self._arrived.notify_all()

    def lost(self, rank: int) -> None:
        """The connection to a rank is lost, since its process has ended."""
        with self._arrived:
            self._lost.add(rank)
            self._arrived.notify_all()

    def end(self, reason: str) -> None:
        """The group is over."""
        with self._arrived:
            self.aborted = self.aborted or reason
            self._arrived.notify_all()
