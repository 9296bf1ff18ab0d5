"""Holdings: what this process refers to of the values and actors of all processes, and who refers to its own.

A thing, which is a value or an actor, is owned by one process. All that refers to it in another process shares one
`Hold` there, and Python's own counting says when that has gone. Then and when it is made the owner is told. A hold
travels inside a message as a `Claim`: the sender has told the owner of a token before it sends, and the receiver uses
the token up when it has told the owner of its own hold. See `actors.count` for why nothing is given up too early.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from actors.count import Counts
from actors.ids import new_id
from actors.messages import Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actors.address import Address

GRACE_SECONDS = 2.0
"""How long the reasons of an ended process count: what it passed on just before may still be on its way."""

BATCH_CHANGES = 4000  # told in one message; more would make it so large that others overtake it

HOLD, RELEASE, LEND, USE, CLOSE = range(5)

Change = tuple[int, str, str, int]
"""What an owner is told: the kind of change, the thing's id, a passage, the number of a hold or a token."""


class Hold:
    """This process refers to a thing; as long as this object lives, so does the thing.

    Attributes:
        id: of the value or actor.
        owner: the process that counts; None where nobody does.
        subject: what else lives as long: an own value, or the line to an actor.
    """

    __slots__ = ("__weakref__", "id", "owner", "subject")

    def __init__(self, id: str, owner: Address | None, subject: object = None) -> None:
        self.id = id
        self.owner = owner
        self.subject = subject

    def parts(self) -> tuple[Any, ...]:
        """Returns how to find or make this hold where it is unpickled."""
        return (find, (self.id, self.owner))

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by `actors.serialize`: nobody can know where these bytes go, or for how long they are kept.
        if _current is not None:
            _current.pin(self)
        return self.parts()

    def __deepcopy__(self, _: object) -> Hold:
        return self


class _Tie(weakref.ref[Hold]):
    """Sees the end of a hold. Not by ``__del__``: while that runs, others may still find the hold and revive it."""

    __slots__ = ("counted", "id", "number", "owner")

    id: str
    owner: Address | None
    number: int
    counted: bool


