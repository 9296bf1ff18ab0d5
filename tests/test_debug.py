"""A debugger is attached to an actor from here: its words come, its commands go, and the method goes on after."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from clusters import Counter, eventually, failure

import actors
from actors.exceptions import ActorDiedError, ActorsError, ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote
class Worker:
    """Does what one steps through."""

    def __init__(self) -> None:
        self.count = 40
        self.ends = False

    def add(self, amount: int) -> int:
        self.count += amount
        total = self.count
        return total  # noqa: RET504 - to be looked at

    def spin(self) -> str:
        import time

        while not self.ends:
            time.sleep(0.01)
        return "ended"

    def stop(self, value: int) -> int:
        doubled = value * 2
        breakpoint()  # noqa: T100 - what is tested
        return doubled

    def numbers(self, count: int) -> Any:
        for number in range(count):
            yield number * 10

    def die(self) -> None:
        import os

        os._exit(1)


@actors.remote
class Async:
    """Does it on a loop."""

    async def add(self, amount: int) -> int:
        total = amount + 1
        return total  # noqa: RET504 - to be looked at


@actors.remote
class Late:
    """Is made only once somebody has had time to attach."""

    def __init__(self) -> None:
        import time

        time.sleep(1)

    def add(self, amount: int) -> int:
        total = amount + 1
        return total  # noqa: RET504 - to be looked at


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Types these lines at the prompts to come; returns what is left of them."""

    def types(*lines: Any) -> list[Any]:
        left = list(lines)

        def read(prompt: str) -> str:
            assert prompt == "(Pdb) "
            line = left.pop(0) if left else "q"
            if isinstance(line, type):
                raise line
            return str(line)

        monkeypatch.setattr("builtins.input", read)
        return left

    return types


def test_a_call_is_stepped_through_and_its_value_comes(typed: Any, capsys: Any) -> None:
    worker = Worker.remote()
    left = typed("n", "p self.count + 1000", "self.count = 0", "n", "c")
    assert actors.debug(worker.add, 2) == 0
    shown = capsys.readouterr().out
    assert left == []
    assert "add()\n-> self.count += amount" in shown  # the line itself, wherever the actor is
    assert "1042" in shown
    assert actors.get(worker.add.remote(1)) == 1  # without the debugger


def test_what_runs_just_now_is_stopped_in_the_middle(typed: Any, capsys: Any) -> None:
    worker = Worker.remote()
    ref = worker.spin.remote()
    eventually(lambda: _runs(worker, "spin"))
    typed("p 'count is', self.count", "self.ends = True", "q")
    actors.debug(worker)
    assert actors.get(ref, timeout=20) == "ended"
    shown = capsys.readouterr().out
    assert ", which runs spin." in shown
    assert "('count is', 40)" in shown


def _runs(handle: Any, method: str) -> bool:
    from actors.observer import Observer

    return any(call.method == method and call.state == "RUNNING" for call in Observer.here().view().calls)


def test_a_breakpoint_waits_for_somebody(typed: Any, capsys: Any) -> None:
    worker = Worker.remote()
    ref = worker.stop.remote(5)
    eventually(lambda: _runs(worker, "stop"))
    eventually(lambda: "stands at a breakpoint" in capsys.readouterr().err)
    typed("p doubled", "doubled = 7", "c")
    actors.debug(worker)
    assert actors.get(ref, timeout=20) == 7
    assert "10" in capsys.readouterr().out


def test_a_coroutine_and_a_generator(typed: Any, capsys: Any) -> None:
    typed("n", "n", "p total", "q")
    assert actors.debug(Async.remote().add, 1) == 2
    assert "\n2\n" in capsys.readouterr().out
    typed("n", "p count", "q")
    stream = actors.debug(Worker.remote().numbers, 3)
    assert [actors.get(ref) for ref in stream] == [0, 10, 20]
    assert "\n3\n" in capsys.readouterr().out


