"""An actor's calls are written to a file, and run again here."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from clusters import failure

import actors
from actors.home import log_dir
from actors.record import RecordError, Recording, is_same

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("cluster")


@actors.remote(record=True)
class Account:
    """Everything that a call can do."""

    def __init__(self, balance: int) -> None:
        self.balance = balance

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def fail(self, why: str) -> None:
        raise ValueError(why)

    def chance(self) -> float:
        return random.random()

    def scaled(self, array: Any, by: Any) -> Any:
        return array * by

    def parts(self, count: int) -> Any:
        yield from range(count)

    async def later(self, value: object) -> object:
        return value

    def keep(self, refs: list[Any]) -> int:
        return len(refs)

    def end(self) -> None:
        import os

        os._exit(3)


def file_of(handle: Any) -> Path:
    """Returns the record of an actor."""
    (actor,) = re.findall(r"\((actor-\w+)\)", repr(handle))
    (path,) = (log_dir() / "records").glob(f"*{actor}*")
    return path


def replay(*arguments: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    code = "import sys; from actors.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "replay", *map(str, arguments)]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def recorded(cluster: Any) -> Path:
    account = Account.remote(5)
    actors.get([account.add.remote(2), account.add.remote(amount=actors.put(3))])
    actors.get(account.add.map([1, 1]))
    failure(account.fail.remote("no"))
    actors.get(account.chance.remote())
    actors.get(account.scaled.remote(np.arange(300_000.0), 2))
    assert len(list(account.parts.remote(3))) == 3
    actors.get(account.later.remote(["x"]))
    path = file_of(account)
    failure(account.end.remote())
    return path


def test_calls_are_there_in_their_order_with_how_they_ended(recorded: Path) -> None:
    recording = Recording(recorded)
    assert recorded.stat().st_mode & 0o777 == 0o600
    assert recording.about["class"] == "Account"
    assert [call.method for call in recording.calls] == [
        "add", "add", "add", "add", "fail", "chance", "scaled", "parts", "later", "end",
    ]  # fmt: skip
    assert [call.opened() for call in recording.calls[:3]] == [((2,), {}), ((), {"amount": 3}), ((1,), {})]
    assert recording.calls[4].error == "ValueError: no"
    assert recording.calls[-1].outcome is None  # it ended the process


def test_they_run_again_on_an_object_made_anew(recorded: Path) -> None:
    done = replay(recorded, "--until", 9)
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert done.returncode == 1, done.stderr  # for one of them, which is left to chance
    assert [lines[number].split()[2] for number in "1234579"] == ["same"] * 7
    assert "DIFFERS" in lines["6"]
    assert lines["8"].endswith("[0, 1, 2]")


def test_what_is_recorded_is_listed_without_running_it(recorded: Path) -> None:
    done = replay(recorded, "--list", "--json")
    calls = json.loads(done.stdout)
    assert (done.returncode, len(calls)) == (0, 10)
    assert calls[4] == {
        "number": 5, "method": "fail", "recorded": "RAISED", "error": "ValueError: no", "same": None, "now": None,
    }  # fmt: skip
    assert "never ended" in replay(recorded, "--list").stdout.splitlines()[-1]


def test_a_call_is_stepped_through_and_an_error_looked_at(recorded: Path) -> None:
    stepped = replay(recorded, "--until", 2, "--break", 2, typed="p 'amount is', amount\nc\n").stdout
    assert "('amount is', 3)" in stepped
    looked_at = replay(recorded, "--until", 5, "--pdb", typed="p 'why is', why\nq\n").stdout
    assert "('why is', 'no')" in looked_at


def test_a_file_that_was_cut_off_counts_as_far_as_it_goes(recorded: Path, tmp_path: Path) -> None:
    data = recorded.read_bytes()
    for length in (len(data) - 1, len(data) // 2):
        cut = tmp_path / f"{length}.calls"
        cut.write_bytes(data[:length])
        assert len(Recording(cut).calls) <= 10


@pytest.mark.parametrize("data", [b"", b"nonsense\n", b"[]\n", b'{"entry": "call", "sizes": []}\n', b"\x80\x04"])
def test_what_is_no_record_says_so(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.calls"
    path.write_bytes(data)
    with pytest.raises(RecordError, match="no record"):
        Recording(path)
    done = replay(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no record" in done.stderr


def test_a_reference_among_the_arguments_is_told() -> None:
    account = Account.remote(0)
    assert actors.get(account.keep.remote([actors.put(1)])) == 1
    done = replay(file_of(account))
    assert done.returncode == 1
    assert "lives no longer than the program that made it" in done.stderr


def test_it_says_where_and_is_off_unless_asked_for() -> None:
    before = len(list((log_dir() / "records").iterdir()))
    plain = Account.options(record=False).remote(1)
    assert actors.get(plain.add.remote(1)) == 2
    assert len(list((log_dir() / "records").iterdir())) == before
    with pytest.raises(TypeError, match="record must be True or False"):
        Account.options(record="yes")


def test_values_are_compared_as_they_are(recorded: Path) -> None:
    calls = Recording(recorded).calls
    assert is_same(calls[6], np.arange(300_000.0) * 2)
    assert not is_same(calls[6], np.arange(300_000.0))
    assert not is_same(calls[4], None)
