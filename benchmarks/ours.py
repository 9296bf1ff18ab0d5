"""Our side: the public names of this package, as a program uses them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path
from typing import TYPE_CHECKING, Any

import numpy as np
from programs import MEMORY, loading, run
from samples import Count, check, timed
from target import Block, MlxBlock, Target, digest, digest_mlx
from workloads import BATCH, BESIDE_BYTES, DRIVERS, EACH, IN_FLIGHT, SPAWN_MANY, TARGETS

import actors

if TYPE_CHECKING:
    from collections.abc import Callable

    from target import Digest

ANSWER_SECONDS = 30.0
TCP = str(Path(__file__).with_name("tcp"))
PROGRAM = """
import time, actors
class Echo:
    def echo(self, value):
        return value
start = time.perf_counter()
actors.init("local")
echo = actors.remote(Echo).remote()
assert actors.get(echo.echo.remote(1)) == 1
result = time.perf_counter() - start
"""


class Relay:
    """An actor that asks another one."""

    def __init__(self, target: actors.ActorHandle) -> None:
        self._target = target

    def relay(self, value: int) -> int:
        """Returns what the other actor's echo returns."""
        answer: int = actors.get(self._target.echo.remote(value))
        return answer


class Crowd:
    """One of several callers."""

    def call(self, targets: list[actors.ActorHandle]) -> int:
        """Calls each target as often as the workload says."""
        refs = [ref for target in targets for ref in target.echo.map([1] * EACH)]
        return sum(actors.get(refs))


class Giver:
    """An actor that gives much and echoes meanwhile."""

    def __init__(self) -> None:
        self._much = np.ones(BESIDE_BYTES // 8)

    def give(self) -> Any:
        """Returns 1 GiB."""
        return self._much

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return value


class Taker:
    """An actor that takes much and echoes meanwhile."""

    def take(self, much: Any) -> int:
        """Returns how many bytes it was given."""
        return int(much.nbytes)

    def echo(self, value: int) -> int:
        """Returns what it is given."""
        return value


class Ours:
    """See `side.Side`."""

    environment: tuple[tuple[str, str], ...] = ()

    version = actors.__version__

    def __init__(self) -> None:
        self._class = actors.remote(Target)
        self._block = Block()
        self._targets: list[Any] = []
        self._crowds: list[Any] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        os.environ["ACTORS_HOME"] = str(folder)  # not the user's: nothing is read there, nothing is left there
        os.environ.update(self.environment)
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
        return _sent(count, self._block, self._target.take)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return _fetched(count, self._block, self._target.make, digest)

    def put(self, count: Count) -> list[float]:
        """Keeps the array; of what kept it before, nobody knows any more."""
        return timed(count, lambda stamp: check(actors.put(self._block.stamped(stamp)) is None, False))

    def argument_mlx(self, count: Count) -> list[float] | None:
        """See `side.Side`; None where there is no MLX."""
        return None if find_spec("mlx") is None else _sent(count, MlxBlock(), self._target.take_mlx)

    def result_mlx(self, count: Count) -> list[float] | None:
        """See `side.Side`; None where there is no MLX."""
        return None if find_spec("mlx") is None else _fetched(count, MlxBlock(), self._target.make_mlx, digest_mlx)

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

    def batch(self, count: Count) -> list[float]:
        """By ``map``: many calls to a message."""

        def many(stamp: int) -> None:
            values = list(range(stamp, stamp + BATCH))
            check(actors.get(self._target.echo.map(values)), values)

        return timed(count, many)

    def many_to_many(self, count: Count) -> list[float]:
        """Several actors call several others, by ``map``."""
        if not self._targets:
            self._targets = [self._class.remote() for _ in range(TARGETS)]
            self._crowds = [actors.remote(Crowd).remote() for _ in range(DRIVERS)]

        def call(_: int) -> None:
            done = actors.get([crowd.call.remote(self._targets) for crowd in self._crowds])
            check(done, [TARGETS * EACH] * DRIVERS)

        return timed(count, call)

    def alone(self, count: Count) -> list[float]:
        """The small calls of `beside` and `beside_argument`, with nothing beside them."""
        giver = actors.remote(Giver).options(max_concurrency=2).remote()
        try:
            return timed(count, lambda stamp: check(actors.get(giver.echo.remote(stamp)), stamp))
        finally:
            actors.kill(giver)

    def beside(self, count: Count) -> list[float]:
        """Small calls in one thread of an actor while another thread of it gives 1 GiB after 1 GiB."""
        giver = actors.remote(Giver).options(max_concurrency=2).remote()
        check(actors.get(giver.echo.remote(1)), 1)
        given = giver.give.remote().future()

        def call(stamp: int) -> None:
            nonlocal given
            if given.done():
                given = giver.give.remote().future()
            check(actors.get(giver.echo.remote(stamp)), stamp)

        try:
            return timed(count, call)
        finally:
            actors.kill(giver)

    def beside_argument(self, count: Count) -> list[float]:
        """Small calls while another thread here sends 1 GiB after 1 GiB to another thread of the same actor."""
        taker = actors.remote(Taker).options(max_concurrency=2).remote()
        much = np.ones(BESIDE_BYTES // 8)
        sending = threading.Event()
        sending.set()

        def send() -> None:
            while sending.is_set():
                check(actors.get(taker.take.remote(much)), BESIDE_BYTES)

        check(actors.get(taker.echo.remote(1)), 1)
        with ThreadPoolExecutor(1) as other:
            sent = other.submit(send)
            try:
                return timed(count, lambda stamp: check(actors.get(taker.echo.remote(stamp)), stamp))
            finally:
                sending.clear()
                sent.result()
                actors.kill(taker)

    def light(self, count: Count) -> list[float]:
        """Actors of one host process."""
        return timed(count, lambda stamp: check(actors.get(self._light().echo.remote(stamp)), stamp))

    def _light(self) -> Any:
        return self._class.options(isolation="thread").remote()

    def first_result(self, count: Count) -> list[float]:
        """In a cluster of its own."""
        return [run(f"{PROGRAM}\nprint(result)") for _ in range(count.measured)]

    def loading(self, count: Count) -> list[float]:
        """See `programs.loading`."""
        return [loading("actors") for _ in range(count.measured)]

    def idle(self, count: Count) -> list[float]:
        """Of a cluster of its own."""
        return [run(f"{MEMORY}\n{PROGRAM}\nprint(memory())") for _ in range(count.measured)]

    def stop(self) -> None:
        """See `side.Side`."""
        actors.shutdown()


def _sent(count: Count, block: Block | MlxBlock, take: Any) -> list[float]:
    """Times a method that takes a block's array and returns its digest."""

    def send(stamp: int) -> None:
        check(actors.get(take.remote(block.stamped(stamp))), block.expected(stamp))

    return timed(count, send)


def _fetched(count: Count, block: Block | MlxBlock, make: Any, look: Callable[[Any], Digest]) -> list[float]:
    """Times a method that returns a block's array, whose digest is taken here."""

    def fetch(stamp: int) -> None:
        check(look(actors.get(make.remote(stamp))), block.expected(stamp))

    return timed(count, fetch)


class OursGrpc(Ours):
    """The same, all of it through gRPC."""

    environment = (("ACTORS_TRANSPORT", "grpc"),)


class OursTcp(OursGrpc):
    """The same over TCP on loopback; see ``tcp/sitecustomize.py``."""

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        os.environ["PYTHONPATH"] = TCP  # for all that is started from here
        run_path(f"{TCP}/sitecustomize.py")
        super().start(folder)
