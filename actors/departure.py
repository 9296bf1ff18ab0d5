"""A departure: an actor stands still between two calls and gives its state away, to live elsewhere or to stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.exceptions import ActorUnavailableError, ArgumentError
from actors.failure import pack
from actors.messages import Outcome
from actors.saving import taken
from actors.shortage import NoThreadError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from actors.failure import Place
    from actors.job import Job
    from actors.mailbox import Mailbox
    from actors.messages import Payload

PATIENCE_SECONDS = 30.0  # for the calls that run to end; none starts meanwhile


class Departure:
    """Holds an actor's calls from `begin` until `stay`, or until its mailbox is closed.

    Args:
        job: the call that asks for it; it is answered with the state.
        mailbox: the actor's.
        place: who it is, for errors.
        process: id of its process, which will be gone.
    """

    def __init__(self, job: Job, mailbox: Mailbox, place: Place, process: str) -> None:
        self._job = job
        self._mailbox = mailbox
        self._place = place
        self._process = process
        self._overdue: asyncio.TimerHandle | None = None

    def begin(
        self, thing: Any, own_thread: Callable[[Callable[[], None]], object], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Has the state taken once no call runs, and no further one starts. On the I/O loop.

        Args:
            thing: the actor's object.
            own_thread: has something done where the actor's methods run.
            loop: the I/O loop.
        """
        self._overdue = loop.call_later(PATIENCE_SECONDS, self._too_long)
        self._mailbox.hold(lambda: self._begin_taking(thing, own_thread))

    def _begin_taking(self, thing: Any, own_thread: Callable[[Callable[[], None]], object]) -> None:
        try:
            own_thread(lambda: self._take(thing))
        except NoThreadError as error:
            self.refuse(error)

    def refuse(self, error: Exception) -> None:
        """It does not come to it: the actor stays."""
        if self._mailbox.answer(self._job, Outcome.RAISED, pack(error, self._place)):
            self.stay()

    def stay(self) -> None:
        """The actor goes on where it is."""
        if self._overdue is not None:
            self._overdue.cancel()
        self._mailbox.resume()

    def _take(self, thing: Any) -> None:
        if self._job.over:
            return
        try:
            state = self._taken(thing)
        except Exception as error:
            self.refuse(error)
            return
        if not self._mailbox.answer(self._job, Outcome.VALUE, state):
            self._mailbox.resume()  # it was given up while the state was taken

    def _taken(self, thing: Any) -> Payload:
        state = taken(thing, self._place.actor)
        if any(hold.owner is not None and hold.owner.process == self._process for hold in state.holds):
            raise ArgumentError(
                f"the state of {self._place.actor} refers to a value or an actor that its own process has made, and "
                "that ends with it: get the value first, or make the actor detached"
            )
        return state

    def _too_long(self) -> None:
        running = self._mailbox.running()
        if running is None:
            return
        self.refuse(
            ActorUnavailableError(
                f"{self._place.actor} moves only between two calls, and its method {running.method} still ran after "
                f"{PATIENCE_SECONDS:g} s: it stays where it is",
                node=self._place.node,
                actor=self._place.actor,
            )
        )
