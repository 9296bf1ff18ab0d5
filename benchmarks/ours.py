"""Our side: the public names of this package, as a program uses them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from samples import Count, check, timed
from target import Block, Target, digest
from workloads import IN_FLIGHT, SPAWN_MANY

import actors

if TYPE_CHECKING:
    from pathlib import Path

ANSWER_SECONDS = 30.0


class Relay:
    """An actor that asks another one."""

    def __init__(self, target: actors.ActorHandle) -> None:
        self._target = target

    def relay(self, value: int) -> int:
        """Returns what the other actor's echo returns."""
        answer: int = actors.get(self._target.echo.remote(value))
        return answer


class Ours:
    """See `side.Side`."""

    version = actors.__version__

    def __init__(self) -> None:
        self._class = actors.remote(Target)
        self._block = Block()

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        os.environ["ACTORS_HOME"] = str(folder)  # not the user's: nothing is read there, nothing is left there
        actors.init("local")
        self._target = self._class.remote()
        self._relay = actors.remote(Relay).remote(self._target)
        check(actors.get([self._target.echo.remote(1), self._relay.relay.remote(2)], timeout=ANSWER_SECONDS), [1, 2])

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(actors.get(self._target.echo.remote(stamp)), stamp))

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def batch(stamp: int) -> None:
            values = list(range(stamp, stamp + IN_FLIGHT))
            check(actors.get([self._target.echo.remote(value) for value in values]), values)

        return timed(count, batch)

    def argument(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def send(stamp: int) -> None:
            array = self._block.stamped(stamp)
            check(actors.get(self._target.take.remote(array)), self._block.expected(stamp))

        return timed(count, send)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def fetch(stamp: int) -> None:
            check(digest(actors.get(self._target.make.remote(stamp))), self._block.expected(stamp))

        return timed(count, fetch)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(actors.get(self._relay.relay.remote(stamp)), stamp))

    def spawn(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._spawn(count, 1)

    def spawn_many(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._spawn(count, SPAWN_MANY)

    def _spawn(self, count: Count, size: int) -> list[float]:
        born: list[Any] = []

        def bear(stamp: int) -> None:
            new = [self._class.remote() for _ in range(size)]
            born.extend(new)
            refs = [actor.echo.remote(stamp) for actor in new]
            check(actors.get(refs, timeout=ANSWER_SECONDS), [stamp] * size)

        try:
            return timed(count, bear)
        finally:
            for actor in born:
                actors.kill(actor)

    def stop(self) -> None:
        """See `side.Side`."""
        actors.shutdown()
