"""A line: this process's calls to one actor, in the order they were made."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from actors.exceptions import (
    ActorDiedError,
    ActorError,
    NoClusterError,
    NodeDiedError,
    PendingCallsLimitExceeded,
    Verdict,
)
from actors.messages import Outcome, Payload
from actors.sealed import Filled, Sealed, of_error, of_reply, with_slots
from actors.serialize import dumps, dumps_arguments
from actors.transport.portal import SLICE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from actors.address import Address
    from actors.holdings import Hold
    from actors.messages import Item, Reply
    from actors.process import Process
    from actors.transport.peer import Death, Peer

MAX_PENDING = 10_000  # calls of one process to one actor that wait for an answer


@dataclass(slots=True, eq=False)
class Order:
    """A call that waits in line, for the actor's place or for its arguments."""

    method: str
    payload: Payload
    needs: list[Future[Sealed]]
    caller: OpenCall


class OpenCall:
    """A call on its way; hears how it went and passes that on."""

    __slots__ = ("__weakref__", "hold", "line", "method", "number", "unwanted")

    def __init__(self, line: Line, method: str) -> None:
        self.line = line
        self.hold: Hold | None = line.hold  # an actor lives until it has answered
        self.method = method
        self.number: int | None = None  # from when it is sent
        self.unwanted = False

    def sent(self, number: int) -> None:
        """The call has been given its number."""
        self.number = number
        if self.unwanted:
            self.cancel()

    def replied(self, reply: Reply) -> None:
        """See `actors.transport.peer.Caller`."""
        self.line.answered(self)
        self.settle(of_reply(reply))

    def lost(self, death: Death, verdict: Verdict) -> None:
        """See `actors.transport.peer.Caller`."""
        self.line.answered(self)
        self.settle(of_error(self.line.died_of(death, self.method, verdict)))

    def yielded(self, item: Item) -> None:
        """See `actors.transport.peer.Caller`."""

    def settle(self, sealed: Sealed) -> None:
        """Takes the one answer."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Says that the answer is no longer wanted."""
        self.unwanted = True
        peer = self.line.peer
        if self.number is not None and peer is not None:
            peer.cancel(self.number)


