"""Real faults on real processes: relays that cut, hold, lose and throttle.

The calls go by a relay to the Unix socket of an actor's process, or to the TLS door of its node.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from clusters import eventually
from relay import BACK, THERE, Detour

import actors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("cluster")
PATIENCE = 60.0
LANES = ["socket", "door"]


@actors.remote
class Ledger:
    """Takes numbers, which must come as 0, 1, 2, …"""

    def __init__(self) -> None:
        self.next = 0
        self.wrong: list[tuple[int, int]] = []

    def add(self, number: int) -> int:
        if number != self.next:
            self.wrong.append((number, self.next))
        self.next += 1
        return number

    def add_large(self, number: int, data: bytes) -> bytes:
        self.add(number)
        return data

    def state(self) -> tuple[int, list[tuple[int, int]]]:
        return self.next, self.wrong

    def rss(self) -> int:
        gc.collect()
        return psutil.Process().memory_info().rss


@actors.remote
class Bystander:
    """Has nothing to do with it."""

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def cluster() -> Iterator[actors.Cluster]:
    with actors.init(local_nodes=2) as cluster:
        yield cluster


def there(cls: Any) -> Any:
    """Makes an actor on the other node and waits until it answers."""
    actor = cls.options(node=actors.nodes()[1].id).remote()
    actors.get(getattr(actor, FIRST[cls]).remote(), timeout=30)
    return actor


FIRST: dict[Any, str] = {Ledger: "state", Bystander: "pid"}


# -- cuts -------------------------------------------------------------------------------------------------------


def _count_through_cuts(detour: Detour, count: int, cuts: int, weigh: Callable[[int], None] = lambda _: None) -> None:
    """Sends numbers and checks the answers, while another thread cuts all connections again and again."""
    done = 0
    over = threading.Event()

    def cut() -> None:
        for number in range(cuts):
            while done < count * (number + 1) // (cuts + 1) and not over.is_set():
                time.sleep(0.0005)
            detour.relay.cut()

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        refs: deque[Any] = deque()
        for number in range(count):
            refs.append(detour.call("add", number))
            while len(refs) > 500 or (refs and number == count - 1):
                assert actors.get(refs.popleft(), timeout=PATIENCE) == done
                done += 1
                if done % (count // 10) == 0:
                    weigh(done)
    finally:
        over.set()
        cutter.join()


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize(
    ("count", "cuts"), [(5_000, 20), pytest.param(100_000, 200, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_each_number_counts_once_and_in_order_through_cuts(lane: str, count: int, cuts: int) -> None:
    ledger = there(Ledger)
    here = psutil.Process()
    sizes: list[tuple[int, int]] = []
    with Detour(ledger, lane) as detour:

        def weigh(_: int) -> None:
            sizes.append((here.memory_info().rss, actors.get(ledger.rss.remote(), timeout=PATIENCE)))

        began = time.monotonic()
        _count_through_cuts(detour, count, cuts, weigh)
        took = time.monotonic() - began
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (count, [])
    print(f"{lane}: {count} numbers through {cuts} cuts in {took:.1f} s; MiB: {[(a >> 20, b >> 20) for a, b in sizes]}")
    for before, after in zip(sizes[len(sizes) // 3], sizes[-1], strict=True):
        assert after <= before + (16 << 20), sizes


@pytest.mark.parametrize("lane", LANES)
def test_large_values_pass_once_through_cuts(lane: str) -> None:
    ledger = there(Ledger)
    data = os.urandom(3 << 20)
    with Detour(ledger, lane) as detour:
        detour.line.peer or eventually(lambda: detour.line.peer is not None)
        refs = []
        for number in range(6):
            refs.append(detour.call("add_large", number, data))
            passed = detour.relay.passed[BACK]
            eventually(lambda passed=passed: detour.relay.passed[BACK] > passed, PATIENCE)
            detour.relay.cut()
        assert all(actors.get(ref, timeout=PATIENCE) == data for ref in refs)
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (6, [])


@pytest.mark.parametrize("way", [THERE, BACK])
@pytest.mark.parametrize(
    ("lane", "every"),
    [
        ("socket", 23),
        pytest.param("socket", 7, marks=pytest.mark.slow),
        pytest.param("door", 197, marks=pytest.mark.slow),
    ],
)
def test_a_cut_after_any_byte_of_a_hello_and_a_short_call(lane: str, every: int, way: int) -> None:
    ledger = there(Ledger)
    number = 0
    with Detour(ledger, lane) as detour:
        while True:
            detour.relay.cut()
            detour.relay.cut_after(way, number * every)
            assert actors.get(detour.call("add", number), timeout=PATIENCE) == number
            number += 1
            if not detour.relay.has_cut:  # more than all the bytes there are
                break
    assert number * every > 100
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (number, [])


@pytest.mark.slow
@pytest.mark.parametrize("way", [THERE, BACK])
@pytest.mark.parametrize("lane", LANES)
def test_a_cut_after_some_bytes_of_a_large_value(lane: str, way: int) -> None:
    """Around each border of a chunk, and anywhere else."""
    ledger = there(Ledger)
    data = os.urandom((3 << 20) + 5)
    places = [0, 1, 30, *((2 << 20) + off for off in (-30, -1, 0, 1, 30, 100)), 999_999, 3 << 20]
    number = 0
    with Detour(ledger, lane) as detour:
        for place in places:
            detour.relay.cut_after(way, place)
            assert actors.get(detour.call("add_large", number, data), timeout=PATIENCE) == data
            assert detour.relay.has_cut
            number += 1
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (number, [])


@pytest.mark.parametrize("way", [THERE, BACK])
@pytest.mark.parametrize("lane", LANES)
def test_one_direction_that_is_closed(lane: str, way: int) -> None:
    ledger = there(Ledger)
    with Detour(ledger, lane) as detour:
        for number in range(20):
            ref = detour.call("add", number)
            if number % 5 == 2:
                detour.relay.half_close(way)
            assert actors.get(ref, timeout=PATIENCE) == number
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (20, [])


@pytest.mark.parametrize("lane", LANES)
def test_a_slow_network_only_takes_longer(lane: str) -> None:
    ledger = there(Ledger)
    with Detour(ledger, lane) as detour:
        detour.relay.delay(0.02)
        assert [actors.get(detour.call("add", number), timeout=PATIENCE) for number in range(5)] == list(range(5))
        detour.relay.delay(0)
        detour.relay.throttle(4 << 20)
        data = bytes(2 << 20)
        large = detour.call("add_large", 5, data)
        refs = [detour.call("add", number) for number in range(6, 50)]
        assert actors.get(large, timeout=PATIENCE) == data
        assert actors.get(refs, timeout=PATIENCE) == list(range(6, 50))
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (50, [])


# -- cables that are pulled -------------------------------------------------------------------------------------


def test_a_pulled_cable_is_noticed_and_used_again_when_healed() -> None:
    ledger = there(Ledger)
    with Detour(ledger, "door") as detour:
        assert actors.get(detour.call("add", 0), timeout=PATIENCE) == 0
        lane = detour.line.peer._conversation.control  # type: ignore[union-attr]
        detour.relay.lose()
        began = time.monotonic()
        refs = [detour.call("add", number) for number in range(1, 4)]
        eventually(lambda: not lane.linked, 15, "the caller notices")
        noticed = time.monotonic() - began
        assert actors.wait(refs, timeout=1) == ([], refs)
        detour.relay.lose(False)
        healed = time.monotonic()
        assert actors.get(refs, timeout=PATIENCE) == [1, 2, 3]
        again = time.monotonic() - healed
    print(f"noticed after {noticed:.1f} s (goal 5), in use again {again:.1f} s after it was healed (goal 2)")
    assert actors.get(ledger.state.remote(), timeout=PATIENCE) == (4, [])


def test_trouble_with_one_actor_does_not_hold_up_calls_of_others() -> None:
    ledger = there(Ledger)
    bystanders = [there(Bystander), Bystander.remote()]
    with Detour(ledger, "socket") as detour:
        detour.relay.hold(THERE, BACK)
        data = bytes(3 << 20)
        held = [detour.call("add_large", number, data) for number in range(3)]
        eventually(lambda: detour.relay.held[THERE] > 0, PATIENCE)
        # By the same caller, at the same node and at another: they have no trouble.
        assert all(pid > 0 for pid in actors.get([one.pid.remote() for one in bystanders], timeout=PATIENCE))
        assert actors.wait(held, timeout=0.1)[0] == []
        detour.relay.let_go()
        assert [len(value) for value in actors.get(held, timeout=PATIENCE)] == [len(data)] * 3
