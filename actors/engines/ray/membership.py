"""The groups that an actor on Ray is in."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions as rays

from actors.collective.context import add_group, remove_group
from actors.collective.group import Group

from .fabric import RayFabric

if TYPE_CHECKING:
    from collections.abc import Sequence


MOST_OVER = 10_000  # groups whose late messages are known for what they are


def _uncounted(handle: Any) -> Any:
    """Returns a handle that does not keep its actor: the members of a group would keep each other."""
    state = handle._serialization_helper()[0]  # noqa: SLF001 - what Ray itself does for a handle found by name
    return type(handle)._deserialization_helper(state, True)  # noqa: SLF001


class Membership:
    """The groups that this actor is in.

    Args:
        label: of the actor.
    """

    def __init__(self, label: str) -> None:
        self.arrived = threading.Condition()
        self._label = label
        self._fabrics: dict[str, RayFabric] = {}
        self._early: dict[str, list[tuple[int, int, str, Any]]] = {}  # for groups that this actor does not know of yet
        self._over: OrderedDict[str, None] = OrderedDict()
        self._dead: set[str] = set()

    def fabric(self, name: str, rank: int, size: int) -> RayFabric:
        """Begins a group; what has come for it already is put into it."""
        with self.arrived:
            made = self._fabrics[name] = RayFabric(self, name, rank, size)
            for source, number, tag, value in self._early.pop(name, ()):
                made.put(source, number, tag, value)
        return made

    def forget(self, name: str) -> None:
        """What comes for that group is dropped from now on."""
        with self.arrived:
            self._fabrics.pop(name, None)
            self._over[name] = None
            if len(self._over) > MOST_OVER:
                self._over.popitem(last=False)

    def expect(self, name: str, rank: int, size: int) -> None:
        """This actor is being made as a rank of that group."""
        add_group(Group(self.fabric(name, rank, size)))

    def enter(self, name: str, rank: int, handles: Sequence[Any], labels: Sequence[str]) -> None:
        """All of a group have been made."""
        if name not in self._fabrics:
            self.expect(name, rank, len(handles))
        self._fabrics[name].entered([_uncounted(handle) for handle in handles], labels)

    def leave(self, name: str) -> None:
        """Ends this rank's part in a group."""
        remove_group(name)

    def take(self, name: str, source: int, number: int, tag: str, value: Any) -> None:
        """A value of another rank has come."""
        with self.arrived:
            known = self._fabrics.get(name)
            if known is None and name in self._over:
                return
            if known is None:
                self._early.setdefault(name, []).append((source, number, tag, value))
                return
        known.put(source, number, tag, value)

    def is_dead(self, handle: Any, seconds: float | None = None) -> bool:
        """Whether an actor is known to have ended; with ``seconds``, Ray is asked, for so long at most."""
        key = handle._actor_id.hex()  # noqa: SLF001 - Ray has no other name for it
        if seconds is not None and key not in self._dead:
            try:
                ray.get(handle._actors_alive.remote(), timeout=seconds)  # noqa: SLF001 - ours
            except rays.GetTimeoutError:
                return False
            except (rays.RayActorError, rays.RayTaskError):  # by the second: its constructor has raised
                self._dead.add(key)
        return key in self._dead
