"""The node of this device as a driver uses it: the one that runs, or one that is started for the driver."""

from __future__ import annotations

import subprocess
import time
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors import device
from actors.exceptions import ActorsError, ClusterTimeoutError
from actors.local import first_word, launch
from actors.visit import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from actors.address import Address
    from actors.device import Door, Running

END_SECONDS = 8.0
START_SECONDS = 30.0


def start_node(
    timeout: float,
    *,
    stays: bool,
    door: Door | None = None,
    resources: Any = None,
    labels: Any = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[Running, subprocess.Popen[bytes] | None]:
    """Returns this device's node, which is started if none runs; then with its process.

    Args:
        timeout: seconds it may take.
        stays: whether it goes on when this process ends.
        door: where it listens; None as `actors start` was last told.
        resources: what it has, where that is not for it to find out.
        labels: its labels.
        meanwhile: called while it starts.

    Raises:
        ActorsError: it could not start.
        ClusterTimeoutError: it did not start in time.
    """
    deadline, another = time.monotonic() + timeout, False
    while (found := device.running()) is None:
        log = device.log_file()
        orders = {
            "device": True, "stays": stays, "door": _plain(door), "log": str(log),
            "resources": resources or {}, "labels": labels or {},
        }  # fmt: skip
        child = launch(orders, log)
        try:
            meanwhile()
            error = first_word(child, "of this device", log, deadline)
        except ClusterTimeoutError:
            _end(child)
            if another:
                raise _neither() from None
            raise
        except BaseException:
            _end(child)
            raise
        if error is None:
            found = device.running()
            if found is None:
                _end(child)
                raise ActorsError(f"the node of this device ended as soon as it had started; see {log}")
            return found, child
        _end(child)
        if error != device.ALREADY:
            raise ActorsError(f"the node of this device could not start: {error}")
        another = True  # which is just starting, or just ending: then its place is free in a moment
        if (found := device.await_running(min(2.0, deadline - time.monotonic()))) is None and (
            time.monotonic() > deadline
        ):
            raise _neither()
    return found, None


def _neither() -> ClusterTimeoutError:
    return ClusterTimeoutError(f"another node of this device neither starts nor ends; see {device.log_file()}")


def _plain(door: Door | None) -> dict[str, Any] | None:
    from dataclasses import asdict

    return asdict(door) if door is not None else None


def _end(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    try:
        child.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def some_node(timeout: float = START_SECONDS) -> Iterator[Running]:
    """This device's node; where none runs, one for the block."""
    running, child = start_node(timeout, stays=False)
    try:
        yield running
    finally:
        if child is not None:
            _end(child)


class DeviceNode:
    """The node of this device, for one driver; ``close`` ends it if it was started for a driver and no other uses it.

    Attributes:
        address: where it is.
        folder: where Unix sockets go.
        identity: folder of the device's key.
    """

    def __init__(self, timeout: float, resources: dict[str, float], labels: dict[str, str]) -> None:
        self.running, self._child = start_node(
            timeout, stays=False, resources=resources, labels=labels,
            meanwhile=lambda: import_module("actors.process"),
        )  # fmt: skip
        self.address = address_of(self.running)
        self.name = self.running.name
        self.folder = Path(self.running.folder)
        self.identity = device.folder()
        self.others_stay = False

    @property
    def is_ours(self) -> bool:
        """Whether it was started for this driver."""
        return self._child is not None

    @property
    def addresses(self) -> list[Address]:
        """Where the nodes are that this program talks to at once."""
        return [self.address]

    def check_running(self) -> None:
        """Raises ActorsError where the node has ended by itself."""
        if device.running() is None:
            raise ActorsError(f"the node of this device has ended; see {device.log_file()}")

    def abandon(self) -> None:
        """Lets go of the node without ending it: in a forked child."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()

    def close(self) -> None:
        """Lets the node end, if it was started for a driver and no other uses it."""
        if self._child is None:
            return
        if self.others_stay:
            assert self._child.stdin is not None
            self._child.stdin.close()
            self._child.returncode = 0  # it ends with the last driver, whoever that is; nobody waits for it
            return
        _end(self._child)
