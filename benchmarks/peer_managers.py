"""multiprocessing.managers, of the standard library: proxies over TCP, one call at a time."""

from __future__ import annotations

import multiprocessing
import platform
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING, Any

from children import CONTEXT
from samples import Count, check, timed
from target import Block, Target, digest

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"benchmark"


class Relay:
    """An object that asks another one."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def relay(self, value: int) -> Any:
        """Returns what the other one's echo returns."""
        return self._target.echo(value)


class Manager(BaseManager):
    """A process with objects in it."""

    Target: Any
    Relay: Any


Manager.register("Target", Target)
Manager.register("Relay", Relay)


def _started() -> Manager:
    manager = Manager(("127.0.0.1", 0), authkey=KEY, ctx=CONTEXT)
    manager.start()
    return manager


class Managers:
    """See `side.Side`."""

    version = platform.python_version()

    def __init__(self) -> None:
        self._block = Block()
        self._managers: list[Manager] = []

    def start(self, folder: Path) -> None:
        """See `side.Side`."""
        multiprocessing.current_process().authkey = KEY  # what a proxy that travels shows
        self._managers = [_started(), _started()]
        self._target = self._managers[0].Target()
        self._relay = self._managers[1].Relay(self._target)
        check(self._relay.relay(1), 1)

    def sync_call(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._target.echo(stamp), stamp))

    def argument(self, count: Count) -> list[float]:
        """See `side.Side`."""

        def send(stamp: int) -> None:
            check(self._target.take(self._block.stamped(stamp)), self._block.expected(stamp))

        return timed(count, send)

    def result(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(digest(self._target.make(stamp)), self._block.expected(stamp)))

    def nested(self, count: Count) -> list[float]:
        """See `side.Side`."""
        return timed(count, lambda stamp: check(self._relay.relay(stamp), stamp))

    def stop(self) -> None:
        """See `side.Side`."""
        for manager in self._managers:
            manager.shutdown()