class Holdings:
    """The holds of one process and, for what it owns, the count of those of others.

    `hold`, `own`, `pin` and the methods of a `Passage` may be called from any thread; the rest belongs to the I/O loop.

    Args:
        me: this process.
        soon: calls a function on the I/O loop soon, from any thread.
        later: calls a function on the I/O loop after so many seconds.
        tell: sends changes to an owner.
        lookup: returns an own value by its id; None for one that is gone.

    Attributes:
        myself: ids of the actors in this process: a handle of its own does not keep an actor alive.
    """

    def __init__(
        self,
        me: Address,
        soon: Callable[[Callable[[], None]], None],
        later: Callable[..., object],
        tell: Callable[[Address, list[Change]], None],
        lookup: Callable[[str], object],
    ) -> None:
        self.myself: set[str] = set()
        self._me = me
        self._soon = soon
        self._later = later
        self._tell = tell
        self._lookup = lookup
        self._lock = threading.RLock()  # the end of a hold may come at any moment, in this thread too
        self._ties: dict[str, _Tie] = {}
        self._numbers = itertools.count(1)
        self._pinned: set[Hold] = set()
        # What the I/O loop has to do, in this order. An own thing that is lent is kept here until it is counted.
        self._work: deque[_Tie | tuple[Address | None, Hold | None, Change]] = deque()
        self._woken = False
        self._pid = os.getpid()
        self._counts = Counts(self._unwanted)
        self._wanted: dict[str, Hold] = {}  # own things that others hold
        self._passages: dict[str, set[str]] = {}  # on which each process has sent tokens of own things
        self._watchers: dict[str, Callable[[], None]] = {}

    # -- holding ------------------------------------------------------------------------------------------------

    def hold(self, id: str, owner: Address | None) -> Hold:
        """Returns this process's hold of a thing; where it is new, the owner is told."""
        with self._lock:
            found = self._find(id)
            if found is not None:
                return found
            if owner is None:
                return self._make(id, None, None, counted=False)
            if owner.process == self._me.process:
                return self._make(id, self._me, self._lookup(id), counted=False)
            return self._make(id, owner, None, counted=id not in self.myself)

    def own(self, id: str, subject: object) -> Hold:
        """Returns the hold of a thing that this process owns."""
        with self._lock:
            found = self._find(id)
            return found if found is not None else self._make(id, self._me, subject, counted=False)

    def _find(self, id: str) -> Hold | None:
        tie = self._ties.get(id)
        return tie() if tie is not None else None

    def _make(self, id: str, owner: Address | None, subject: object, *, counted: bool) -> Hold:
        hold = Hold(id, owner, subject)
        tie = _Tie(hold, self._lost)
        tie.id, tie.owner, tie.number, tie.counted = id, owner, next(self._numbers), counted
        self._ties[id] = tie
        if counted:
            self._do(owner, None, (HOLD, id, "", tie.number))
        return hold

    def pin(self, hold: Hold) -> None:
        """Keeps a hold for as long as this process lives."""
        self._pinned.add(hold)

    def passage(self) -> Passage:
        """Returns a new passage on which holds can travel to another process."""
        return Passage(self)

    def _lost(self, tie: Any) -> None:
        # On any thread, between any two instructions: nothing here takes a lock or waits.
        self._work.append(tie)
        self._wake()

    def _do(self, owner: Address | None, hold: Hold | None, change: Change) -> None:
        self._work.append((owner, hold, change))
        self._wake()

    def _wake(self) -> None:
        if self._woken or os.getpid() != self._pid:  # a forked child has no I/O loop, and must not use its parent's
            return
        self._woken = True
        try:
            self._soon(self.flush)
        except RuntimeError:  # the loop is closed: there is nobody to tell any more
            pass
        except BaseException:  # Ctrl-C just here: the next change shall wake the loop
            self._woken = False
            raise

    # -- on the I/O loop ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Counts what has changed here, and tells the other owners: each in one message."""
        self._woken = False
        changes: dict[str, tuple[Address, list[Change]]] = {}
        for _ in range(len(self._work)):
            work = self._work.popleft()
            if isinstance(work, _Tie):
                owner, change = self._ended(work)
            else:
                owner, _kept, change = work
            if owner is None:
                continue
            if owner.process == self._me.process:
                self.take_in(owner.process, [change])
            else:
                changes.setdefault(owner.process, (owner, []))[1].append(change)
        for owner, told in changes.values():
            for batch in _batches(told):
                self._tell(owner, batch)

    def _ended(self, tie: _Tie) -> tuple[Address | None, Change]:
        with self._lock:
            last = self._ties.get(tie.id) is tie  # else there is a new hold of the same thing already
            if last:
                del self._ties[tie.id]
        if last and (watcher := self._watchers.pop(tie.id, None)) is not None:
            watcher()
        if last:
            self._counts.released(tie.id)
        return tie.owner if tie.counted else None, (RELEASE, tie.id, "", tie.number)

    def is_held(self, id: str, process: str) -> bool:
        """Whether a thing of this process is kept for another process; for this one, whether it is not free yet."""
        if process == self._me.process:
            return id in self._watchers
        return self._counts.has(id, process)

    def when_free(self, id: str, watcher: Callable[[], None]) -> None:
        """Calls ``watcher`` when nobody refers any more to a thing of this process, which must be held now."""
        self._watchers[id] = watcher

    def take_in(self, process: str, changes: Iterable[Change]) -> None:
        """A process has told what has changed in its holds of things that this one owns."""
        counts = self._counts
        for kind, id, passage, number in changes:
            if kind == HOLD:
                if self._keep(id):
                    counts.add(id, (process, number))
            elif kind == RELEASE:
                counts.remove(id, (process, number))
            elif kind == LEND:
                if self._keep(id):
                    self._passages.setdefault(process, set()).add(passage)
                    counts.add(id, (passage, number))
            elif kind == USE:
                # An actor that passes on a handle of its own has no other reason here.
                counts.remove(id, (passage, number), held=self.holds(id))
            elif kind == CLOSE:
                self._later(GRACE_SECONDS, self._closed, process, passage)

    def holds(self, id: str) -> bool:
        """Whether this process refers to a thing."""
        with self._lock:
            return self._find(id) is not None

    def _keep(self, id: str) -> bool:
        if id in self._wanted:
            return True
        with self._lock:
            hold = self._find(id)
            if hold is None and (subject := self._lookup(id)) is not None:
                hold = self._make(id, self._me, subject, counted=False)
        if hold is None:
            return False  # who asks comes too late
        self._wanted[id] = hold
        return True

    def _unwanted(self, id: str) -> None:
        self._wanted.pop(id, None)

    def gone(self, process: str) -> None:
        """A process has ended: what it held and had lent is given back, once nothing of it is on its way."""
        self._later(GRACE_SECONDS, self._forget, process)

    def _forget(self, process: str) -> None:
        self._counts.ended(process)
        for passage in self._passages.pop(process, ()):
            self._counts.ended(passage)

    def _closed(self, process: str, passage: str) -> None:
        self._counts.ended(passage)
        passages = self._passages.get(process)
        if passages is not None:
            passages.discard(passage)
            if not passages:
                del self._passages[process]

    def __len__(self) -> int:
        """How many own things are kept for others."""
        return len(self._counts)


