"""What processes say to each other: frozen values, the same on every transport."""

from __future__ import annotations

import re
from dataclasses import field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from actors.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import SupportsIndex

    from actors.address import Address
    from actors.holdings import Hold

CONSTRUCT = "__construct__"  # the method by which an owner makes its actor
PREPARE = "__prepare__"  # and that by which it has the class loaded ahead, in the process that an actor is to move to
RETIRE = "__retire__"  # and that by which it ends it, after all that was called before
DEPART = "__depart__"  # and that by which it has it stand still between two calls, and gets its state
STAY = "__stay__"  # then it goes on where it is,
GO = "__go__"  # or it lives elsewhere now, and ends here
WATCH = "__watch__"  # what a light actor answers when it has ended, with how
STREAM_WINDOW = 16  # items a generator method may be ahead of its reader

Buffer = bytes | bytearray | memoryview


@frozen
class Claim:
    """A thing that a message mentions, and the token by which it is kept until the receiver holds it itself.

    Attributes:
        id: of the value or the actor.
        owner: the process that counts who refers to it.
        passage: by which the message goes, see `actors.holdings.Passage`.
        number: of the token, in that passage.
    """

    id: str
    owner: Address
    passage: str
    number: int


@frozen
class Shared:
    """Where in the memory that two processes share a buffer of a payload lies, see `actors.arena`.

    Attributes:
        index: which of the payload's buffers.
        name: of the file.
        offset: of the first byte in it.
        size: in bytes.
        buffer: itself, in the process that sends it: keeps the file.
    """

    index: int
    name: str
    offset: int
    size: int
    buffer: Buffer = field(default=b"", compare=False, repr=False)


@frozen
class Payload:
    """A pickled value: the pickle and, in the order it names them, its out-of-band buffers.

    Attributes:
        holds: what keeps the values and actors that the pickle mentions; claims to them while it travels.
        shared: while it travels, where those buffers are that do not travel themselves; they are empty then.
    """

    pickle: bytes
    buffers: Sequence[Buffer] = ()
    holds: tuple[Hold | Claim, ...] = field(default=(), compare=False, repr=False)
    shared: tuple[Shared, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the pickle and all buffers."""
        return len(self.pickle) + sum(map(len, self.buffers)) if self.buffers else len(self.pickle)

    @property
    def is_bare(self) -> bool:
        """Whether it is nothing but a pickle."""
        return not (self.buffers or self.holds or self.shared)

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """What is nothing but a pickle, as most states and functions are, is read and written in a part of the time."""
        if type(self) is Payload and self.is_bare:
            return Payload, (self.pickle,)
        return object.__reduce_ex__(self, protocol)


class Argument(Payload):
    """The one argument of a call that came among others, which was unpickled with theirs."""

    __slots__ = ("value",)
    value: object

    def __init__(self, value: object) -> None:
        super().__init__(b"")
        object.__setattr__(self, "value", value)


@frozen
class Transfer:
    """Stands for a payload that travels as chunks under this number; what it mentions goes ahead of it."""

    number: int
    holds: tuple[Hold | Claim, ...] = field(default=(), compare=False, repr=False)


class Outcome(IntEnum):
    """How a call ended."""

    VALUE = 0
    RAISED = 1
    NEVER_STARTED = 2
    MAY_HAVE_RUN = 3
    ENDED = 4  # it never started, since its actor ends: one that is made anew may be asked again
    CUT_OFF = 5  # it ran when its actor ended, which shared its process with others
    KEPT = 6  # its value, and the actor's state: the buffers are the actor's id, the state's number and its pickle


VALUE: Final = Outcome.VALUE
"""By itself, for where each call comes by: to look a member up in its class takes Python 3.11 as long as five calls."""

STREAMING = -1  # in place of the number of values of a call: they come one by one


@frozen
class Terms:
    """How a call is to be answered.

    Attributes:
        remaining: seconds until nobody waits any more; None is for ever. Clocks of two hosts disagree, so what
            travels is what is left.
        group: the concurrency group it runs in; empty for the method's own.
        returns: how many values the method gives, or `STREAMING`.
        origin: by what in the driver the call was made; see `actors.face.Face`.
        trace: W3C's ``traceparent``; empty for no trace, `ROOT` for one that begins with this call. See
            `actors.tracing`.
    """

    remaining: float | None = None
    group: str = ""
    returns: int = 1
    origin: str = ""
    trace: str = ""

    @property
    def plain(self) -> bool:
        """Whether the call has no end, runs in the method's own group, and gives one value."""
        return self.remaining is None and not self.group and self.returns == 1


PLAIN = Terms()
ROOT = "+"
"""For a `Terms.trace` that both ends know without being told: it follows from the number of the call in its session,
see `actors.traceids.of_call`."""
ROOTED = Terms(trace=ROOT)
TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""What `Terms.trace` looks like."""
PLAIN_TYPES = frozenset({int, float, str, bytes, bool, type(None)})  # which are the same wherever they are


@frozen
class Call:
    """Call ``method`` of ``target``; the payload is ``(args, kwargs)``."""

    number: int
    target: str
    method: str
    payload: Payload | Transfer
    terms: Terms = PLAIN


@frozen
class Calls:
    """Calls of one method, in their order, with one argument each.

    The payload is the list of the arguments where all are of `PLAIN_TYPES`; else its pickle is empty and its buffers
    are pickles of ``(args, kwargs)``, one for each call.
    """

    numbers: tuple[int, ...]
    target: str
    method: str
    payload: Payload | Transfer
    terms: Terms = PLAIN


@frozen
class Replies:
    """Small values of calls that came together.

    The payload is the list of the values where all are of `PLAIN_TYPES`; else its buffers are a pickle each.
    """

    numbers: tuple[int, ...]
    payload: Payload | Transfer


@frozen
class Reply:
    """The one answer to a call: its value, or what went wrong."""

    number: int
    outcome: Outcome
    payload: Payload | Transfer


@frozen
class Item:
    """One value yielded by a generator method; the reply that ends the stream comes after the last."""

    number: int
    index: int
    payload: Payload | Transfer


@frozen
class Credit:
    """The caller takes items of a stream up to this count, so that a producer never runs ahead of its reader."""

    number: int
    upto: int


@frozen
class Cancel:
    """The caller no longer wants the answer.

    Attributes:
        number: of the call.
        force: stop a plain method that runs already, by ending its process.
        recursive: cancel also the calls that this one has made.
    """

    number: int
    force: bool = False
    recursive: bool = True


@frozen
class Tensor:
    """A value one member of a group sends another, past the mailbox."""

    group: str
    source: int
    tag: str
    payload: Payload | Transfer


@frozen
class Tally:
    """What has changed in the sender's hold of things that the receiver owns; see `actors.holdings`.

    The payload is the sender's address and the list of changes.
    """

    payload: Payload | Transfer


@frozen
class Chunk:
    """A piece of a transfer. The first one says how long the parts are: the pickle, then each buffer.

    Its bytes may lie in memory that the receiver shares with the node which relays them.
    """

    transfer: int
    index: int
    sizes: tuple[int, ...]
    data: Buffer | Shared

    @property
    def nbytes(self) -> int:
        """How many bytes it brings."""
        return self.data.size if isinstance(self.data, Shared) else len(self.data)


Carrying = Call | Calls | Reply | Replies | Item | Tensor | Tally
Message = Carrying | Credit | Cancel | Chunk