class Line:
    """Sends calls to one actor: first come, first served, also while the actor is still being placed.

    Args:
        process: this process.
        actor: the actor's id.
        label: how it is called in messages.
        owned: this process makes the actor, so that ending the search ends the actor.
    """

    def __init__(self, process: Process, actor: str, label: str, *, owned: bool = False) -> None:
        self.actor = actor
        self.owned = owned
        self.label = label
        self.peer: Peer | None = None
        self.address: Address | None = None
        self.error: ActorError | None = None
        self._process = process
        self._hold: weakref.ref[Hold] | None = None
        self._lock = threading.Lock()
        self._queue: deque[Order] = deque()
        self._room = threading.BoundedSemaphore(MAX_PENDING)
        self._search: asyncio.Task[None] | None = None
        self._placed: Future[Address] = Future()
        self._placed.set_running_or_notify_cancel()  # nobody who waits may cancel it for the others

    @property
    def hold(self) -> Hold | None:
        """What keeps the actor alive; None where nothing does, or nothing is needed."""
        return self._hold() if self._hold is not None else None

    def held_by(self, hold: Hold) -> None:
        """Ties this line to what keeps the actor alive: that keeps the line, and each open call keeps that."""
        hold.subject = self
        self._hold = weakref.ref(hold)

    # -- finding the actor --------------------------------------------------------------------------------------

    def find(self, search: Callable[[], Coroutine[Any, Any, Address]]) -> None:
        """Starts a search for where the actor is; the line opens when it is found."""
        self._process.portal.soon(self._begin, search)

    def _begin(self, search: Callable[[], Coroutine[Any, Any, Address]]) -> None:
        self._search = self._process.loop.create_task(self._find(search))

    def give_up(self, error: ActorError) -> None:
        """Ends the search for an actor that has no place yet; calls in line are told ``error``."""
        self.fail(error)
        self._process.portal.soon(self._cancel_search)

    def _cancel_search(self) -> None:
        if self._search is not None:
            self._search.cancel()

    async def _find(self, search: Callable[[], Coroutine[Any, Any, Address]]) -> None:
        try:
            address = await search()
        except asyncio.CancelledError:
            self.fail(ActorDiedError(f"{self.label} was not placed: its program is shutting down"))
            raise
        except ActorError as error:
            self.fail(error)
        except Exception as error:
            self.fail(_never_placed(self.label, error))
        else:
            self.opened(address)

    def opened(self, address: Address) -> None:
        """The actor is at ``address``: what waits in line goes there."""
        self.address = address
        with self._lock:
            self.peer = self._process.peer(address)
        if not self._placed.done():
            self._placed.set_result(address)
        self._pump()

    def fail(self, error: ActorError) -> None:
        """The actor will never answer: everything in line is told, and every later call."""
        with self._lock:
            if self.error is None:
                self.error = error
            waiting = list(self._queue)
            self._queue.clear()
        if not self._placed.done():
            self._placed.set_exception(error)
        for order in waiting:
            self.answered(order.caller)
            order.caller.settle(of_error(error))

    async def placed(self) -> Address:
        """Waits until it is known where the actor is.

        Raises:
            ActorError: it will never be.
        """
        return await asyncio.wrap_future(self._placed)

    def end(self) -> None:
        """Ends the actor. On the I/O loop."""
        self._ending = self._process.loop.create_task(self._end())

    async def _end(self) -> None:
        with contextlib.suppress(ActorError, TimeoutError):  # it never came to life, or is gone with its node
            address = await self.placed()
            node = await self._process.node_address(address.node)
            if node is not None:
                await self._process.ask(node, "node", "kill", address.process)

    async def placed_or_raise(self) -> None:
        """Waits until the actor is placed; raises what kept it from that as its own error."""
        try:
            await self.placed()
        except ActorError as error:
            raise error.__cause__ or error from None

    def died_of(self, death: Death, method: str, verdict: Verdict) -> ActorError:
        """Returns the error for a call that a death has cut off."""
        kind = NodeDiedError if death.node_too else ActorDiedError
        node = death.node or (self.address.node_name if self.address is not None else None)
        printed = "".join(f"\n  {line}" for line in death.last_lines)
        return kind(
            f"{self.label} on node {node} is gone: {death.reason}. The call of {method} failed: {verdict.value}."
            + (f" It last printed:{printed}" if printed else ""),
            node=node,
            actor=self.label,
            method=method,
            verdict=verdict,
        )

    # -- calling ------------------------------------------------------------------------------------------------

    def submit(
        self,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        caller: OpenCall,
        future_of: Callable[[Any], Future[Sealed] | None],
    ) -> None:
        """Puts a call in line; its arguments are pickled before this returns.

        Args:
            method: its name.
            args: positional arguments; one that is a reference is resolved before the call is sent.
            kwargs: likewise.
            caller: hears how it went.
            future_of: gives the future of a reference, None for any other value.

        Raises:
            SerializationError: an argument cannot be pickled.
            PendingCallsLimitExceeded: too many calls wait, and this thread runs an event loop that must not block.
        """
        args, kwargs, references = with_slots(args, kwargs, lambda value: future_of(value) is not None)
        payload = dumps_arguments(args, kwargs)
        self._enter()
        order = Order(method, payload, [f for r in references if (f := future_of(r)) is not None], caller)
        with self._lock:
            error = self.error
            if error is None:
                if self.peer is not None and not self._queue and not order.needs:
                    self._send(self.peer, order)
                    return
                self._queue.append(order)
        if error is not None:
            self.answered(caller)
            caller.settle(of_error(_again(error, method)))
            return
        for need in order.needs:
            need.add_done_callback(lambda _: self._process.portal.soon(self._pump))
        self._process.portal.soon(self._pump)

    def _send(self, peer: Peer, order: Order) -> None:
        try:
            order.caller.sent(peer.call(self.actor, order.method, order.payload, order.caller))
        except RuntimeError as error:  # the I/O loop is closed
            self.answered(order.caller)
            raise NoClusterError("the cluster was shut down while the call was made") from error

    def _enter(self) -> None:
        if self._room.acquire(blocking=False):
            return
        if self._process.portal.is_current or _in_event_loop():
            raise PendingCallsLimitExceeded(
                f"{MAX_PENDING} calls to {self.label} wait for an answer: await some of them before making more"
            )
        while not self._room.acquire(timeout=SLICE_SECONDS):
            pass

    def answered(self, caller: OpenCall) -> None:
        """A call of this line has had its answer."""
        caller.hold = None
        self._room.release()

    def _pump(self) -> None:
        """Sends what stands at the head of the line and is ready. On the I/O loop."""
        while True:
            with self._lock:
                if self.peer is None or not self._queue:
                    return
                order = self._queue[0]
                if not all(need.done() for need in order.needs):
                    return
                self._queue.popleft()
                failed = next((s for n in order.needs if (s := n.result()).outcome is not Outcome.VALUE), None)
                if failed is None:
                    payload = order.payload
                    if order.needs:
                        payload = dumps(Filled(payload, tuple(need.result().payload for need in order.needs)))
                    order.payload = payload
                    self._send(self.peer, order)
            if failed is not None:
                self.answered(order.caller)
                order.caller.settle(failed)


def reach(process: Process, id: str, label: str, keeper: Address, where: Address | None) -> Line:
    """Begins a line to an actor that another process made."""

    async def find() -> Address:
        if where is not None:
            return where
        try:
            found: Address = await process.ask(keeper, "keeper", "locate", id, timeout=None)
        except NodeDiedError:
            raise
        except ActorError as error:
            raise ActorDiedError(f"{label} is gone: {error}", actor=label, verdict=Verdict.NEVER_STARTED) from error
        return found

    line = Line(process, id, label)
    kept = process.keeper.lines.setdefault(id, line)
    if kept is line:  # else another thread was quicker
        line.find(find)
    return kept


def _never_placed(label: str, error: BaseException) -> ActorDiedError:
    died = ActorDiedError(f"{label} was not placed: {error}", actor=label, verdict=Verdict.NEVER_STARTED)
    died.__cause__ = error
    return died


def _again(error: ActorError, method: str) -> ActorError:
    """Returns the line's error for another call, which has not even started."""
    again = type(error)(str(error), node=error.node, actor=error.actor, method=method, verdict=Verdict.NEVER_STARTED)
    again.__cause__ = error.__cause__
    return again


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
