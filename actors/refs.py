"""References: values that are on their way, or stay where they were made."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from concurrent.futures import wait as wait_futures
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from actors import face, overdue, runtime
from actors.cluster import current, joined
from actors.exceptions import ActorsError, ArgumentError, GetTimeoutError, ObjectLostError, RemoteError
from actors.messages import Outcome
from actors.sealed import Sealed, of_error, of_value
from actors.transport.portal import SLICE_SECONDS
from actors.transport.portal import wait as wait_one
from actors.waits import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from actors.address import Address
    from actors.holdings import Hold
    from actors.keeper import Value
    from actors.opencall import Asked
    from actors.process import Process
    from actors.waits import Wait

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
W = TypeVar("W", bound="Pending")
LEAD_SECONDS = 0.05  # what takes longer does not mind another thread's time
AWAIT_SLICE_SECONDS = 0.25
LONGEST_SECONDS = 1e9  # some thirty years; None waits longer


class Pending:
    """What `wait` waits for: a reference, or a generator of them."""

    __slots__ = ()

    @property
    def pending(self) -> Future[Any]:
        """Done when it is ready; for use inside this package."""
        raise NotImplementedError


class ObjectRef(Pending, Generic[T_co]):
    """A value that a call will give, or that `put` keeps.

    It can be awaited, given to `actors.get`, and passed to other calls: as an argument of its own it is replaced by
    its value, inside a list or dict it stays a reference.
    """

    __slots__ = ("__weakref__", "_call", "_owner", "_value")

    def __init__(self, value: Value, owner: Address, call: Asked | None = None) -> None:
        self._value = value
        self._owner = owner
        self._call = call

    @property
    def pending(self) -> Future[Sealed]:
        """The value as it will arrive, still pickled; for use inside this package."""
        return self._value.future

    @property
    def sealed(self) -> Sealed | None:
        """The value, if it is there; for use inside this package."""
        return self._value.sealed

    def result(self, timeout: float | None = None) -> T_co:
        """Waits and returns the value.

        Raises:
            GetTimeoutError: it did not come within ``timeout`` seconds.
            TaskError: the method raised; it is of the user's own class too.
            ActorDiedError: the actor, or its node, is gone.
        """
        value: T_co = get(self, timeout=timeout)
        return value

    def future(self) -> Future[T_co]:
        """Returns a `concurrent.futures.Future` of the value; what is to be called when it is there, a thread calls.

        Raises:
            NoThreadError: this process can begin no thread for that.
        """
        portal = joined().portal
        portal.expect_aside()
        future: Future[T_co] = Future()
        future.set_running_or_notify_cancel()

        def settle(sealed: Future[Sealed]) -> None:
            try:
                value = sealed.result().open()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        self.pending.add_done_callback(lambda sealed: portal.aside(settle, sealed))
        return future

    def hex(self) -> str:
        """Returns what tells this value from all others, as a word."""
        return self._value.id

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Cancels the call that will give the value; see `actors.cancel`. A value of `put` is left as it is."""
        process = joined()
        if self._call is not None:
            self._call.cancel(force=force, recursive=recursive)
        elif self._owner.process != process.id:
            process.portal.soon(process.tell, self._owner, "keeper", "cancel", self._value.id, force, recursive)

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._wait().__await__()

    async def _wait(self) -> T_co:
        __tracebackhide__ = True
        process = joined()
        if process.portal.is_current:
            raise RuntimeError("a reference cannot be awaited on the I/O loop")
        future = asyncio.wrap_future(self.pending)
        if not future.done():
            await asyncio.wait({future}, timeout=PATIENCE_SECONDS)
        if not future.done():
            watch = face.current.waiting
            with _waiting(process, [self], endless=True) as wait, watch([self]) if watch else nullcontext():
                # In slices: an interrupt is only seen when something wakes the loop.
                # And an interrupt may have cut short what tells of the value.
                while not future.done() and not self.pending.done():
                    await asyncio.wait({future}, timeout=AWAIT_SLICE_SECONDS)
                    _raise_if_stuck(wait)
        try:
            value: T_co = self.pending.result().open()
        except RemoteError as error:
            raise error.with_traceback(None)  # noqa: B904 - see `get`
        return value

    def __repr__(self) -> str:
        future = self.pending
        state = "waiting" if not future.done() else "ready"
        if future.done() and future.result().outcome is not Outcome.VALUE:
            state = "failed"
        what = f" of {self._call.line.label}.{self._call.method}" if self._call is not None else ""
        return f"<ObjectRef {self._value.id}{what}: {state}>"

    def __hash__(self) -> int:
        return hash(self._value.id)

    def __eq__(self, other: object) -> bool:
        # Two values of one id are one object, while the first of them lives.
        return other is self or (isinstance(other, ObjectRef) and other._value.id == self._value.id)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (self._hold(),))

    def _hold(self) -> Hold:
        if self._value.hold is not None:
            return self._value.hold
        holdings = joined().holdings
        if self._owner.process == joined().id:
            return holdings.own(self._value.id, self._value)
        return holdings.hold(self._value.id, self._owner)  # of a cluster that this program has left


