"""A fixed pool of actors, and the work that waits for one of them to be free."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import actors
from actors.exceptions import ActorDiedError, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

V = TypeVar("V")

_TIMED_OUT = "timed out waiting for a result"


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """A call that an actor of the pool is busy with.

    Attributes:
        index: its place in the order of submission.
        actor: who is busy with it.
        answer: what the call returned: a reference, or a list of them.
    """

    index: int
    actor: actors.ActorHandle
    answer: Any

    @property
    def refs(self) -> list[actors.ObjectRef[Any]]:
        """The references that make up the answer."""
        return list(self.answer) if isinstance(self.answer, list | tuple) else [self.answer]


class ActorPool:
    """Gives work to whichever actor is free, and hands the results on in order or as they come.

    An actor that has died is not given any more work; what waited for it goes to the others.

    Args:
        actors: handles of the actors to use. An actor is busy until the result of its call has been taken.
    """

    def __init__(self, actors: Iterable[actors.ActorHandle]) -> None:
        self._idle = list(actors)
        self._running: dict[int, _Work] = {}
        self._waiting: deque[tuple[Callable[[Any, Any], Any], Any]] = deque()
        self._next_index = 0
        self._next_returned = 0
        self._death: ActorDiedError | None = None  # of the actor that died last

    def map(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """Calls ``fn(actor, value)`` for each value; what was submitted before is given up.

        All values are submitted here, before the iterator is.

        Args:
            fn: makes the call and returns its reference.
            values: one for each call.

        Returns:
            The results, in the order of the values.
        """
        self._forget(self.get_next)
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next)

    def map_unordered(self, fn: Callable[[Any, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """As `map`, but returns the results as they come."""
        self._forget(self.get_next_unordered)
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next_unordered)

    def _forget(self, get_next: Callable[..., Any]) -> None:
        while self.has_next():
            try:
                get_next(timeout=0, ignore_if_timedout=True)
            except Exception:  # noqa: S112 - nobody wants these results, nor what they raised
                continue

    def _results(self, get_next: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield get_next()

    def submit(self, fn: Callable[[Any, V], Any], value: V) -> None:
        """Calls ``fn(actor, value)`` as soon as an actor is free.

        Raises:
            TypeError: ``fn`` returned no reference.
            Exception: what ``fn`` raised.
        """
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.pop()
        try:
            answer = fn(actor, value)
            work = _Work(self._next_index, actor, answer)
            if not work.refs or not all(isinstance(ref, actors.ObjectRef) for ref in work.refs):
                raise TypeError(
                    f"fn(actor, value) must return the reference of its call, not {answer!r}: "
                    "end it with actor.method.remote(value)"
                )
        except BaseException:
            self._idle.append(actor)
            raise
        self._running[self._next_index] = work
        self._next_index += 1

    def has_next(self) -> bool:
        """Whether there is a result to take."""
        return bool(self._running) or self._is_stranded()

    def _is_stranded(self) -> bool:
        """Whether work waits that no actor is left for."""
        return bool(self._waiting) and not self._running and not self._idle and self._death is not None

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Returns the next result, in the order of submission.

        Args:
            timeout: seconds to wait for it; None waits.
            ignore_if_timedout: give up a result that is late: the next call returns the one after it, and the
                actor is taken for free.

        Raises:
            StopIteration: there is none.
            TimeoutError: it was not there in time.
            ValueError: `get_next_unordered` has taken a later one.
            ActorDiedError: the actor of the call has died.
            Exception: what the call raised.
        """
        self._check_next()
        work = self._running.get(self._next_returned)
        if work is None:
            raise ValueError("get_next() cannot follow get_next_unordered(), which has taken later results")
        if timeout is not None:
            ready, _ = actors.wait(work.refs, num_returns=len(work.refs), timeout=timeout)
            if len(ready) < len(work.refs):
                raise self._late(work if ignore_if_timedout else None)
        return self._take(work)

    def get_next_unordered(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Returns a result that is there, or the first to come; see `get_next`."""
        self._check_next()
        work = self._first_done(timeout)
        if work is None:
            raise self._late(next(iter(self._running.values())) if ignore_if_timedout else None)
        return self._take(work)

    def _check_next(self) -> None:
        if self._is_stranded():
            count = len(self._waiting)
            self._waiting.clear()
            raise ActorDiedError(f"all actors of the pool have died; {count} calls never started") from self._death
        if not self._running:
            raise StopIteration("there are no more results to take")

    def _first_done(self, timeout: float | None) -> _Work | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        open_refs = [ref for work in self._running.values() for ref in work.refs]
        done: set[actors.ObjectRef[Any]] = set()
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            came, open_refs = actors.wait(open_refs, num_returns=1, timeout=left)
            done.update(came)
            for work in self._running.values():
                if done.issuperset(work.refs):
                    return work
            if not came:
                return None

    def _late(self, given_up: _Work | None) -> TimeoutError:
        if given_up is None:
            return TimeoutError(_TIMED_OUT)
        self._finish(given_up)
        self._set_free(given_up.actor)
        return TimeoutError(f"{_TIMED_OUT}; {given_up.answer!r} was given up")

    def _take(self, work: _Work) -> Any:
        self._finish(work)
        try:
            result = actors.get(work.answer)
        except ActorDiedError as error:
            if isinstance(error, TaskError):  # the method raised it: another actor has died
                self._set_free(work.actor)
            else:
                self._death = error
                self._start_waiting()
            raise
        except BaseException:
            self._set_free(work.actor)
            raise
        self._set_free(work.actor)
        return result

    def _finish(self, work: _Work) -> None:
        del self._running[work.index]
        self._next_returned = max(self._next_returned, work.index + 1)

    def _set_free(self, actor: actors.ActorHandle) -> None:
        self._idle.append(actor)
        self._start_waiting()

    def _start_waiting(self) -> None:
        if self._waiting and self._idle:
            self.submit(*self._waiting.popleft())

    def has_free(self) -> bool:
        """Whether an actor is idle and no work waits."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> actors.ActorHandle | None:
        """Takes an idle actor out of the pool; None where all are busy."""
        return self._idle.pop() if self.has_free() else None

    def push(self, actor: actors.ActorHandle) -> None:
        """Takes one more actor into the pool.

        Raises:
            ValueError: it is in the pool already.
        """
        if actor in self._idle or any(work.actor == actor for work in self._running.values()):
            raise ValueError("the actor belongs to this pool already")
        self._set_free(actor)
