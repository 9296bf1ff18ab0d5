"""A line: this process's calls to one actor, in the order they were made."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from actors.exceptions import (
    ActorDiedError,
    ActorEnvironmentError,
    ActorError,
    ActorUnavailableError,
    ActorUnplacedError,
    NoClusterError,
    NodeDiedError,
    PendingCallsLimitExceeded,
    PlacementError,
    RemoteError,
    RuntimeEnvError,
    Verdict,
)
from actors.messages import Outcome
from actors.room import Room
from actors.sealed import Filled, Sealed, of_error
from actors.serialize import dumps
from actors.transport.portal import SLICE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from actors.address import Address
    from actors.calls import Settings
    from actors.holdings import Hold
    from actors.opencall import OpenCall, Together
    from actors.process import Process
    from actors.spec import Manner
    from actors.transport.peer import Death, Party

E = TypeVar("E", bound=RemoteError)

MAX_PENDING = 10_000  # calls of one process to one actor that wait for an answer
MAX_PENDING_BYTES = 256 << 20  # and bytes of their arguments


class Line:
    """Sends calls to one actor: first come, first served, also while the actor is being placed or restarted.

    Args:
        process: this process.
        actor: the actor's id.
        label: how it is called in messages.
        manner: how the actor wants to be called.
        locate: finds the actor, see `actors.keeper.Keeper.locate`: where it is once that is another life than the
            one given.
        doomed: whether it is known here that the actor will not be made anew.

    Attributes:
        settings: by method, see `actors.calls.settings_of`.
    """

    def __init__(  # noqa: PLR0917 - two places make it
        self,
        process: Process,
        actor: str,
        label: str,
        manner: Manner,
        locate: Callable[[str | None], Coroutine[Any, Any, Address]],
        doomed: Callable[[], bool] = lambda: False,
    ) -> None:
        self.actor = actor
        self.label = label
        self.manner = manner
        self.peer: Party | None = None
        self.address: Address | None = None
        self.error: ActorError | None = None
        self.process = process
        self.settings: dict[str, Settings] = {}
        self._hold: weakref.ref[Hold] | None = None
        self._locate = locate
        self._doomed = doomed
        self._lock = threading.RLock()
        self._queue: deque[OpenCall] = deque()
        self._returned: list[OpenCall] = []  # came back from a process that has died
        self._calls = 0
        self._room = Room(MAX_PENDING if manner.max_pending < 0 else manner.max_pending, MAX_PENDING_BYTES)
        self._search: asyncio.Task[None] | None = None

    @property
    def hold(self) -> Hold | None:
        """What keeps the actor alive; None where nothing here does."""
        return self._hold() if self._hold is not None else None

    def held_by(self, hold: Hold) -> None:
        """Ties this line to what keeps the actor alive: that keeps the line, and each open call keeps that."""
        hold.subject = self
        self._hold = weakref.ref(hold)

    # -- finding the actor --------------------------------------------------------------------------------------

    def find(self, where: Address | None = None) -> None:
        """Starts to look for the actor, at ``where`` if that is known; the line opens when it is found."""
        self.process.portal.soon(self.search, None, where)

    def search(self, left: str | None = None, where: Address | None = None) -> None:
        """Looks for another life of the actor than ``left``; see `find`. On the I/O loop."""
        if where is not None:
            self._opened(where)
        else:
            self._search = self.process.loop.create_task(self._find(left))

    async def located(self) -> Address:
        """Waits until it is known where the actor is.

        Raises:
            ActorError: it is nowhere, and will not be.
        """
        if self.error is not None:
            raise self.error
        return self.address if self.address is not None else await self._locate(None)

    async def _find(self, left: str | None) -> None:
        try:
            address = await self._locate(left)
        except asyncio.CancelledError:
            self.fail(ActorDiedError(f"{self.label} was not placed: its program is shutting down"))
            raise
        except ActorError as error:
            self.fail(error)
        except Exception as error:
            self.fail(never_placed(self.label, error))
        else:
            self._opened(address)

    def _opened(self, address: Address) -> None:
        """The actor is at ``address``: what waits in line goes there. On the I/O loop."""
        peer = self.process.party(address)
        if self.manner.follows:
            peer.when_dead(lambda death: self._left(peer, death))
            if peer.death is not None:
                return
        with self._lock:
            self.address = address
            if self._returned:
                self._queue = deque(sorted([*self._returned, *self._queue], key=lambda call: call.place))
                self._returned.clear()
            self.peer = peer
        self._pump()

    def _left(self, peer: Party, death: Death) -> None:
        """The actor's process has died; where the actor is made anew is found out. On the I/O loop."""
        with self._lock:
            if self.peer not in {peer, None}:
                return
            self.peer = None
        if death.intended:
            self.fail(self.died_of(death, "", Verdict.NEVER_STARTED))
        else:
            self.search(peer.address.life)

    def fail(self, error: ActorError) -> None:
        """The actor will never answer: everything in line is told, and every later call."""
        with self._lock:
            if self.error is None:
                self.error = error
            waiting = [*self._returned, *self._queue]
            self._returned.clear()
            self._queue.clear()
        for call in waiting:
            call.end(of_error(error))

    def died_of(self, death: Death, method: str, verdict: Verdict) -> ActorError:
        """Returns the error for a call that a death has cut off."""
        restarting = self.manner.restarts and not death.intended and not self._doomed()
        return of_death(
            death,
            self.label,
            self.address,
            verdict,
            method=method,
            kind=ActorUnavailableError if restarting else kind_of(death),
            more=" It is made anew if it may be." if restarting else "",
        )

    # -- calling ------------------------------------------------------------------------------------------------

    def submit(self, call: OpenCall) -> None:
        """Puts a call in line.

        Raises:
            PendingCallsLimitExceeded: too many calls wait, and there is a limit of the actor's own, or this thread
                runs an event loop that must not block.
        """
        if not call.in_room:
            self.enter(call.nbytes)
            call.in_room = True
        with self._lock:
            error = self.error
            if error is None:
                call.place = self._calls = self._calls + 1
                if self.peer is not None and not self._queue and not call.needs:
                    self._send(self.peer, call)
                else:
                    self._queue.append(call)
        if error is not None:
            call.end(of_error(_again(error, call.method)))
        elif call.number is None:
            for need in call.needs:
                need.add_done_callback(lambda _: self.process.portal.soon(self._pump))
            self.process.portal.soon(self._pump)

    def _send(self, peer: Party, call: OpenCall) -> None:
        assert call.payload is not None
        call.peer = peer  # the answer may be quicker than this thread
        try:
            call.sent(peer, self.actor, peer.call(self.actor, call.method, call.payload, call, call.terms()))
        except RuntimeError as error:  # the I/O loop is closed
            call.end(of_error(NoClusterError("the cluster was shut down while the call was made")))
            raise NoClusterError("the cluster was shut down while the call was made") from error
        if not (call.retries or self.manner.follows):
            call.payload = None

    def send_together(self, calls: Together) -> bool:
        """Sends calls that are in room in one message; False where they have to stand in line.

        Raises:
            NoClusterError: the cluster was shut down meanwhile.
        """
        with self._lock:
            if self.error is not None or self.peer is None or self._queue:
                return False
            first = self._calls + 1
            self._calls += len(calls)
            try:
                calls.send(self.peer, self.actor, first)
            except RuntimeError as error:  # the I/O loop is closed
                raise NoClusterError("the cluster was shut down while the call was made") from error
        return True

    @property
    def blocks(self) -> bool:
        """Whether a caller in this thread waits where there is no room; else it is told so."""
        return self.manner.max_pending < 0 and not (self.process.portal.is_current or in_event_loop())

    def enter(self, nbytes: int, calls: int = 1) -> None:
        """Takes room for calls, all or none; see `submit`."""
        if self._room.enter(nbytes, calls=calls):
            return
        if self.manner.max_pending >= 0:
            raise PendingCallsLimitExceeded(
                f"{self._room.count} calls to {self.label} wait for an answer, and max_pending_calls="
                f"{self.manner.max_pending} allows no more: get some of them before making more"
            )
        if not self.blocks:
            raise PendingCallsLimitExceeded(
                f"{self._room.count} calls to {self.label} wait for an answer: await some of them before making more"
            )
        while not self._room.enter(nbytes, SLICE_SECONDS, calls):
            pass

    def left(self, nbytes: int, calls: int = 1) -> None:
        """Calls that were sent together with others have had their answers."""
        self._room.leave(nbytes, calls)

    def answered(self, call: OpenCall) -> None:
        """A call of this line has had its answer."""
        call.payload = None
        self._room.leave(call.nbytes)

    def take_back(self, call: OpenCall) -> None:
        """Puts a call in line once more. One whose process died goes where it was, before all later ones."""
        with self._lock:
            error = self.error
            if error is None:
                if self.peer is None:
                    self._returned.append(call)
                else:
                    self._queue = deque(sorted([call, *self._queue], key=lambda call: call.place))
        if error is not None:
            call.end(of_error(error))
        else:
            self.process.portal.soon(self._pump)

    def _pump(self) -> None:
        """Sends what stands in line and is ready; with ``out_of_order``, also past what is not. On the I/O loop."""
        if not self._queue:
            return
        while (found := self._next()) is not None:
            call, failed = found
            if failed is not None:
                call.end(failed)
            elif call.over:  # it has expired meanwhile
                call.release()

    def _next(self) -> tuple[OpenCall, Sealed | None] | None:
        with self._lock:
            if self.peer is None:
                return None
            call = self._first_ready()
            if call is None:
                return None
            self._queue.remove(call)
            failed = next((s for n in call.needs if (s := n.result()).outcome is not Outcome.VALUE), None)
            if failed is None and not call.over:
                if call.needs:
                    assert call.payload is not None
                    call.payload = dumps(Filled(call.payload, tuple(need.result().payload for need in call.needs)))
                    call.needs = []
                self._send(self.peer, call)
            return call, failed

    def _first_ready(self) -> OpenCall | None:
        for call in self._queue:
            if call.ready:
                return call
            if not self.manner.out_of_order:
                return None
        return None

    async def flushed(self) -> None:
        """Waits until the calls in line are sent: the actor found, and the values there that they need."""
        if self._search is not None:
            await asyncio.wait({self._search})
        needs = {asyncio.wrap_future(need) for call in list(self._queue) for need in call.needs}
        if needs:
            await asyncio.wait(needs)
            self._pump()

    def drop(self, call: OpenCall) -> bool:
        """See `actors.opencall.Way`."""
        with self._lock:
            for store in (self._queue, self._returned):
                if call in store:
                    store.remove(call)
                    return True
        return False