def _restore(hold: Hold) -> ObjectRef[Any]:
    process = joined()
    owner = hold.owner
    assert owner is not None
    value, new = process.keeper.borrow(hold)
    if new and owner.process == process.id:
        value.settle(of_error(ObjectLostError(f"value {value.id} is not kept any more by this process")))
    elif new:
        process.portal.soon(lambda: process.loop.create_task(_fetch(process, value, owner)))
    return ObjectRef(value, owner)


async def _fetch(process: Process, value: Value, owner: Address) -> None:
    try:
        sealed = await process.ask(owner, "keeper", "fetch", value.id, timeout=None)
    except ActorsError as error:
        sealed = of_error(ObjectLostError(f"value {value.id} is lost with the process that owned it: {error}"))
    except Exception as error:
        sealed = of_error(ObjectLostError(f"value {value.id} could not be had: {error}"))
    value.settle(sealed)


def get(refs: Any, *, timeout: float | None = None) -> Any:
    """See `actors.get`."""
    __tracebackhide__ = True
    process = joined()
    if process.portal.is_current:
        raise RuntimeError("actors.get would block the I/O loop for ever; await the reference instead")
    if timeout is not None:
        check_timeout(timeout)
    if isinstance(refs, ObjectRef):
        return _get_all([refs], timeout)[0]
    if isinstance(refs, list | tuple) and all(isinstance(ref, ObjectRef) for ref in refs):
        return _get_all(refs, timeout)
    if isinstance(refs, Pending):
        return refs
    raise ArgumentError(
        f"actors.get takes an ObjectRef or a list of them, not {kind_of(refs)}: "
        "it is what handle.method.remote(...) and actors.put(...) return"
    )


def check_timeout(timeout: object) -> None:
    """Raises where ``timeout`` is neither None nor seconds that can be waited."""
    if timeout is None:
        return
    if not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
    if not 0 <= timeout <= LONGEST_SECONDS:
        raise ValueError(f"timeout must be from 0 to {LONGEST_SECONDS:g} seconds, not {timeout!r}")


def kind_of(value: object, kind: type = ObjectRef) -> str:
    """Says what was given in place of a ``kind``, or of a list of them."""
    if isinstance(value, list | tuple):
        wrong = next(item for item in value if not isinstance(item, kind))
        return f"a {type(value).__name__} with a {type(wrong).__name__}"
    return f"a {type(value).__name__}"


