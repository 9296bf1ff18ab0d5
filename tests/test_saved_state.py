"""Saved state: what an actor has acknowledged survives its restart."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from clusters import eventually, failure

import actors
from actors.cluster import joined
from actors.exceptions import ActorDiedError, ActorUnavailableError, SerializationError
from actors.latest import Latest
from actors.serialize import dumps, loads

pytestmark = pytest.mark.usefixtures("cluster")

PATIENCE = 30.0
TRIED_AGAIN: dict[str, Any] = {"max_restarts": -1, "max_task_retries": -1}


class _Hooks:
    """State, and hooks that keep it."""

    def __init__(self, log: str = "") -> None:
        self.count = 0
        self.log = log
        self.extra: object = None
        self.note("made")

    def note(self, what: str) -> None:
        if self.log:
            with Path(self.log).open("a", encoding="utf-8") as file:
                file.write(f"{what}\n")

    def __actor_save__(self) -> object:
        self.note("saved")
        return {"count": self.count, "extra": self.extra}

    def __actor_load__(self, state: dict[str, Any]) -> None:
        self.note("loaded")
        self.count = state["count"]


@actors.remote
class Account(_Hooks):
    """One call at a time."""

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def fail(self) -> None:
        self.count += 100
        raise KeyError("after all")

    def total(self) -> int:
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def keep(self, what: str) -> None:
        self.extra = threading.Lock() if what == "a lock" else what

    def crash(self) -> None:
        self.count += 1000
        os._exit(3)

    def exit(self) -> None:
        raise SystemExit(0)

    def home(self) -> str:
        return actors.get_runtime_context().get_node_id()

    def add_after(self, path: str, others: int) -> int:
        here: Any = joined().targets[actors.get_runtime_context().get_actor_id()]
        eventually(lambda: len(here.open_calls()) == 1 + others and Path(path).exists(), PATIENCE)
        return self.add()


@actors.remote
class AsyncAccount(_Hooks):
    """Many at a time."""

    async def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    async def total(self) -> int:
        return self.count

    async def crash(self) -> None:
        os._exit(3)


def _crash(account: actors.ActorHandle) -> None:
    """Ends its process; waits until it is back."""
    call = account.crash.options(max_task_retries=0).remote()
    assert isinstance(failure(call, PATIENCE), ActorUnavailableError)

    def back() -> bool:
        try:
            actors.get(account.total.remote(), timeout=PATIENCE)
        except ActorUnavailableError:
            return False
        return True

    eventually(back, PATIENCE)


@pytest.mark.parametrize("isolation", ["process", "thread"])
@pytest.mark.parametrize("cls", [Account, AsyncAccount])
def test_what_was_acknowledged_is_there_after_a_restart(cls: Any, isolation: str) -> None:
    account = cls.options(max_restarts=2, isolation=isolation).remote()
    assert actors.get([account.add.remote() for _ in range(20)], timeout=PATIENCE) == list(range(1, 21))
    _crash(account)
    assert actors.get(account.total.remote(), timeout=PATIENCE) == 20
    assert actors.get(account.add.remote(5), timeout=PATIENCE) == 25
    _crash(account)
    assert actors.get(account.add.remote(), timeout=PATIENCE) == 26


def test_the_constructor_runs_first_and_then_the_state_is_set(tmp_path: Path) -> None:
    log = tmp_path / "log"
    account = Account.options(max_restarts=1).remote(str(log))
    assert actors.get(account.add.remote()) == 1
    actors.kill(account, no_restart=False)
    assert eventually(lambda: _total(account), PATIENCE) == 1
    # In its last life nothing is saved any more.
    assert log.read_text().split() == ["made", "saved", "made", "loaded"]


@actors.remote
class Teller:
    """Uses an account from a process that does not keep its state."""

    def add(self, account: actors.ActorHandle, times: int) -> int:
        acknowledged = 0
        for _ in range(times):
            try:
                actors.get(account.add.remote(), timeout=PATIENCE)
                acknowledged += 1
            except ActorUnavailableError:
                pass
        return acknowledged


@pytest.mark.parametrize("cls", [Account, AsyncAccount])
def test_states_come_with_answers_to_the_maker_and_apart_for_others_and_the_last_one_counts(cls: Any) -> None:
    account = cls.options(max_restarts=-1).remote()
    teller = Teller.remote()
    elsewhere = teller.add.remote(account, 60)
    acknowledged = made = 0
    for number in range(60):
        made += 1
        if number in {20, 40}:
            account.crash.options(max_task_retries=0).remote()
        try:
            actors.get(account.add.remote(), timeout=PATIENCE)
            acknowledged += 1
        except ActorUnavailableError:
            pass
    acknowledged += actors.get(elsewhere, timeout=PATIENCE)
    assert acknowledged <= actors.get(account.total.remote(), timeout=PATIENCE) <= made + 60


def test_of_two_states_the_later_one_is_kept() -> None:
    first, second = dumps("first"), dumps("second")
    latest = Latest(None)
    latest.take(2, second)
    latest.take(1, first)  # it was sent before, and took another way
    assert latest.state is second
    assert latest.begin() is second
    latest.take(1, first)  # of a new process
    assert latest.state is first
    latest.take(None, second)  # as it departed
    assert latest.state is second


def test_a_large_state_and_one_with_references_come_apart() -> None:
    account = Account.options(max_restarts=1).remote()
    actors.get(account.keep.remote("x" * (1 << 20)), timeout=PATIENCE)
    assert actors.get(account.add.remote(), timeout=PATIENCE) == 1
    assert _kept(account) == 1


def _total(account: actors.ActorHandle) -> int:
    try:
        return int(actors.get(account.total.remote(), timeout=PATIENCE))
    except ActorUnavailableError:
        return 0


def test_a_method_that_raised_may_have_done_something() -> None:
    account = Account.options(**TRIED_AGAIN).remote()
    assert isinstance(failure(account.fail.remote()), KeyError)
    os.kill(actors.get(account.pid.remote()), signal.SIGKILL)
    assert actors.get(account.total.remote(), timeout=PATIENCE) == 100


def test_every_so_many_calls(tmp_path: Path) -> None:
    log = tmp_path / "log"
    account = Account.options(checkpoint="10 calls", **TRIED_AGAIN).remote(str(log))
    pid = actors.get(account.pid.remote())
    assert actors.get([account.add.remote() for _ in range(25)], timeout=PATIENCE)[-1] == 25
    assert log.read_text().count("saved") == 2
    os.kill(pid, signal.SIGKILL)
    assert actors.get(account.total.remote(), timeout=PATIENCE) == 19  # of 20 calls the first was another


@pytest.mark.parametrize("isolation", ["process", "thread"])
@pytest.mark.parametrize("cls", [Account, AsyncAccount])
def test_by_the_clock_also_while_no_calls_come(cls: Any, isolation: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    account = cls.options(checkpoint="0.3s", isolation=isolation, max_restarts=1).remote(str(log))
    assert actors.get([account.add.remote() for _ in range(20)], timeout=PATIENCE)[-1] == 20
    eventually(lambda: _kept(account) == 20, PATIENCE)
    assert log.read_text().count("saved") < 5
    _crash(account)
    assert actors.get(account.total.remote(), timeout=PATIENCE) == 20


def _kept(account: actors.ActorHandle) -> int:
    """The count in the state that its maker has."""
    state = joined().keeper.charges[account._id]._state.state
    return loads(state)["count"] if state is not None else 0


def test_by_a_long_clock_not_at_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    never = Account.options(checkpoint="1000s", max_restarts=1).remote(str(log))
    assert actors.get([never.add.remote() for _ in range(3)]) == [1, 2, 3]
    assert "saved" not in log.read_text()


@actors.remote
class Pair:
    """Two numbers that are the same between two calls."""

    def __init__(self) -> None:
        self.first = self.second = 0

    async def add(self) -> None:
        self.first += 1
        await asyncio.sleep(0.01)
        self.second += 1

    saved = 0
    torn = 0

    def __actor_save__(self) -> object:
        self.saved += 1
        self.torn += self.first != self.second
        return (self.first, self.second)

    def __actor_load__(self, state: tuple[int, int]) -> None:
        self.first, self.second = state

    async def found(self) -> tuple[int, int]:
        return self.saved, self.torn


def test_by_the_clock_no_call_is_half_way() -> None:
    pair = Pair.options(checkpoint="0.05s", max_restarts=1).remote()

    def often() -> bool:
        actors.get([pair.add.remote() for _ in range(50)], timeout=PATIENCE)
        return actors.get(pair.found.remote(), timeout=PATIENCE)[0] >= 5

    eventually(often, PATIENCE)
    assert actors.get(pair.found.remote(), timeout=PATIENCE)[1] == 0


@actors.remote
class ThreadedPair:
    """As `Pair`, on threads."""

    def __init__(self) -> None:
        self.first = self.second = self.saved = self.torn = 0
        self.lock = threading.Lock()

    def add(self) -> None:
        with self.lock:
            self.first += 1
        time.sleep(0.002)
        with self.lock:
            self.second += 1

    def __actor_save__(self) -> object:
        self.saved += 1
        self.torn += self.first != self.second
        return (self.first, self.second)

    def __actor_load__(self, state: tuple[int, int]) -> None:
        self.first, self.second = state

    def found(self) -> tuple[int, int]:
        return self.saved, self.torn


@pytest.mark.parametrize("checkpoint", ["call", "7 calls"])
@pytest.mark.parametrize("cls", [Pair, ThreadedPair])
def test_by_calls_no_call_is_half_way(cls: Any, checkpoint: str) -> None:
    pair = cls.options(checkpoint=checkpoint, max_restarts=1, max_concurrency=8).remote()
    actors.get([pair.add.remote() for _ in range(100)], timeout=PATIENCE)
    saved, torn = actors.get(pair.found.remote(), timeout=PATIENCE)
    assert torn == 0
    assert 3 <= saved <= 101


def test_by_calls_a_call_that_waits_for_another_goes_on_and_holds_none_up_after_that() -> None:
    meeting = Meeting.options(checkpoint="call", max_restarts=1).remote()
    waiting = meeting.wait.remote()
    assert actors.get(meeting.count.remote(), timeout=PATIENCE) == 0  # after a second
    for saved in range(1, 30):
        assert actors.get(meeting.count.remote(), timeout=PATIENCE) == saved
    assert actors.get(meeting.begin.remote(), timeout=PATIENCE) == 30
    assert actors.get(waiting, timeout=PATIENCE) == "over"


@actors.remote
class Meeting:
    """One call waits for another, which must not be held for ever."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.saved = 0

    async def wait(self) -> str:
        await self.open.wait()
        return "over"

    async def begin(self) -> int:
        self.open.set()
        return self.saved

    async def count(self) -> int:
        return self.saved

    def __actor_save__(self) -> object:
        self.saved += 1
        return None

    def __actor_load__(self, state: None) -> None:
        pass


