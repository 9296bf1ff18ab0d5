"""Cables that are pulled between real hosts: noticed, waited out, used again; each call runs once."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from netlab import Lab, netlab, unavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.netlab,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
]

DRIVER = """
import sys, time
import actors
from actors.handle import line_of

@actors.remote
class Counter:
    def __init__(self): self.count = 0
    def add(self):
        self.count += 1
        return self.count

with actors.init(expect_nodes=2, timeout=60):
    far = next(node for node in actors.nodes() if node.name == "host2")
    counter = Counter.options(node=far.id).remote()
    actors.get(counter.add.remote(), timeout=30)
    lane = line_of(counter).peer._conversation.control
    print("ready", flush=True)
    refs = []
    for line in sys.stdin:
        refs += [counter.add.remote() for _ in range(3)]
        begun = time.monotonic()
        while lane.linked:
            time.sleep(0.01)
        print(f"noticed {time.monotonic() - begun:.2f}", flush=True)
        print("answered", actors.get(refs, timeout=60), flush=True)
"""


class Pair:
    """Two paired devices, and a program on the first that calls an actor on the second."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self._folder = folder

    def start(self, host: int, *argv: str) -> subprocess.Popen[str]:
        return self.lab.exec(host, ["env", f"ACTORS_HOME={self._folder / str(host)}", sys.executable, *argv])

    def command(self, host: int, *argv: str) -> subprocess.Popen[str]:
        return self.start(host, "-c", "from actors.cli import main; main()", *argv)

    def does(self, host: int, *argv: str) -> None:
        process = self.command(host, *argv)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0, out

    def pair(self) -> None:
        self.does(1, "start")
        self.does(2, "start")
        invite = self.command(1, "invite", "--json")
        assert invite.stdout is not None
        self.does(2, "join", json.loads(invite.stdout.readline())["code"])
        assert invite.wait(30) == 0


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with netlab(2) as lab:
        pair = Pair(lab, tmp_path)
        pair.pair()
        try:
            yield pair
        finally:
            for host in (1, 2):
                pair.command(host, "stop").communicate(timeout=60)


def said(program: Any, word: str) -> str:
    line: str = program.stdout.readline()
    assert line.startswith(word), line + program.stdout.read()
    return line.removeprefix(word).strip()


def test_a_cable_that_is_cut_and_one_that_carries_one_way(pair: Pair) -> None:
    program = pair.start(1, "-c", DRIVER)
    assert program.stdin is not None
    said(program, "ready")
    count = 1
    for how in (pair.lab.cut, pair.lab.mute):
        how(2)
        program.stdin.write("go\n")
        program.stdin.flush()
        noticed = float(said(program, "noticed"))
        pair.lab.heal(2)
        healed = time.monotonic()
        answers = json.loads(said(program, "answered"))
        again = time.monotonic() - healed
        count += 3
        assert answers == list(range(2, count + 1))
        print(
            f"{how.__name__}: noticed after {noticed:.1f} s (goal 5), in use {again:.1f} s after it was healed (goal 2)"
        )
        assert noticed < 20
        assert again < 20
    program.stdin.close()
    assert program.wait(30) == 0