def _get_all(refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
    __tracebackhide__ = True
    watch = face.current.waiting
    if watch is None:
        return _collect(refs, timeout)
    with watch(refs):
        return _collect(refs, timeout)


def _collect(refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
    __tracebackhide__ = True
    deadline = None if timeout is None else time.monotonic() + timeout
    values = []
    for index, ref in enumerate(refs):
        try:
            sealed = ref._value.sealed or _get_sealed(refs, index, deadline)  # noqa: SLF001 - one of us
        except TimeoutError:
            raise GetTimeoutError(f"{ref!r} was not there within {timeout:g} s; the call goes on") from None
        values.append(sealed.open())
    return values


def _get_sealed(refs: Sequence[ObjectRef[Any]], index: int, deadline: float | None) -> Sealed:
    there = _read(refs[index], LEAD_SECONDS if deadline is None else min(LEAD_SECONDS, deadline - time.monotonic()))
    if there is not None:
        return there
    pending = refs[index].pending
    left = PATIENCE_SECONDS if deadline is None else min(PATIENCE_SECONDS, max(0.0, deadline - time.monotonic()))
    try:
        return wait_one(pending, left)
    except TimeoutError:
        if pending.done():
            return pending.result()
    with _waiting(joined(), refs[index:], endless=deadline is None) as wait:
        while True:
            try:
                left = SLICE_SECONDS if deadline is None else min(SLICE_SECONDS, deadline - time.monotonic())
                return wait_one(pending, max(0.0, left))
            except TimeoutError:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
            _raise_if_stuck(wait)


def _read(ref: ObjectRef[Any], seconds: float) -> Sealed | None:
    """Reads on this thread what comes from where the value is made; returns that if it came soon."""
    value = ref._value  # noqa: SLF001 - one of us
    call = value.call
    peer = call.peer if call is not None else None
    if peer is not None:
        peer.lead(lambda: value.sealed is not None, seconds)
    return value.sealed


@contextmanager
def _waiting(process: Process, refs: Sequence[ObjectRef[Any]], *, endless: bool) -> Iterator[Wait | None]:
    """Makes known that the call which this code runs for waits, if it runs for one."""
    running = runtime.running()
    values = [(ref._value, ref._owner) for ref in refs] if endless else []  # noqa: SLF001 - one of us
    if running is None:
        with overdue.watched(process, values) if values else nullcontext():
            yield None
        return
    with process.waits.waiting(running, values) as wait:
        yield wait


def _raise_if_stuck(wait: Wait | None) -> None:
    if wait is not None and wait.error is not None:
        raise wait.error


def wait(refs: Sequence[W], *, num_returns: int = 1, timeout: float | None = None) -> tuple[list[W], list[W]]:
    """See `actors.wait`, which has checked the arguments."""
    deadline = None if timeout is None else time.monotonic() + timeout
    ready = _wait_a_while(refs, num_returns, deadline, PATIENCE_SECONDS)
    if ready is None:
        values = [ref for ref in refs if isinstance(ref, ObjectRef)]
        endless = deadline is None and num_returns == len(refs)
        with _waiting(joined(), values, endless=endless) as wait:
            while (ready := _wait_a_while(refs, num_returns, deadline, SLICE_SECONDS)) is None:
                _raise_if_stuck(wait)
    chosen = set(ready)
    return ready, [ref for ref in refs if ref not in chosen]


def _wait_a_while(refs: Sequence[W], num_returns: int, deadline: float | None, seconds: float) -> list[W] | None:
    """Returns what is there once that is enough or the time is over; None where there is more time."""
    end = time.monotonic() + seconds
    while True:
        now = time.monotonic()
        ready = [ref for ref in refs if ref.pending.done()]
        if len(ready) >= num_returns or (deadline is not None and now >= deadline):
            return ready[:num_returns]
        if now >= end:
            return None
        waiting = [ref.pending for ref in refs if not ref.pending.done()]
        wait_futures(waiting, timeout=min(end, deadline or end) - now, return_when="FIRST_COMPLETED")


def put(value: T) -> ObjectRef[T]:
    """See `actors.put`."""
    process = current()
    kept = process.keeper.new_value()
    kept.settle(of_value(value))
    return ObjectRef(kept, process.address)
