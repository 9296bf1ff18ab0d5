"""One group in one of its processes: numbers the calls, has the ranks agree, and fails for all or none."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, NoReturn

from actors.events import recorder
from actors.exceptions import CollectiveError

from .agreement import INLINE_BYTES, Offer, disagreement, exchange, heard
from .call import Call
from .channel import Channel, SilentRankError
from .engine import check
from .explaining import explained
from .later import Queue, Work
from .mail import Mail
from .moving import AllGather, AllToAll, Barrier, Broadcast, Gather, Scatter
from .plan import plan_all_reduce, plan_barrier
from .ranks import split_ranks
from .reducing import AllReduce, AllReduceStructure, Reduce, ReduceScatter
from .regroup import survivors
from .rollcall import suspects
from .structure import is_structure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .board import Board
    from .engine import Engine
    from .fabric import Fabric
    from .plan import Plan

DEFAULT_TIMEOUT = 60.0
"""Seconds that a call waits for the other ranks unless it says otherwise."""


_WAY_OUT = "call rebuild() on all ranks that are left, or make it anew"


class _Refused(Call):
    """A call that this rank cannot make: the others are told why, in its place."""

    def __init__(self, name: str, error: Exception) -> None:
        self.error = error
        self.offer = Offer(name, fault=f"{type(error).__name__}: {error}")

    def perform(self, channel: Channel, offers: Sequence[Offer]) -> Any:  # noqa: ARG002 - the interface
        """Raises what is wrong with the arguments."""
        raise self.error


class Group:
    """A group of ranks, as one of them sees it. Every rank calls the same collectives in the same order.

    Collectives of one group run one after the other, those of several groups at the same time.

    Results are new arrays of the caller's own, of the kind, dtype and shape that went in. All calls take
    ``timeout``, in seconds, 60 by default: how long to wait for the other ranks.

    All raise `CollectiveError` on every rank, and the group stays usable, where the ranks do not call the same
    (other collective, op, root, shape or dtype) or where a rank's arguments are wrong; the rank itself gets the
    TypeError or ValueError. Where a rank dies, stalls or does not come in time, every rank gets a
    `CollectiveError` that names it, in this call or, having finished this one already, in the next; the group
    is then broken until the ranks that are left call `rebuild`.

    Attributes:
        epoch: 1, and one more each time the group is rebuilt.

    Args:
        fabric: the lane between the ranks.
        engine: MLX's own collectives, if they are to carry the arrays.
    """

    def __init__(self, fabric: Fabric, engine: Engine | None = None) -> None:
        self._fabric = fabric
        self._engine = engine
        self._name = fabric.group
        self._mail = Mail(fabric)
        self._turn = threading.Lock()
        self._queue = Queue()
        self._calls = 0
        self._tries = 0  # to rebuild
        self._broken: str | None = None
        self._by_board = False  # whether small calls go the short way; known after the first
        self.epoch = 1

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Group is one rank's end, which stays in its process; send what it says, as its rank or size")

    def __repr__(self) -> str:
        return f"<Group {self.name!r}, rank {self.rank} of {self.size}>"

    @property
    def name(self) -> str:
        """Name of the group."""
        return self._name

    @property
    def rank(self) -> int:
        """Number of this rank, from 0."""
        return self._fabric.rank

    @property
    def size(self) -> int:
        """How many ranks the group has."""
        return self._fabric.size

    @property
    def shared(self) -> bool:
        """Whether arrays go through shared memory; known after the first collective."""
        return self._fabric.terrain.shared

    def allreduce(self, x: Any, op: str = "sum", *, deterministic: bool = False, timeout: float | None = None) -> Any:
        """Returns the reduction of all ranks' ``x``, the same bits on every rank.

        Args:
            x: a numpy or MLX array, of one shape and dtype on all ranks; or a dict, list or tuple of such, nested
                to any depth, which are reduced in one go, and come back as the same structure.
            op: ``sum``, ``product``, ``min``, ``max`` or ``mean``; no mean of integers.
            deterministic: every element is reduced in rank order, so that its bits do not depend on where the
                ranks are and which way the group takes. They never depend on timing.
            timeout: seconds to wait for the other ranks.
        """
        plan = plan_all_reduce(x, op, self.size, deterministic)
        make = AllReduceStructure if is_structure(x) else AllReduce
        return self._collective("allreduce", partial(make, self.size, x, op, deterministic), timeout, plan, x)

    def average_gradients(self, tree: Any, *, timeout: float | None = None) -> Any:
        """Returns the mean over the ranks of a structure of arrays, as `allreduce` with op ``mean``."""
        return self.allreduce(tree, "mean", timeout=timeout)

    def reduce(self, x: Any, dst: int, op: str = "sum", *, timeout: float | None = None) -> Any:
        """Returns the reduction of all ranks' ``x`` on rank ``dst``, None elsewhere."""
        return self._collective("reduce", partial(Reduce, self.size, x, dst, op), timeout)

    def reducescatter(self, x: Any, op: str = "sum", *, timeout: float | None = None) -> Any:
        """Returns this rank's part of the reduction of all ranks' ``x``, split evenly along axis 0."""
        return self._collective("reducescatter", partial(ReduceScatter, self.size, x, op), timeout)

    def broadcast(self, x: Any, src: int = 0, *, timeout: float | None = None) -> Any:
        """Returns rank ``src``'s ``x``, an array or any object that can be pickled.

        The other ranks pass None, or an array of the same shape and dtype, whose kind the result then has.
        """
        return self._collective("broadcast", partial(Broadcast, self.rank, self.size, x, src), timeout)

    def allgather(self, x: Any, *, timeout: float | None = None) -> list[Any]:
        """Returns the list of all ranks' ``x``, in rank order: arrays of one shape and dtype, or objects."""
        result: list[Any] = self._collective("allgather", partial(AllGather, x), timeout)
        return result

    def gather(self, x: Any, dst: int, *, timeout: float | None = None) -> list[Any] | None:
        """Returns the list of all ranks' ``x``, in rank order, on rank ``dst``, None elsewhere."""
        result: list[Any] | None = self._collective("gather", partial(Gather, self.size, x, dst), timeout)
        return result

    def scatter(self, xs: Sequence[Any] | None, src: int, *, timeout: float | None = None) -> Any:
        """Returns this rank's item of rank ``src``'s list ``xs``; the other ranks pass None."""
        return self._collective("scatter", partial(Scatter, self.rank, self.size, xs, src), timeout)

    def alltoall(self, xs: Sequence[Any], *, timeout: float | None = None) -> list[Any]:
        """Returns the items that the ranks have for this one, in rank order; ``xs[j]`` goes to rank ``j``."""
        result: list[Any] = self._collective("alltoall", partial(AllToAll, self.size, xs), timeout)
        return result

    def barrier(self, *, timeout: float | None = None) -> None:
        """Returns once every rank has called it."""
        self._collective("barrier", Barrier, timeout, plan_barrier())

    def send(self, x: Any, dst: int, tag: int | str = 0, *, timeout: float | None = None) -> None:
        """Hands ``x`` over for rank ``dst``, without waiting until it is received.

        Args:
            x: an array or any object that can be pickled.
            dst: the rank that calls ``recv`` with this rank and the same tag.
            tag: keeps kinds of messages apart; with one tag, what is sent first is received first.
            timeout: as in the other calls; sending needs no time of another rank.
        """
        _seconds(timeout)
        self._check_usable()
        self._mail.send(x, dst, tag)

    def recv(self, src: int, tag: int | str = 0, *, timeout: float | None = None) -> Any:
        """Returns what rank ``src`` sends next under ``tag``; numpy arrays are read-only.

        A `CollectiveError` for a time that has passed leaves the group usable: the message can still come.
        """
        self._check_usable()
        return self._mail.recv(src, tag, _seconds(timeout))

    def start(self, name: str, step: Callable[[], Any]) -> Work:
        """Has a collective of this group run beside the caller's work, after all that were called before.

        Args:
            name: the collective's, for messages.
            step: calls it.
        """
        return self._queue.start(name, step)

    def split(self, color: int | None, key: int = 0, *, timeout: float | None = None) -> Group | None:
        """Makes a group of all ranks that pass the same ``color``; every rank calls it.

        Args:
            color: which of the new groups this rank joins; None for none.
            key: ranks of the new group are in this order, and those with the same key in the order of this group.
            timeout: seconds to wait for the other ranks.

        Returns:
            The new group, to be closed by `actors.collective.destroy_group`; None where ``color`` is None.
        """
        said = self.allgather({"color": color, "key": key}, timeout=timeout)
        try:
            ranks, number = split_ranks([(one["color"], one["key"]) for one in said], self.rank)
        except TypeError as error:
            raise TypeError(f"the keys of the ranks must be integers, not {[one['key'] for one in said]}") from error
        if not ranks:
            return None
        return Group(self._fabric.sub(f"{self._fabric.group}/{self._calls}.{number}", ranks))

    def rebuild(self, *, timeout: float | None = None) -> None:
        """Makes the group usable again with the ranks that are left, which all call it and are numbered anew.

        A rank that does not call it, because it has died or is stuck, is no member any more; what it sends is
        refused. `epoch` is one more afterwards. For a replacement in its place, make a group of the handles by
        `actors.collective.create_group`.

        Args:
            timeout: seconds to wait for the others; where a rank is stuck, half of them pass.

        Raises:
            CollectiveError: the survivors do not agree on who they are; they can try again.
        """
        seconds = _seconds(timeout)
        if self._engine is not None:
            raise CollectiveError(
                f"group {self.name!r} cannot be rebuilt: with backend='mlx', MLX's ring begins once in a process; make "
                "a group of new actors, or of these with another backend"
            )
        self._queue.drain()
        with self._turn:
            old = self._fabric
            self._broken = self._broken or f"it was rebuilt as epoch {self.epoch + 1}"
            old.abort(self._broken)
            self._tries += 1
            name = f"{self._name}@{self.epoch + 1}"
            probe = old.sub(f"{name}?{self._tries}", range(old.size))
            try:
                ranks = survivors(probe, self._name, seconds)
                self._fabric = probe.sub(name, ranks)
            finally:
                probe.close()
            old.close()
            self._mail = Mail(self._fabric)
            self._calls, self._tries, self._by_board = 0, 0, False
            self.epoch += 1
            self._broken = None

    def close(self) -> None:
        """Ends this rank's part in the group; the others' calls that need it fail from then on."""
        self._broken = self._broken or "it was destroyed"
        self._fabric.leave(f"{self._fabric.describe(self.rank)} has left the group: it was destroyed")
        self._queue.close()
        self._fabric.close()

    def explain(self, nbytes: int) -> str:
        """Says how an allreduce of ``nbytes`` bytes goes through this group, why, and how long each way would take.

        Where the ranks are is known after the first collective. The times are estimates, by what `actors bench` has
        measured on the device that made the group, else by that of another machine.
        """
        if not (isinstance(nbytes, Real) and nbytes >= 0):
            raise ValueError(f"nbytes must be a number of bytes, not {nbytes!r}")
        if self._engine is not None and nbytes > INLINE_BYTES:
            return f"{nbytes} bytes among {self.size} ranks: MLX's own ring, as backend='mlx' asks"
        return explained(nbytes, self._fabric.terrain)

    def _collective(
        self, name: str, make: Callable[[], Call], timeout: float | None, plan: Plan | None = None, x: Any = None
    ) -> Any:
        here = recorder.current
        if here is None:
            return self._carry_out(name, make, timeout, plan, x)[0]
        begun, nbytes, failed = time.monotonic(), 0, True
        try:
            result, nbytes = self._carry_out(name, make, timeout, plan, x)
            failed = False
            return result
        finally:
            here.collective_ended(self._name, self.rank, name, nbytes, time.monotonic() - begun, failed=failed)

    def _carry_out(
        self, name: str, make: Callable[[], Call], timeout: float | None, plan: Plan | None, x: Any
    ) -> tuple[Any, int]:
        """Takes part in a collective; returns its result, and how many bytes this rank has brought."""
        self._queue.drain()
        seconds, call = DEFAULT_TIMEOUT, None
        try:
            seconds = _seconds(timeout)
            if plan is None or not self._by_board:
                call = make()
        except Exception as error:  # whatever it is, the others must not wait for this rank
            call = _Refused(name, error)
        with self._taking_turns(seconds) as channel:
            board = channel.fabric.terrain.board if call is None else None
            if plan is None or board is None or not plan.usable(channel):
                return self._at_length(channel, seconds, call or self._attempt(channel, seconds, make))
            result, said = self._attempt(channel, seconds, lambda: _by_plan(channel, board, plan, x))
            if said is None:
                return result, plan.nbytes
            call = self._attempt(channel, seconds, make)
            return self._done(channel, seconds, call, heard(call.offer, said[self.rank], said, self.rank))

    def _at_length(self, channel: Channel, seconds: float, call: Call) -> tuple[Any, int]:
        try:
            offers = self._attempt(channel, seconds, lambda: _agree(channel, call, self._engine))
        except CollectiveError:
            if isinstance(call, _Refused):
                raise call.error from None
            raise
        if isinstance(call, _Refused):
            raise call.error
        self._by_board = self._engine is None and channel.fabric.terrain.board is not None
        return self._done(channel, seconds, call, offers)

    def _done(self, channel: Channel, seconds: float, call: Call, offers: Sequence[Offer]) -> tuple[Any, int]:
        """Does a collective of which all ranks have made their offers."""
        wrong = disagreement(offers, self._fabric.describe)
        if wrong is not None:
            raise CollectiveError(f"group {self.name!r}: {wrong}")
        if self._engine is not None:
            check(call.offer)
        brought = sum(spec.nbytes for spec in call.offer.specs)
        return self._attempt(channel, seconds, lambda: call.perform(channel, offers)), brought

    @contextmanager
    def _taking_turns(self, seconds: float) -> Iterator[Channel]:
        """Gives the next call its channel, once the call that another thread has under way is done."""
        start = self._fabric.now()
        if not self._turn.acquire(timeout=seconds):
            raise CollectiveError(
                f"group {self.name!r}: another thread of this rank has been in a collective for {seconds:g} s; "
                "one group does one collective at a time"
            )
        try:
            self._check_usable()
            # What all others have said of a call may lie here still, though they have given it up.
            if (reason := self._fabric.aborted) is not None:
                raise self._fail(reason)
            self._calls += 1
            engine = self._engine if self.size > 1 else None
            yield Channel(self._fabric, self._calls, start + seconds - _grace(seconds), engine=engine)
        finally:
            self._turn.release()

    def _attempt(self, channel: Channel, seconds: float, step: Callable[[], Any]) -> Any:
        """Runs a part of a call that needs the other ranks; where it fails, the group fails everywhere."""
        try:
            return step()
        except SilentRankError as silence:
            raise self._fail(self._find_culprit(channel, silence, seconds)) from None
        except CollectiveError as error:
            raise self._fail(str(error)) from error
        except BaseException as error:  # also an interrupt: the others must not wait for what will not come
            self._fail(f"{self._fabric.describe(self.rank)} left a collective: {type(error).__name__}: {error}")
            raise

    def _find_culprit(self, channel: Channel, silence: SilentRankError, seconds: float) -> str:
        # One that stood still itself, as a device that slept, is late, and hears what the others have to say of that.
        until = max(channel.deadline, self._fabric.now()) + _grace(seconds)
        try:
            ranks = suspects(channel, silence, until)
        except CollectiveError as error:  # another rank knows better
            return str(error)
        named = " or ".join(self._fabric.describe(rank) for rank in ranks)
        return f"{named} sent nothing within {seconds:g} s: it did not make the call, is stuck, or is cut off"

    def _fail(self, reason: str) -> CollectiveError:
        """Ends the group on every rank and returns the error to raise here."""
        if self._broken is None:
            self._broken = reason
            self._fabric.abort(reason)
        return CollectiveError(f"group {self.name!r}: {reason}. The group is broken: {_WAY_OUT}")

    def _check_usable(self) -> None:
        if self._broken is not None:
            raise CollectiveError(
                f"group {self.name!r} is broken since an earlier call: {self._broken}. To use it again, {_WAY_OUT}"
            )


def _by_plan(channel: Channel, board: Board, plan: Plan, x: Any) -> tuple[Any, list[Any] | None]:
    """Returns the result where all ranks have said the same; else what they have said."""
    said = board.exchange(channel, plan.said(channel, x))
    return (plan.result(channel, said), None) if plan.agreed(said) else (None, said)


def _agree(channel: Channel, call: Call, engine: Engine | None) -> list[Offer]:
    channel.fabric.meet(channel.deadline)
    if engine is not None:
        engine.meet(channel.deadline)
    call.prepare(channel)
    return exchange(channel, call.offer)


def _grace(seconds: float) -> float:
    """The part of a timeout kept for finding out who is to blame."""
    return min(0.5, seconds / 4)


def _seconds(timeout: float | None) -> float:
    if timeout is None:
        return DEFAULT_TIMEOUT
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {type(timeout).__name__}")
    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
    return float(timeout)
