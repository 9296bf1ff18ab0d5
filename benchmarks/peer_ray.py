"""Ray, as its own users write it. Runs in its own environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from programs import MEMORY, loading, run
from samples import Count, check, timed
from target import Block, MlxBlock, Target, digest, digest_mlx
from workloads import BATCH, DRIVERS, EACH, IN_FLIGHT, SPAWN_MANY, TARGETS

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray

if TYPE_CHECKING:
    from pathlib import Path

INIT = "num_cpus=2, include_dashboard=False, _node_ip_address='127.0.0.1', log_to_driver=False, logging_level='ERROR'"
PROGRAM = f"""
import time, ray
start = time.perf_counter()
ray.init({INIT})
@ray.remote(num_cpus=0)
class Echo:
    def echo(self, value):
        return value
echo = Echo.remote()
assert ray.get(echo.echo.remote(1)) == 1
result = time.perf_counter() - start
"""


@ray.remote(num_cpus=0)
class Relay:
    """An actor that asks another one."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def relay(self, value: int) -> Any:
        """Returns what the other actor's echo returns."""
        return ray.get(self._target.echo.remote(value))


@ray.remote(num_cpus=0)
class Crowd:
    """One of several callers."""

    def call(self, targets: list[Any]) -> int:
        """Calls each target as often as the workload says."""
        return sum(ray.get([target.echo.remote(1) for _ in range(EACH) for target in targets]))


class Ray:
    """See `side.Side`."""

    version = ray.__version__

    def __init__(self) -> None:
        self._class = ray.remote(num_cpus=0)(Target)
        self._block = Block()

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=4 << 30,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level="ERROR",
        )
        self._target = self._class.remote()
        self._relay = Relay.remote(self._target)
        check(ray.get(self._relay.relay.remote(1)), 1)
        self._targets: list[Any] = []
        self._crowds: list[Any] = []

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(ray.get(self._target.echo.remote(stamp)), stamp))

    def in_flight(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return self._many(count, IN_FLIGHT)

    def batch(self, count: Count) -> list[float]:
        """Calls one by one: Ray has no way of its own for many at once."""
        return self._many(count, BATCH)

    def _many(self, count: Count, number: int) -> list[float]:
        def many(stamp: int) -> None:
            values = list(range(stamp, stamp + number))
            check(ray.get([self._target.echo.remote(value) for value in values]), values)

        return timed(count, many)

    def argument(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def send(stamp: int) -> None:
            check(ray.get(self._target.take.remote(self._block.stamped(stamp))), self._block.expected(stamp))

        return timed(count, send)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def fetch(stamp: int) -> None:
            check(digest(ray.get(self._target.make.remote(stamp))), self._block.expected(stamp))

        return timed(count, fetch)

    def put(self, count: Count) -> list[float]:
        """Keeps the array in Ray's store; of what kept it before, nobody knows any more."""
        return timed(count, lambda stamp: check(ray.put(self._block.stamped(stamp)) is None, False))

    def argument_mlx(self, count: Count) -> list[float]:
        """See `side.Side`."""
        block = MlxBlock()

        def send(stamp: int) -> None:
            check(ray.get(self._target.take_mlx.remote(block.stamped(stamp))), block.expected(stamp))

        return timed(count, send)

    def result_mlx(self, count: Count) -> list[float]:
        """See `side.Side`."""
        block = MlxBlock()

        def fetch(stamp: int) -> None:
            check(digest_mlx(ray.get(self._target.make_mlx.remote(stamp))), block.expected(stamp))

        return timed(count, fetch)

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(ray.get(self._relay.relay.remote(stamp)), stamp))

    def many_to_many(self, count: Count) -> list[float]:
        """Several actors call several others."""
        if not self._targets:
            self._targets = [self._class.remote() for _ in range(TARGETS)]
            self._crowds = [Crowd.remote() for _ in range(DRIVERS)]

        def call(_: int) -> None:
            done = ray.get([crowd.call.remote(self._targets) for crowd in self._crowds])
            check(done, [TARGETS * EACH] * DRIVERS)

        return timed(count, call)

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
            check(ray.get([actor.echo.remote(stamp) for actor in new]), [stamp] * size)

        try:
            return timed(count, bear)
        finally:
            for actor in born:
                ray.kill(actor)

    def first_result(self, count: Count) -> list[float]:
        """In a cluster of its own."""
        return [run(f"{PROGRAM}\nprint(result)") for _ in range(count.measured)]

    def loading(self, count: Count) -> list[float]:
        """See `programs.loading`."""
        return [loading("ray") for _ in range(count.measured)]

    def idle(self, count: Count) -> list[float]:
        """Of a cluster of its own."""
        return [run(f"{MEMORY}\n{PROGRAM}\nprint(memory())") for _ in range(count.measured)]

    def stop(self) -> None:
        """See `side.Side`."""
        ray.shutdown()
