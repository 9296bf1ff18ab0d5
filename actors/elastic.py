"""Elastic groups: one actor on each node, more when a device comes and fewer when one goes, always of one state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from actors.api import get, kill, nodes
from actors.collective import create_group, destroy_group
from actors.exceptions import ActorError, ActorsError, ArgumentError, CollectiveError
from actors.saving import moves
from actors.strategy import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from actors.actorclass import ActorClass
    from actors.group import ActorGroup
    from actors.handle import ActorHandle

STATE_SECONDS = 120.0


class MemberLostError(CollectiveError):
    """A member was lost while all were at work: the group is made anew, of one state, and goes on."""


class ElasticGroup:
    """A group with one member on each node that answers. Its members are of one state between two runs.

    ``with ElasticGroup(Trainer) as team: team.run("step")`` calls a method on all. Where a member or its node is lost,
    the others are put on the state of one that is left, the group is made anew without it, and `MemberLostError` is
    raised: the program goes on from what the members say that they have done.

    Args:
        cls: an actor class with ``__actor_save__`` and ``__actor_load__``, by which one that comes gets the state of
            the others. Inside its methods `actors.collective` is the group as it is now.
        args: of its constructor.
        fewest: members below which the group is of no use.
        kwargs: of its constructor.

    Raises:
        TypeError: the class lacks the hooks.
        ActorsError: there are fewer nodes than ``fewest``.
    """

    def __init__(self, cls: ActorClass[Any, Any], *args: Any, fewest: int = 1, **kwargs: Any) -> None:
        if not moves(cls.cls):
            raise ArgumentError(
                f"{cls!r} needs __actor_save__ and __actor_load__: one that comes gets the others' state"
            )
        self._class = cls
        self._args = args
        self._kwargs = kwargs
        self._fewest = fewest
        self._members: dict[str, ActorHandle] = {}  # by node
        self._group: ActorGroup[Any] | None = None
        self.adapt()

    def __len__(self) -> int:
        """How many members there are."""
        return len(self._members)

    @property
    def nodes(self) -> list[str]:
        """Ids of the nodes of the members, in rank order."""
        return list(self._members)

    @property
    def members(self) -> list[ActorHandle]:
        """The members, in rank order."""
        return list(self._members.values())

    def adapt(self) -> bool:
        """Takes in nodes that have come and leaves out those that have gone or are drained; returns whether any had.

        Raises:
            ActorsError: fewer are left than the group needs.
        """
        alive = {node.id for node in nodes() if node.alive and not node.draining}
        gone = [node for node in self._members if node not in alive]
        come = [node for node in sorted(alive) if node not in self._members]
        if gone or come:
            self._change(gone, come, next((node for node in self._members if node in alive), None))
        return bool(gone or come)

    def run(self, method: str, *args: Any, timeout: float | None = None) -> list[Any]:
        """Calls a method on all members; returns what each gave, in rank order.

        Raises:
            MemberLostError: one was lost; the others are of one state again, and the group goes on.
            ActorsError: fewer are left than the group needs.
            Exception: what the method raised on a member that lives, where none was lost.
        """
        calls = {node: getattr(member, method).remote(*args) for node, member in self._members.items()}
        values, errors = {}, {}
        for node, call in calls.items():
            try:
                values[node] = get(call, timeout=timeout)
            except (ActorError, CollectiveError) as error:
                errors[node] = error
        if not errors:
            return list(values.values())
        lost = [node for node, member in self._members.items() if not _lives(member)]
        if not lost:
            raise next(iter(errors.values()))
        # One that has done its step is ahead of those that were cut short.
        left = [node for node in (*values, *errors) if node not in lost]
        self._change(lost, [], left[0] if left else None)
        raise MemberLostError(
            f"{len(lost)} of {len(calls)} members were lost during {method}; {len(self)} go on, of the state of one"
        ) from next(iter(errors.values()))

    def _change(self, gone: list[str], come: list[str], source: str | None) -> None:
        for node in gone:
            kill(self._members.pop(node))
        if len(self._members) + len(come) < self._fewest:
            raise ActorsError(
                f"{len(self._members) + len(come)} nodes are left for the group, which needs {self._fewest}: "
                "add devices"
            )
        for node in come:
            there = self._class.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            self._members[node] = there.remote(*self._args, **self._kwargs)
        if source is not None:
            state = self._members[source].__ray_call__.remote(_save)
            others = [member for node, member in self._members.items() if node != source]
            get([member.__ray_call__.remote(_load, state) for member in others], timeout=STATE_SECONDS)
        if self._group is not None:
            destroy_group(self._group)
        self._group = create_group(self.members)

    def close(self) -> None:
        """Ends the members."""
        for member in self._members.values():
            kill(member)
        self._members.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lives(member: ActorHandle) -> bool:
    try:
        get(member.__ray_ready__.remote())
    except ActorError:
        return False
    return True


def _save(thing: Any) -> Any:
    return thing.__actor_save__()


def _load(thing: Any, state: Any) -> None:
    thing.__actor_load__(state)