def test_one_can_attach_while_the_constructor_runs(typed: Any, capsys: Any) -> None:
    typed("p amount", "q")
    assert actors.debug(Late.remote().add, 1) == 2
    assert "\n1\n" in capsys.readouterr().out


def test_a_call_of_somebody_else_is_waited_for(typed: Any, capsys: Any) -> None:
    worker = Worker.remote()
    actors.get(worker.add.remote(0))
    values: list[int] = []
    typed("p amount", "q")
    attached = threading.Timer(0.5, lambda: values.append(actors.get(worker.add.remote(2))))
    attached.start()
    actors.debug(worker)
    attached.join(20)
    assert values == [42]
    assert "waits for a call" in capsys.readouterr().out


@pytest.mark.parametrize("end", [KeyboardInterrupt, EOFError])
def test_whoever_leaves_lets_the_method_go_on(typed: Any, end: type[BaseException]) -> None:
    worker = Worker.remote()
    actors.get(worker.add.remote(0))
    typed("n", end)
    if end is EOFError:
        assert actors.debug(worker.add, 2) == 42
    else:
        with pytest.raises(KeyboardInterrupt):
            actors.debug(worker.add, 2)
    assert actors.get(worker.add.remote(1), timeout=20) == 43


def test_one_at_a_time(typed: Any) -> None:
    worker = Worker.remote()
    seen: list[BaseException] = []

    def second() -> str:
        try:
            actors.debug(worker)
        except ActorsError as error:
            seen.append(error)
        return "q"

    class Line:
        def __str__(self) -> str:
            return second()

    typed(Line())
    assert actors.debug(worker.add, 2) == 42
    assert "another debugger" in str(seen[0])


def test_an_actor_that_is_gone_or_goes(typed: Any, capsys: Any) -> None:
    worker = Worker.remote()
    typed("import os; os._exit(1)")
    with pytest.raises(ActorDiedError):
        actors.debug(worker.add, 2)
    with pytest.raises(ActorDiedError):
        actors.debug(worker)
    assert isinstance(failure(worker.add.remote(1)), ActorDiedError)


def test_what_is_no_actor_is_refused() -> None:
    with pytest.raises(ArgumentError):
        actors.debug(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"actors\.debug\(handle\.method"):
        actors.debug(Counter.remote(), 1)


def command(*arguments: str) -> subprocess.Popen[str]:
    """Begins ``actors debug``, as in another terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", "from actors.cli import main; main()", "debug", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_the_command_attaches_from_another_terminal() -> None:
    worker = Worker.options(name="stepped").remote()
    assert actors.get(worker.add.remote(2)) == 42
    with command("stepped", "add") as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("Attached to Worker stepped on node ")
        ref = worker.add.remote(8)
        out, err = running.communicate("p self.count + 1000\nself.count = 0\nn\nc\n", timeout=30)
    assert (running.returncode, err) == (0, "")
    assert "-> self.count += amount" in out
    assert "1042" in out
    assert actors.get(ref, timeout=20) == 8
    assert actors.get(worker.add.remote(1), timeout=20) == 9  # without the debugger


def test_the_command_refuses_what_is_not_there() -> None:
    worker = Worker.options(name="refused").remote()
    actors.get(worker.add.remote(0))
    with command("refused", "ad") as running:
        _, err = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "the actor has no method 'ad'; it has: add, die, numbers, " in err
    with command("refusde") as running:
        _, err = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "did you mean 'refused'?" in err
    actors.kill(worker)


def test_the_command_lets_go_where_it_is_interrupted() -> None:
    worker = Worker.options(name="interrupted").remote()
    actors.get(worker.add.remote(0))
    with command("interrupted") as running:
        assert running.stdout is not None
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert (running.returncode, err.strip()) == (130, "Interrupted.")
    assert actors.get(worker.add.remote(2), timeout=20) == 42
