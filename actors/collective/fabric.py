"""What a group stands on: ranks that can send each other tagged values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .terrain import Terrain


class Fabric(Protocol):
    """The lane between the members of one group, as one member sees it.

    Everything above (algorithms, agreement, errors) uses these few names and no other part of a transport.
    A message is found by its source and tag alone, so messages may overtake each other; a group never uses a
    tag twice between the same two ranks.
    """

    @property
    def rank(self) -> int:
        """Number of this member, from 0."""

    @property
    def size(self) -> int:
        """How many members the group has."""

    @property
    def group(self) -> str:
        """Name of the group, for messages to people."""

    @property
    def terrain(self) -> Terrain:
        """Where the ranks are; known after `meet`."""

    @property
    def aborted(self) -> str | None:
        """Why the group has ended, as far as this member knows; None while it goes on."""

    def now(self) -> float:
        """Returns the time by which deadlines are, in seconds: ``time.monotonic``, but where time is simulated."""

    def meet(self, deadline: float) -> None:
        """Finds out once what the ranks have in common; every rank calls it, before its first collective.

        Raises:
            CollectiveError: a rank has died or the group was aborted.
            SilentRankError: a rank did not come until the deadline.
        """

    def sub(self, name: str, ranks: Sequence[int]) -> Fabric:
        """Returns a fabric of some of the ranks, of which this is one, in this order; they call it alike.

        Args:
            name: of the new group, used once.
            ranks: their numbers here.
        """

    def close(self) -> None:
        """Gives back what the group takes in this process; it can carry nothing any more."""

    def send(self, dst: int, tag: str, value: object, *, lent: bool = False) -> None:
        """Hands ``value`` over for rank ``dst``; never waits until that rank asks for it.

        The caller may change ``value`` as soon as this returns, unless it is lent: then once the rank has received
        it, or the group has ended. Algorithms keep at most a few MiB under way to one rank, except for `Group.send`,
        which hands over its whole array.

        Raises:
            CollectiveError: the rank has died or the group was aborted.
            TypeError: the value cannot be pickled; nothing was sent.
        """

    def recv(self, src: int, tag: str, deadline: float | None) -> object:
        """Returns the value that rank ``src`` sent under ``tag``; arrays in it are read-only.

        What has arrived is returned even when the deadline has passed or its sender has died since.

        Args:
            src: the sending rank.
            tag: the tag it was sent under.
            deadline: when to give up, on the clock of ``time.monotonic``; None waits for as long as both live.

        Raises:
            CollectiveError: the rank has died, or the group was aborted; the message names the rank.
            TimeoutError: the deadline has passed.
        """

    def abort(self, reason: str) -> None:
        """Ends the group on every rank: recv calls under way and all later ones raise CollectiveError(reason).

        The first reason stays. Never raises and never waits.
        """

    def leave(self, reason: str) -> None:
        """This member takes no part any more: who waits for it, or sends to it, gets CollectiveError(reason).

        The others have what it has sent, and may still be finishing what it has done its part of. Never raises and
        never waits.
        """

    def describe(self, rank: int) -> str:
        """Names a rank for people, as in ``rank 2 (actor Trainer on node studio)``."""
