"""One caller's trouble is its own: what another calls goes on, and is answered."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from clusters import eventually

import actors

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cluster")]
PATIENCE = 60


@actors.remote
class Shared:
    """Is called by several."""

    def __init__(self) -> None:
        self.calls = 0

    def echo(self, value: Any) -> Any:
        self.calls += 1
        return value

    def size(self, value: Any) -> int:
        return len(value)

    def count(self) -> int:
        return self.calls


@actors.remote(max_concurrency=2)
class Trouble:
    """A caller that gives trouble."""

    def __init__(self, shared: Any) -> None:
        self.shared = shared
        self.over = False

    def pid(self) -> int:
        return os.getpid()

    def flood(self) -> None:
        while not self.over:
            actors.get(self.shared.echo.map(range(2000)))

    def send_much(self, nbytes: int) -> int:
        size: int = actors.get(self.shared.size.remote(np.zeros(nbytes, np.uint8)))
        return size

    def end(self) -> None:
        self.over = True


@pytest.fixture
def shared() -> Any:
    return Shared.remote()


def calls_go_on(shared: Any) -> None:
    """Calls of this process are answered, in order, each with its own value."""
    for round in range(3):
        values = [f"{round}/{number}" for number in range(20)]
        assert actors.get([shared.echo.remote(value) for value in values], timeout=PATIENCE) == values


def test_while_another_floods(shared: Any) -> None:
    trouble = Trouble.remote(shared)
    flood = trouble.flood.remote()
    eventually(lambda: actors.get(shared.count.remote()) > 10_000, PATIENCE)
    calls_go_on(shared)
    assert actors.wait([flood], timeout=0) == ([], [flood])
    trouble.end.remote()
    actors.get(flood, timeout=PATIENCE)


def test_while_another_is_stopped_between_its_calls(shared: Any) -> None:
    trouble = Trouble.remote(shared)
    pid = actors.get(trouble.pid.remote())
    flood = trouble.flood.remote()
    eventually(lambda: actors.get(shared.count.remote()) > 2_000, PATIENCE)
    os.kill(pid, signal.SIGSTOP)
    try:
        calls_go_on(shared)
    finally:
        os.kill(pid, signal.SIGCONT)
    trouble.end.remote()
    actors.get(flood, timeout=PATIENCE)
    calls_go_on(shared)


def test_while_another_sends_much(shared: Any) -> None:
    trouble = Trouble.remote(shared)
    much = trouble.send_much.remote(512 << 20)
    calls_go_on(shared)
    assert actors.get(much, timeout=PATIENCE) == 512 << 20
    calls_go_on(shared)