def test_by_the_clock_a_call_that_waits_for_another_goes_on() -> None:
    meeting = Meeting.options(checkpoint="0.05s", max_restarts=1).remote()
    waiting = meeting.wait.remote()
    eventually(lambda: actors.get(meeting.count.remote(), timeout=PATIENCE), PATIENCE)
    assert actors.get(meeting.begin.remote(), timeout=PATIENCE) >= 1
    assert actors.get(waiting, timeout=PATIENCE) == "over"


@pytest.mark.parametrize("cls", [Account])
def test_a_state_that_cannot_be_pickled_is_the_calls_error(cls: Any) -> None:
    account = cls.options(**TRIED_AGAIN).remote()
    assert actors.get(account.add.remote()) == 1
    error = failure(account.keep.remote("a lock"))
    assert isinstance(error, SerializationError)
    assert "__actor_save__" in str(error)
    assert "lock" in str(error)
    assert actors.get(account.keep.remote("words")) is None  # it lives, and can be saved again
    assert actors.get(account.add.remote()) == 2


def test_a_hook_that_raises() -> None:
    @actors.remote(max_restarts=1)
    class Unwilling:
        def __actor_save__(self) -> object:
            if getattr(self, "fails", False):
                raise OSError("no state today")
            return 5

        def __actor_load__(self, state: object) -> None:
            raise ValueError(f"cannot go on from {state}")

        def set(self, fails: bool) -> bool:
            self.fails = fails
            return fails

        def crash(self) -> None:
            os._exit(1)

    actor = Unwilling.remote()
    error = failure(actor.set.remote(True))
    assert isinstance(error, OSError)
    assert "__actor_save__" in str(error)
    assert actors.get(actor.set.remote(False)) is False
    assert isinstance(failure(actor.crash.remote()), ActorUnavailableError)

    def died() -> BaseException | None:
        found = failure(actor.set.remote(False), PATIENCE)
        return found if isinstance(found, ActorDiedError) else None

    error = eventually(died, PATIENCE)
    assert isinstance(error.__cause__, ValueError)
    assert "__actor_load__" in str(error)


