"""One thread does what it is given in turn, and what comes from a socket besides."""

from __future__ import annotations

import asyncio
import select
import socket
import threading
from collections import deque
from concurrent.futures import CancelledError

import pytest

from actors.models.turns import Turns

SOON = 20.0


class Heard:
    """A source: keeps what comes by a socket, and the thread that was told."""

    def __init__(self) -> None:
        self.mine, self.theirs = socket.socketpair()
        self.mine.setblocking(False)
        self.got, self.threads = b"", set[str]()
        self.news = threading.Condition()

    def fileno(self) -> int:
        return self.mine.fileno()

    def come(self) -> None:
        try:
            data = self.mine.recv(10)
        except BlockingIOError:
            return
        with self.news:
            self.got += data
            self.threads.add(threading.current_thread().name)
            self.news.notify_all()

    def wait(self, what: bytes) -> bool:
        with self.news:
            return self.news.wait_for(lambda: self.got == what, SOON)


@pytest.fixture
def turns():
    with Turns() as turns:
        yield turns
        turns.submit(turns.hear, None).result(SOON)


def test_what_it_is_given_is_done_in_order_on_one_thread(turns):
    done: list[int] = []
    for number in range(100):
        last = turns.submit(done.append, number)
    last.result(SOON)
    assert done == list(range(100))
    names = {turns.submit(lambda: threading.current_thread().name).result(SOON) for _ in range(3)}
    assert names == {"mlx"}


def test_errors_and_cancelled_ones_leave_it_working(turns):
    with pytest.raises(ZeroDivisionError):
        turns.submit(lambda: 1 // 0).result(SOON)
    gate = threading.Event()
    turns.submit(gate.wait, SOON)
    never = turns.submit(gate.wait, SOON)
    assert never.cancel()
    gate.set()
    with pytest.raises(CancelledError):
        never.result(SOON)
    assert turns.submit(int, "7").result(SOON) == 7


def test_what_comes_by_a_socket_is_done_between(turns):
    heard = Heard()
    turns.submit(turns.hear, heard).result(SOON)
    for count in range(1, 50):
        heard.theirs.send(b"x")
        assert heard.wait(count * b"x")
        assert turns.submit(int, count).result(SOON) == count
    assert heard.threads == {"mlx"}
    turns.submit(turns.hear, None).result(SOON)
    heard.mine.close()
    heard.theirs.close()


class Led:
    """A source without a file: the thread waits for what comes as it can itself, for a while."""

    def __init__(self) -> None:
        self.brought, self.got = deque[bytes](), list[tuple[bytes, str]]()
        self.leads, self.told = threading.Event(), threading.Event()
        self.bell, self.done = None, deque[bool]()
        self.looked = threading.Event()
        self.patience = SOON

    def fileno(self) -> int:
        return -1

    def lead(self, done, bell) -> bool:
        self.bell = bell
        self.leads.set()
        select.select([bell], [], [], self.patience)
        self.done.append(done())
        self.looked.set()
        return bool(self.brought)

    def come(self) -> None:
        while self.brought:
            self.got.append((self.brought.popleft(), threading.current_thread().name))
            self.told.set()


@pytest.mark.parametrize("patience", [SOON, 0.0])
def test_it_waits_for_what_comes_without_a_file_until_it_is_rung(turns, patience):
    led = Led()
    led.patience = patience
    turns.submit(turns.hear, led).result(SOON)
    assert led.leads.wait(SOON)
    for count in range(20):
        assert turns.submit(int, count).result(SOON) == count
        led.brought.append(b"x")
        turns.ring()
        assert led.told.wait(SOON)
        led.told.clear()
    assert led.got == 20 * [(b"x", "mlx")]
    assert all(led.done) or not patience
    turns.submit(turns.hear, None).result(SOON)


def test_a_bell_that_can_be_read_is_never_waited_at(turns):
    """Who leads would read it again and again, for as long as it may lead."""
    led = Led()
    turns.submit(turns.hear, led).result(SOON)
    assert led.leads.wait(SOON)
    led.bell.ring()  # as one does whose job has been done just before
    assert led.looked.wait(SOON)
    assert led.done[0]


def test_a_loop_waits_for_it(turns):
    async def several() -> list[int]:
        loop = asyncio.get_running_loop()
        return list(await asyncio.gather(*(loop.run_in_executor(turns, int, each) for each in range(20))))

    assert asyncio.run(several()) == list(range(20))
