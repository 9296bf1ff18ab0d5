"""The switchboard: values that members of groups send each other, past the mailboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from actors.messages import Tensor
    from actors.transport.acceptor import Visitor


REMEMBERED_GROUPS = 1000


class Lane(Protocol):
    """One group's way into this process.

    Attributes:
        anywhere: `take` may be called on any thread, and once more with the same value.
    """

    anywhere: bool

    @property
    def group(self) -> str:
        """Id of the group."""

    async def open(self) -> None:
        """Gets ready to take values. On the I/O loop."""

    def take(self, message: Tensor, visitor: Visitor) -> None:
        """A value of another member has come, from this process. On the I/O loop, or see `anywhere`."""


class Switchboard:
    """Gives arriving values to the group they are meant for; those that come before the group is known wait.

    Where the sender ends before, they wait no longer: the group would not come to be without it.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._early: dict[str, list[tuple[Visitor, Tensor]]] = {}  # with their senders
        self._closed: dict[str, None] = {}  # what comes late for them is for nobody

    def __len__(self) -> int:
        """How many values wait for their group."""
        return sum(map(len, self._early.values()))

    def anywhere(self, message: Tensor) -> bool:
        """Whether `arrived` may be called on any thread with this value."""
        lane = self._lanes.get(message.group)
        return lane is not None and lane.anywhere

    def arrived(self, message: Tensor, visitor: Visitor) -> None:
        """A value has come from this process. On the I/O loop, or see `anywhere`."""
        lane = self._lanes.get(message.group)
        if lane is not None:
            lane.take(message, visitor)
        elif message.group not in self._closed:
            self._early.setdefault(message.group, []).append((visitor, message))

    def gone(self, sender: str) -> None:
        """A process has ended. On the I/O loop."""
        left = {group: [e for e in early if e[0].process != sender] for group, early in self._early.items()}
        self._early = {group: early for group, early in left.items() if early}

    async def add(self, lane: Lane) -> None:
        """Opens a group. On the I/O loop."""
        await lane.open()
        self._lanes[lane.group] = lane
        for visitor, message in self._early.pop(lane.group, []):
            lane.take(message, visitor)

    def remove(self, group: str) -> None:
        """Closes a group. On the I/O loop."""
        self._closed[group] = None  # first: who brings a value on another thread looks for the lane, then here
        self._lanes.pop(group, None)
        while len(self._closed) > REMEMBERED_GROUPS:
            del self._closed[next(iter(self._closed))]
        self._early.pop(group, None)