def test_calls_at_once_never_lose_what_was_acknowledged() -> None:
    @actors.remote(max_concurrency=8, **TRIED_AGAIN)
    class Shared:
        def __init__(self) -> None:
            self.lock = threading.Lock()
            self.seen: set[int] = set()

        def __actor_save__(self) -> object:
            with self.lock:
                return set(self.seen)

        def __actor_load__(self, state: set[int]) -> None:
            self.seen = state

        def see(self, number: int) -> int:
            with self.lock:
                self.seen.add(number)
            return number

        def all(self) -> set[int]:
            return self.seen

        def pid(self) -> int:
            return os.getpid()

    shared = Shared.remote()
    pid = actors.get(shared.pid.remote())
    calls = [shared.see.remote(number) for number in range(400)]
    done, _ = actors.wait(calls, num_returns=100, timeout=PATIENCE)
    known = set(actors.get(done))
    os.kill(pid, signal.SIGKILL)
    assert known <= actors.get(shared.all.remote(), timeout=PATIENCE)
    assert actors.get(calls, timeout=PATIENCE) == list(range(400))


def test_a_detached_actors_state_is_kept_by_its_node() -> None:
    account = Account.options(lifetime="detached", name="account", **TRIED_AGAIN).remote()
    assert actors.get([account.add.remote() for _ in range(3)]) == [1, 2, 3]
    os.kill(actors.get(account.pid.remote()), signal.SIGKILL)
    assert actors.get(account.total.remote(), timeout=PATIENCE) == 3
    actors.kill(account)


