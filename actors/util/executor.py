"""A `concurrent.futures.Executor` whose workers are actors, on all nodes of the cluster."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import actors
from actors.exceptions import ActorError, ActorsError, TaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

P = ParamSpec("P")
T = TypeVar("T")

_WAIT_SLICE_SECONDS = 0.2  # a wait without end would not see a Ctrl-C that another thread's handler took


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    """A call and the future of its result."""

    future: Future[Any]
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Executor(futures.Executor):
    """Runs functions in a fixed number of actors, each one call at a time.

    A call whose process dies raises `ActorDiedError`, and another actor takes the place of the one that died.

    Args:
        max_workers: how many actors, and so how many calls at most run at once; None takes one for each CPU of the
            cluster. All are made now.
        actor_options: options of these actors, such as ``{"num_cpus": 1}``; by default they are spread over the nodes.

    Raises:
        ValueError: ``max_workers`` is not a whole number from 1.
    """

    def __init__(self, max_workers: int | None = None, *, actor_options: dict[str, Any] | None = None) -> None:
        if max_workers is None:
            max_workers = cpus()
        if not isinstance(max_workers, int) or isinstance(max_workers, bool) or max_workers < 1:
            raise ValueError(f"max_workers must be a whole number from 1, not {max_workers!r}")
        self._runner_class = actors.remote(_Runner).options(
            **{"scheduling_strategy": "SPREAD", **(actor_options or {})}
        )
        self._changed = threading.Condition()
        self._waiting: deque[_Item] = deque()
        self._idle = [self._runner_class.remote() for _ in range(max_workers)]
        self._running: set[actors.ActorHandle] = set()
        self._closing = False
        self._is_over = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Runs ``fn(*args, **kwargs)`` in an actor that is free, or as soon as one is.

        Returns:
            The future of its result. Until the call has begun it can be cancelled.

        Raises:
            RuntimeError: the executor was shut down.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise RuntimeError("the executor was shut down: make another one")
            self._waiting.append(_Item(future, fn, args, kwargs))
        self._give_out()
        return future

    def map(
        self, fn: Callable[..., T], /, *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """As the built-in ``map``, with the calls made at once and side by side.

        Args:
            fn: called with one value of each iterable.
            iterables: of the values; the shortest ends it.
            timeout: seconds for all the results, from now; None waits.
            chunksize: how many calls go to an actor as one.

        Raises:
            TimeoutError: by the iterator, where a result is not there in time.
            ValueError: ``chunksize`` is less than 1.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be a whole number from 1, not {chunksize!r}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        values = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(values, chunksize)), [])
        results = super().map(_run_chunk, itertools.repeat(fn), chunks, timeout=timeout)
        return (result for chunk in results for result in chunk)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Takes no more calls, and ends the actors once those that were submitted are done.

        Args:
            wait: return only then.
            cancel_futures: cancel the calls that have not begun.
        """
        with self._changed:
            self._closing = True
            if cancel_futures:
                while self._waiting:
                    self._waiting.popleft().future.cancel()
        self._dismiss()
        with self._changed:
            while wait and not self._is_over:
                self._changed.wait(_WAIT_SLICE_SECONDS)

    def kill(self) -> None:
        """Ends the actors at once: what runs raises `ActorDiedError`, what waits is cancelled."""
        self.shutdown(wait=False, cancel_futures=True)
        with self._changed:
            running = list(self._running)
        with contextlib.suppress(ActorsError):  # the cluster has ended, and they with it
            for runner in running:
                actors.kill(runner)

    def _give_out(self) -> None:
        """Begins calls while there are both waiting calls and idle actors."""
        while True:
            with self._changed:
                if not self._waiting or not self._idle:
                    return
                item, runner = self._waiting.popleft(), self._idle.pop()
                self._running.add(runner)
            if not item.future.set_running_or_notify_cancel():
                self._free(runner)
                continue
            try:
                answer = runner.run.remote(item.fn, *item.args, **item.kwargs).future()
            except Exception as error:  # what cannot be sent, or the end of the cluster
                item.future.set_exception(error)
                self._free(runner)
            else:
                answer.add_done_callback(lambda done, i=item, r=runner: self._settle(done, i, r))

    def _settle(self, answer: Future[Any], item: _Item, runner: actors.ActorHandle) -> None:
        error = answer.exception()
        if error is not None:
            item.future.set_exception(error)
        else:
            item.future.set_result(answer.result())
        died = isinstance(error, ActorError) and not isinstance(error, TaskError)  # not one that the function raised
        self._free(runner, self._replaced(runner) if died and not self._closing else runner)
        self._give_out()
        self._dismiss()

    def _replaced(self, runner: actors.ActorHandle) -> actors.ActorHandle:
        try:
            return self._runner_class.remote()
        except Exception:
            return runner  # the cluster has ended: the next call says so

    def _free(self, runner: actors.ActorHandle, successor: actors.ActorHandle | None = None) -> None:
        with self._changed:
            self._running.discard(runner)
            self._idle.append(successor or runner)

    def _dismiss(self) -> None:
        """Ends the actors that nothing is left for."""
        with self._changed:
            if not self._closing or self._waiting:
                return
            runners, self._idle = self._idle, []
        with contextlib.suppress(ActorsError):  # the cluster has ended, and they with it
            for runner in runners:
                actors.kill(runner)
        with self._changed:
            self._is_over = not self._running
            self._changed.notify_all()


class _Runner:
    """Runs one function after the other."""

    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except SystemExit as error:
            raise RuntimeError(f"the function raised SystemExit({error.code!r})") from error


def _run_chunk(fn: Callable[..., T], chunk: list[tuple[Any, ...]]) -> list[T]:
    return [fn(*values) for values in chunk]


def cpus() -> int:
    """Returns the number of CPUs of the cluster, at least 1."""
    if not actors.is_initialized():
        actors.init()
    return max(1, int(sum(node.resources.get("CPU", 0) for node in actors.nodes() if node.alive)))