def reach(  # noqa: PLR0917 - what a handle holds
    process: Process, id: str, label: str, manner: Manner, keeper: Address, where: Address | None
) -> Line:
    """Begins a line to an actor that another process made."""

    async def locate(left: str | None) -> Address:
        custodian = keeper
        while True:
            try:
                found: Address = await process.ask(custodian, "keeper", "locate", id, left, timeout=None)
            except ActorError as error:
                heir = await process.ask_home("custodian", id, timeout=None) if manner.survives else None
                if heir is not None and heir.process != custodian.process:
                    custodian = heir
                elif isinstance(error, NodeDiedError):
                    raise
                else:
                    gone = f"{label} is gone: {error}"
                    raise ActorDiedError(gone, actor=label, verdict=Verdict.NEVER_STARTED) from error
            else:
                return found

    line = Line(process, id, label, manner, locate)
    kept = process.keeper.lines.setdefault(id, line)
    if kept is line:  # else another thread was quicker
        line.find(where)
    return kept


def kind_of(death: Death) -> type[ActorError]:
    """Returns the class of the error for calls of an actor that is gone for good."""
    return NodeDiedError if death.node_too else ActorDiedError


def of_death(
    death: Death,
    label: str,
    address: Address | None,
    verdict: Verdict,
    *,
    method: str = "",
    kind: type[E],
    more: str = "",
) -> E:
    """Returns the error that tells of an actor's death.

    Args:
        death: what is known of it.
        label: the actor's.
        address: where it was, if that was known.
        verdict: whether the call ran.
        method: which the call was of; empty where there is none.
        kind: class of the error.
        more: a further sentence.
    """
    node = death.node or (address.node_name if address is not None else None)
    printed = "".join(f"\n  {line}" for line in death.last_lines)
    what = f" The call of {method} failed: {verdict.value}." if method else ""
    return kind(
        f"{label} on node {node} is gone: {death.reason}.{what}{more}"
        + (f" It last printed:{printed}" if printed else ""),
        node=node,
        actor=label,
        method=method or None,
        verdict=verdict,
    )


def never_placed(label: str, error: BaseException) -> ActorDiedError:
    """Returns the error for an actor that did not come to be; it is of the class of what kept it from that as well."""
    kinds: dict[type[BaseException], type[ActorDiedError]]
    kinds = {PlacementError: ActorUnplacedError, RuntimeEnvError: ActorEnvironmentError}
    kind = next((kind for cause, kind in kinds.items() if isinstance(error, cause)), ActorDiedError)
    died = kind(f"{label} was not placed: {error}", actor=label, verdict=Verdict.NEVER_STARTED)
    died.__cause__ = error
    return died


def _again(error: ActorError, method: str) -> ActorError:
    """Returns the line's error for another call, which has not even started."""
    again = type(error)(str(error), node=error.node, actor=error.actor, method=method, verdict=Verdict.NEVER_STARTED)
    again.__cause__ = error.__cause__
    return again


def in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