def test_answers_that_wait_for_their_states_come_before_the_actor_ends() -> None:
    account = Account.options(lifetime="detached", **TRIED_AGAIN).remote()
    calls = [account.add.remote() for _ in range(100)]
    leaving = account.exit.remote()
    assert actors.get(calls, timeout=PATIENCE) == list(range(1, 101))
    assert isinstance(failure(leaving), ActorDiedError)


def test_the_next_call_runs_while_an_answer_waits_for_its_state(tmp_path: Path) -> None:
    log = tmp_path / "log"
    account = Account.options(lifetime="detached", **TRIED_AGAIN).remote(str(log))
    actors.get(account.add.remote())
    home = actors.get(account.home.remote())
    heirs = [node.pid for node in actors.nodes() if node.id != home]  # one of them is
    before = log.read_text().count("saved")
    go = tmp_path / "go"
    calls = [account.add_after.remote(str(go), 4), *(account.add.remote() for _ in range(4))]
    for pid in heirs:
        os.kill(pid, signal.SIGSTOP)
    try:
        go.touch()
        eventually(lambda: log.read_text().count("saved") == before + 5)  # they have run
        assert actors.wait(calls, num_returns=1, timeout=0.2) == ([], calls)  # and none is acknowledged
    finally:
        for pid in heirs:
            os.kill(pid, signal.SIGCONT)
    assert actors.get(calls, timeout=PATIENCE) == [2, 3, 4, 5, 6]
    actors.kill(account)


def test_the_one_that_leaves_is_not_made_anew() -> None:
    account = Account.options(**TRIED_AGAIN).remote()
    assert actors.get(account.add.remote()) == 1
    assert isinstance(failure(account.exit.remote()), ActorDiedError)
    eventually(lambda: isinstance(failure(account.total.remote()), ActorDiedError))


def test_what_is_missing_is_said() -> None:
    @actors.remote
    class OnlySave:
        def __actor_save__(self) -> object:
            return None

    @actors.remote
    class Coroutine:
        async def __actor_save__(self) -> object:
            return None

        def __actor_load__(self, state: object) -> None: ...

    @actors.remote
    class Plain:
        pass

    with pytest.raises(TypeError, match="__actor_save__ and no __actor_load__"):
        OnlySave.remote()
    with pytest.raises(TypeError, match="plain method"):
        Coroutine.remote()
    with pytest.raises(ValueError, match="needs max_restarts="):
        Account.options(checkpoint="call").remote()
    with pytest.raises(ValueError, match="__actor_load__"):
        Plain.options(checkpoint="call", max_restarts=1).remote()
    with pytest.raises(ValueError, match="'100 calls'"):
        Account.options(checkpoint="often")
    assert actors.get(Account.remote().add.remote()) == 1  # hooks alone ask for nothing