class Passage:
    """One direction of a conversation: what travels on it are claims, each with a token that is used once."""

    __slots__ = ("_holdings", "_id", "_numbers", "_owners")

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._id = new_id("passage")
        self._numbers = itertools.count(1)
        self._owners: dict[str, Address] = {}

    def lend(self, holds: Iterable[Hold | Claim]) -> tuple[Claim, ...]:
        """Turns the holds of a message that is about to be sent into claims."""
        claims = []
        for hold in holds:
            if isinstance(hold, Claim) or hold.owner is None:
                continue
            number = next(self._numbers)
            self._owners.setdefault(hold.owner.process, hold.owner)
            self._holdings._do(hold.owner, hold, (LEND, hold.id, self._id, number))  # noqa: SLF001 - a part of it
            claims.append(Claim(hold.id, hold.owner, self._id, number))
        return tuple(claims)

    def take(self, claims: Iterable[Hold | Claim]) -> tuple[Hold, ...]:
        """Turns the claims of a message that has arrived into holds of this process."""
        holds = []
        for claim in claims:
            assert isinstance(claim, Claim)
            hold = self._holdings.hold(claim.id, claim.owner)
            self._holdings._do(claim.owner, hold, (USE, claim.id, claim.passage, claim.number))  # noqa: SLF001
            holds.append(hold)
        return tuple(holds)

    def close(self) -> None:
        """Nothing more arrives by this passage: tokens that are not used by now never will be."""
        for owner in list(self._owners.values()):
            self._holdings._do(owner, None, (CLOSE, "", self._id, 0))  # noqa: SLF001 - a part of it


def _batches(changes: list[Change]) -> Iterable[list[Change]]:
    return (changes[start : start + BATCH_CHANGES] for start in range(0, len(changes), BATCH_CHANGES))


_current: Holdings | None = None


def use(holdings: Holdings | None) -> None:
    """Sets, or with None ends, where the holds that are unpickled in this process are found."""
    global _current  # noqa: PLW0603 - one cluster a process
    _current = holdings


def find(id: str, owner: Address | None) -> Hold:
    """Returns this process's hold of a thing."""
    return _current.hold(id, owner) if _current is not None else Hold(id, owner)
