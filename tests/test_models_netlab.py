"""A model over real hosts: cables that are pulled in mid-answer, and weights that one of them has."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

from netlab import Lab, netlab, unavailable
from test_models_sharded import END, PROMPT, speaking
from tiny_models import whole_directory, whole_tokens

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.netlab,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
]

HOSTS = 3
MIB = 1 << 20
LENGTH = 60

ANSWER = """
import json, sys, time
import actors
from actors.models import ShardedModel

path, prompt, length = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
with actors.init(expect_nodes=3, timeout=60):
    order = sorted(node.name for node in actors.nodes())
    with ShardedModel.load(path, nodes=order) as model:
        print("plan", json.dumps([stage.node for stage in model.plan.stages]), flush=True)
        tokens = model.tokens(prompt, max_tokens=length)
        got = [next(tokens) for _ in range(5)]
        print("begun", flush=True)
        sys.stdin.readline()
        stall, last = 0.0, time.monotonic()
        for token in tokens:
            stall, last = max(stall, time.monotonic() - last), time.monotonic()
            got.append(token)
        print("tokens", json.dumps(got), flush=True)
        print("stall", stall, flush=True)
        print("plan", json.dumps([stage.node for stage in model.plan.stages]), flush=True)
"""


OWN = """
mount -t tmpfs tmpfs "$1" && cp -r "$2" "$1/model" && shift 2 && exec "$@"
"""

WEIGHTS = """
import json, sys
from pathlib import Path
import actors
from actors.models import ShardedModel

path, prompt = sys.argv[1], json.loads(sys.argv[2])
with actors.init(expect_nodes=3, timeout=60):
    order = sorted(node.name for node in actors.nodes())
    print("here", json.dumps(Path(path).exists()), flush=True)
    for _ in range(2):
        with ShardedModel.load(path, nodes=order) as model:
            print("tokens", json.dumps(list(model.tokens(prompt, max_tokens=12))), flush=True)
"""


GIVEN = """
import json, sys, time
import actors
from actors.models import ShardedModel

path, prompt = sys.argv[1], json.loads(sys.argv[2])
with actors.init(expect_nodes=3, timeout=60):
    with ShardedModel.load(path, nodes=["host1", "host3"]) as model:
        print("tokens", json.dumps(list(model.tokens(prompt, max_tokens=12))), flush=True)
    sys.stdin.readline()
    while any(node.alive for node in actors.nodes() if node.name == "host2"):
        time.sleep(0.1)
    with ShardedModel.load(path, nodes=["host3", "host1"]) as model:
        print("tokens", json.dumps(list(model.tokens(prompt, max_tokens=12))), flush=True)
"""


class Trio:
    """Three paired devices, of which the second has a model on a disk that is its own."""

    def __init__(self, lab: Lab, folder: Path, model: Path) -> None:
        self.lab = lab
        self._folder, self._model = folder, model
        self.disk = folder / "disk"
        self.disk.mkdir()

    def start(self, host: int, *argv: str) -> subprocess.Popen[str]:
        return self.lab.exec(host, ["env", f"ACTORS_HOME={self.home(host)}", sys.executable, *argv])

    def home(self, host: int) -> Path:
        return self._folder / str(host)

    def does(self, host: int, *argv: str) -> None:
        process = self.start(host, "-c", "from actors.cli import main; main()", *argv)
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out

    def boots(self, host: int) -> None:
        own = ["unshare", "-m", "sh", "-c", OWN, "sh", str(self.disk), str(self._model)] if host == 2 else []
        start = [sys.executable, "-c", "from actors.cli import main; main()", "start"]
        process = self.lab.exec(host, ["env", f"ACTORS_HOME={self.home(host)}", *own, *start])
        out, _ = process.communicate(timeout=90)
        assert process.returncode == 0, out

    def pair(self) -> None:
        self.does(1, "start")
        for host in range(2, HOSTS + 1):
            self.boots(host)
            invite = self.start(1, "-c", "from actors.cli import main; main()", "invite", "--json")
            assert invite.stdout is not None
            self.does(host, "join", json.loads(invite.stdout.readline())["code"])
            assert invite.wait(60) == 0


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory, path: Path) -> Iterator[Trio]:
    with netlab(HOSTS) as lab:
        trio = Trio(lab, tmp_path_factory.mktemp("homes"), path)
        trio.pair()
        try:
            yield trio
        finally:
            for host in range(1, HOSTS + 1):
                lab.heal(host)
                trio.start(host, "-c", "from actors.cli import main; main()", "stop").communicate(timeout=90)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = speaking(tmp_path_factory.mktemp("model"))
    return made


def said(program: Any, word: str) -> Any:
    line: str = program.stdout.readline()
    assert line.startswith(word), line + program.stdout.read()
    rest = line.removeprefix(word).strip()
    return json.loads(rest) if rest else None


def test_weights_come_from_the_one_node_whose_disk_has_them(trio: Trio, path: Path) -> None:
    """The program's own node has them not, nor has the third."""
    wanted = whole_tokens(whole_directory(path), PROMPT, 12)
    program = trio.start(1, "-c", WEIGHTS, str(trio.disk / "model"), json.dumps(PROMPT))
    assert said(program, "here") is False
    got = said(program, "tokens")
    kept = {host: sorted((trio.home(host)).rglob("model.safetensors")) for host in (1, 2, 3)}
    assert got == wanted[: len(got)]
    assert [bool(files) for files in kept.values()] == [True, False, True]
    size = (path / "model.safetensors").stat().st_size
    assert all(file.stat().st_blocks * 512 < size for host in (1, 3) for file in kept[host]), "only some layers"
    assert said(program, "tokens") == got
    assert program.wait(60) == 0


def test_what_nodes_were_sent_they_give_to_each_other_when_the_first_one_is_gone(trio: Trio, path: Path) -> None:
    wanted = whole_tokens(whole_directory(path), PROMPT, 12)
    program = trio.start(1, "-c", GIVEN, str(trio.disk / "model"), json.dumps(PROMPT))
    assert program.stdin is not None
    got = said(program, "tokens")
    assert got == wanted[: len(got)]
    trio.lab.cut(2)
    program.stdin.write("go\n")
    program.stdin.flush()
    assert said(program, "tokens") == got
    trio.lab.heal(2)
    assert program.wait(60) == 0


@pytest.mark.parametrize("host", [2, 3])
def test_a_cable_is_pulled_in_mid_answer(trio: Trio, path: Path, host: int) -> None:
    """Of a stage in the middle, and of the last, which holds the schedule."""
    wanted = whole_tokens(whole_directory(path), PROMPT, LENGTH)
    wanted = wanted[: wanted.index(END) + 1] if END in wanted else wanted
    program = trio.start(1, "-c", ANSWER, str(path), json.dumps(PROMPT), str(LENGTH))
    assert program.stdin is not None
    assert said(program, "plan") == ["host1", "host2", "host3"]
    said(program, "begun")
    trio.lab.cut(host)
    program.stdin.write("go\n")
    program.stdin.flush()
    assert said(program, "tokens") == wanted
    stall = said(program, "stall")
    print(f"host {host} cut in mid-answer: the next token {stall:.1f} s later")
    assert stall < 30, "it waited as long as a call does"
    assert said(program, "plan") == [name for name in ("host1", "host2", "host3") if name != f"host{host}"]
    trio.lab.heal(host)
    assert program.wait(60) == 0
