"""Constructors: what one waits for before it is called, and who waits for its end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from actors.exceptions import ActorDiedError, Verdict
from actors.messages import Outcome, Payload
from actors.sealed import Filled
from actors.serialize import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from actors.messages import Item, Reply
    from actors.sealed import Sealed
    from actors.spec import Construction
    from actors.transport.peer import Death


async def resolved(construction: Construction, needs: Sequence[Future[Sealed]]) -> Construction:
    """Returns the construction with the values of other calls that its constructor waits for.

    Raises:
        ActorDiedError: one of those calls failed.
    """
    if not needs:
        return construction
    sealed = [await asyncio.wrap_future(need) for need in needs]
    label = construction.spec.label
    for value in sealed:
        if value.outcome is not Outcome.VALUE:
            try:
                value.open()
            except Exception as error:
                what = f"{label} never came to life: an argument failed: {error}"
                raise ActorDiedError(what, actor=label, verdict=Verdict.NEVER_STARTED) from error
    filled = Filled(construction.arguments, tuple(value.payload for value in sealed))
    return replace(construction, arguments=dumps(filled))


class Constructor:
    """Waits for the constructor's end."""

    anywhere = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.made: asyncio.Future[None] = loop.create_future()
        self.failed: asyncio.Future[ActorDiedError] = loop.create_future()

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        if reply.outcome is Outcome.VALUE and not self.made.done():
            self.made.set_result(None)
        if reply.outcome in {Outcome.VALUE, Outcome.ENDED, Outcome.CUT_OFF} or self.failed.done():
            return  # the two others: its end is known soon, and how
        assert isinstance(reply.payload, Payload)
        error = loads(reply.payload)
        assert isinstance(error, ActorDiedError)
        self.failed.set_result(error)

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`: who waits for the process's death hears of it."""


class Nobody:
    """Does not care for the answer."""

    anywhere = False

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
