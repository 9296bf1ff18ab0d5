"""The count: why the values and actors of one process are still wanted elsewhere. A pure state machine.

Of each thing it keeps the set of *reasons* to keep it. A reason is a source and a number: a process that holds the
thing, with the number of its hold, or a way between two processes, with the number of the token that travels on it. A
way is FIFO and so is what one process says to the owner, and nothing else is: a token may be used up here before it
has been heard of. Whoever passes a thing on has a reason of its own until after the owner has heard of the token.
That is why a thing without a reason is wanted by nobody, nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Reason = tuple[str, int]
"""A source, which may end and take all its reasons along, and a number that is unique in it."""


class Counts:
    """The reasons to keep things, by their ids.

    Args:
        unwanted: called with the id of a thing when its last reason has gone.
    """

    def __init__(self, unwanted: Callable[[str], None]) -> None:
        self._unwanted = unwanted
        self._reasons: dict[str, set[Reason]] = {}
        self._early: dict[str, set[Reason]] = {}  # taken away before they came
        self._sources: dict[str, set[tuple[str, int]]] = {}  # what each source is a reason for, by id and number

    def __len__(self) -> int:
        return len(self._reasons)

    def has(self, id: str, source: str) -> bool:
        """Whether a source is among the reasons to keep a thing."""
        return any(source == known for known, _ in self._reasons.get(id, ()))

    def add(self, id: str, reason: Reason) -> None:
        """There is a reason to keep a thing, if it has not been taken away before it came."""
        early = self._early.get(id)
        if early is not None and reason in early:
            early.remove(reason)
            if not early:
                del self._early[id]
            if id not in self._reasons:
                self._unwanted(id)
            return
        source, number = reason
        self._reasons.setdefault(id, set()).add(reason)
        self._sources.setdefault(source, set()).add((id, number))

    def remove(self, id: str, reason: Reason, *, held: bool = False) -> None:
        """A reason has gone. One that has not come yet will not count when it comes.

        Args:
            id: of the thing.
            reason: which.
            held: the owner itself refers to the thing: it has not gone, though there be no reason.
        """
        reasons = self._reasons.get(id, set())
        if not reasons and not held:
            return  # the thing itself has gone, and this came late
        if reason not in reasons:
            self._early.setdefault(id, set()).add(reason)
            return
        self._drop(id, reason)
        source, number = reason
        rest = self._sources[source]
        rest.remove((id, number))
        if not rest:
            del self._sources[source]

    def released(self, id: str) -> None:
        """The owner itself does not refer to a thing any more."""
        if id not in self._reasons:
            self._early.pop(id, None)

    def ended(self, source: str) -> None:
        """A source is no more: all its reasons have gone."""
        for id, number in self._sources.pop(source, ()):
            self._drop(id, (source, number))

    def _drop(self, id: str, reason: Reason) -> None:
        reasons = self._reasons[id]
        reasons.remove(reason)
        if not reasons:
            del self._reasons[id]
            self._unwanted(id)  # where the owner does not refer to it either, `released` follows
