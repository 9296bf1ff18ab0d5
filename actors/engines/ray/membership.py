"""Groups on Ray: the values that ranks send each other travel as calls of a method that every actor here has."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions as rays

from actors.collective.context import add_group, remove_group
from actors.collective.group import Group
from actors.collective.terrain import Terrain, scattered
from actors.costs import Costs
from actors.exceptions import CollectiveError

if TYPE_CHECKING:
    from collections.abc import Sequence

ABORT = "abort"  # the tag that ends a group; no algorithm uses it
SLICE_SECONDS = 0.2
LOOK_SECONDS = 1.0  # between two questions whether a silent rank lives


class RayFabric:
    """One member's lane to the others; see `actors.collective.fabric.Fabric`."""

    def __init__(self, owner: Membership, name: str, rank: int, size: int) -> None:
        self._owner = owner
        self.group, self.rank, self.size = name, rank, size
        self._arrived = owner.arrived
        self._inbox: dict[tuple[int, str], deque[Any]] = {}
        self._aborted: str | None = None
        self._handles: Sequence[Any] = ()
        self._labels: Sequence[str] = ()

    @property
    def terrain(self) -> Terrain:
        """See `Fabric`."""
        return scattered(self.size, Costs(), "Ray's object store carries what the ranks send each other")

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

    def sub(self, name: str, ranks: Sequence[int]) -> RayFabric:
        """See `Fabric`."""
        part = self._owner.fabric(name, list(ranks).index(self.rank), len(ranks))
        part.entered([self._handles[rank] for rank in ranks], [self._labels[rank] for rank in ranks])
        return part

    def close(self) -> None:
        """See `Fabric`."""
        self._owner.forget(self.group)
        self.end("it was closed")

    def now(self) -> float:
        """See `Fabric`."""
        return time.monotonic()

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:  # noqa: ARG002 - Ray copies it
        """See `Fabric`."""
        if self._aborted is not None:
            raise CollectiveError(self._aborted)
        if dst == self.rank:
            self.put(self.rank, tag, value)
            return
        if self._owner.is_dead(self._handles[dst]):
            raise self._gone(dst)
        self._handles[dst]._actors_take.remote(self.group, self.rank, tag, value)  # noqa: SLF001 - ours

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        """See `Fabric`."""
        key, looked = (src, tag), time.monotonic()
        while True:
            with self._arrived:
                waiting = self._inbox.get(key)
                if waiting is None and self._aborted is None and (deadline is None or time.monotonic() < deadline):
                    left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
                    self._arrived.wait(max(left, 0.0))
                    waiting = self._inbox.get(key)
                if waiting is not None:
                    value = waiting.popleft()
                    if not waiting:
                        del self._inbox[key]
                    return value
            if self._aborted is not None:
                raise CollectiveError(self._aborted)
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{self.describe(src)} sent nothing")
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
                handle._actors_take.remote(self.group, self.rank, ABORT, reason)  # noqa: SLF001 - ours

    def leave(self, reason: str) -> None:
        """Does as `abort`: calls that Ray makes may overtake each other, so that nothing tells what has been sent."""
        self.abort(reason)

    def describe(self, rank: int) -> str:
        """See `Fabric`."""
        return f"rank {rank} ({self._labels[rank]})" if self._labels else f"rank {rank}"

    def put(self, source: int, tag: str, value: Any) -> None:
        """A value has come."""
        with self._arrived:
            if tag == ABORT:
                self._aborted = self._aborted or str(value)
            else:
                self._inbox.setdefault((source, tag), deque()).append(value)
            self._arrived.notify_all()

    def end(self, reason: str) -> None:
        """The group is over."""
        with self._arrived:
            self._aborted = self._aborted or reason
            self._arrived.notify_all()


class Membership:
    """The groups that this actor is in.

    Args:
        label: of the actor.
    """

    def __init__(self, label: str) -> None:
        self.arrived = threading.Condition()
        self._label = label
        self._fabrics: dict[str, RayFabric] = {}
        self._early: dict[str, list[tuple[int, str, Any]]] = {}  # for groups that this actor does not know of yet
        self._dead: set[str] = set()

    def fabric(self, name: str, rank: int, size: int) -> RayFabric:
        """Begins a group; what has come for it already is put into it."""
        with self.arrived:
            made = self._fabrics[name] = RayFabric(self, name, rank, size)
            for source, tag, value in self._early.pop(name, ()):
                made.put(source, tag, value)
        return made

    def forget(self, name: str) -> None:
        """What comes for that group is dropped from now on."""
        self._fabrics.pop(name, None)

    def expect(self, name: str, rank: int, size: int) -> None:
        """This actor is being made as a rank of that group."""
        add_group(Group(self.fabric(name, rank, size)))

    def enter(self, name: str, rank: int, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """All of a group have been made."""
        if name not in self._fabrics:
            self.expect(name, rank, len(handles))
        self._fabrics[name].entered(handles, labels)

    def leave(self, name: str) -> None:
        """Ends this rank's part in a group."""
        remove_group(name)

    def take(self, name: str, source: int, tag: str, value: Any) -> None:
        """A value of another rank has come."""
        with self.arrived:
            known = self._fabrics.get(name)
            if known is None:
                self._early.setdefault(name, []).append((source, tag, value))
                return
        known.put(source, tag, value)

    def is_dead(self, handle: Any, seconds: float | None = None) -> bool:
        """Whether an actor is known to have ended; with ``seconds``, Ray is asked, for so long at most."""
        key = handle._actor_id.hex()  # noqa: SLF001 - Ray has no other name for it
        if seconds is not None and key not in self._dead:
            try:
                ray.get(handle._actors_alive.remote(), timeout=seconds)  # noqa: SLF001 - ours
            except rays.GetTimeoutError:
                return False
            except rays.RayActorError:
                self._dead.add(key)
        return key in self._dead
