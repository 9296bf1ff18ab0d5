"""Upgrades: a cluster goes from an older version to this one, a node at a time, while it is used."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from clusters import eventually
from upgrading import ROOT, Versioned, older_sources

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROGRAM = """
import json, sys, threading
import actors

me = {me!r}
LARGE = 3 << 20  # it goes in chunks
actors.init(expect_nodes=3, timeout=60)

@actors.remote
class Ledger:
    def __init__(self): self.entries = []
    def enter(self, caller, number, load=b""):
        self.entries.append((caller, number))
        return number
    def read(self): return self.entries
    def where(self): return actors.get_runtime_context().get_node_id(), actors.__file__
    def __actor_save__(self): return self.entries
    def __actor_load__(self, entries): self.entries = entries

@actors.remote
class Here:
    def sources(self): return actors.__file__

@actors.remote
def double(number): return 2 * number

try:
    ledger = actors.get_actor("ledger")
except ValueError:
    ledger = Ledger.options(
        name="ledger", lifetime="detached", max_restarts=-1, checkpoint="call", replicas=1
    ).remote()
own = Ledger.options(max_restarts=-1, checkpoint="call").remote()
over, lost, made = threading.Event(), [], {{"ledger": 0, "own": 0, "tasks": 0}}

def load(kind, call):
    while not over.is_set():
        numbers = range(made[kind], made[kind] + 8)
        refs = [call(number) for number in numbers]
        for number, ref in zip(numbers, refs):
            try:
                actors.get(ref, timeout=60)
            except Exception as error:
                lost.append((kind, number, repr(error)))
        made[kind] += len(refs)
        if kind == "tasks":
            over.wait(1.5)  # older versions cannot empty a node whose warm workers never rest

kinds = {{
    "ledger": lambda number: ledger.enter.remote(me, number, bytes(LARGE if number % 16 == 0 else 0)),
    "own": lambda number: own.enter.remote(me, number),
    "tasks": lambda number: double.remote(number),
}}
threads = [threading.Thread(target=load, args=each, daemon=True) for each in kinds.items()]
for thread in threads:
    thread.start()

def obey(word, *rest):
    if word == "made":
        return dict(made)
    if word == "alive":
        return sum(node.alive for node in actors.nodes())
    if word == "move":
        for store in (ledger, own):
            actors.move(store, rest[0])
        return actors.get(ledger.where.remote(), timeout=60)
    if word == "sources":
        here = Here.options(node=rest[0]).remote()
        found = actors.get(here.sources.remote(), timeout=60)
        actors.kill(here)
        return found
    over.set()
    for thread in threads:
        thread.join()
    entries = {{"own": actors.get(own.read.remote()), "ledger": actors.get(ledger.read.remote())}}
    return {{"lost": lost, "made": made, **entries}}

print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    print(json.dumps(obey(*line.split())), flush=True)
"""


class Load:
    """A program on a device that makes calls all the time, and keeps account of them."""

    def __init__(self, device: Versioned, me: str) -> None:
        self._process: subprocess.Popen[str] = device.program(PROGRAM.format(me=me))
        assert self._answer() == "ready"

    def ask(self, *words: str) -> Any:
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return self._answer()

    def goes_on(self) -> None:
        """Waits until calls of each kind have been made and answered that were not made before."""
        before = self.ask("made")
        eventually(lambda: all(now > before[kind] for kind, now in self.ask("made").items()), 60)

    def ends(self) -> dict[str, Any]:
        """Stops calling; returns the account."""
        account: dict[str, Any] = self.ask("end")
        self.close()
        return account

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(self._process.communicate()[1])
        return json.loads(line)


@pytest.fixture
def older(tmp_path: Path) -> Path:
    return older_sources(tmp_path / "older")[1]


@pytest.fixture
def devices(tmp_path: Path, older: Path) -> Iterator[list[Versioned]]:
    """Three devices of the older version, paired; their nodes end with the test."""
    made = [Versioned(tmp_path / f"d{number}", older) for number in range(3)]
    with ExitStack() as stack:
        for device in made:
            stack.callback(device.run, "stop")
            device.start()
        for device in made[1:]:
            made[0].admit(device)
        yield made


def name_of(device: Versioned) -> str:
    return str(device.status()["name"])


def upgrade(device: Versioned, load: Load) -> None:
    """What docs/upgrades.md says, on a device where everything lives."""
    said = device.status()
    name = said["name"]
    assert load.ask("move", said["id"])[0] == said["id"]
    load.goes_on()
    device.does("drain", name)
    device.does("stop")
    load.goes_on()
    device.install(ROOT)
    device.start()
    eventually(lambda: load.ask("alive") == 3, 60)
    assert load.ask("sources", name).startswith(str(ROOT))
    load.goes_on()


def check(account: dict[str, Any], me: str) -> None:
    """Each call was answered and made once, in order."""
    assert account["lost"] == []
    assert account["own"] == [[me, number] for number in range(account["made"]["own"])]
    mine = [entry for entry in account["ledger"] if entry[0] == me]
    assert mine == [[me, number] for number in range(account["made"]["ledger"])]


def test_a_cluster_is_upgraded_a_node_at_a_time_and_no_call_is_lost_or_made_twice(devices: list[Versioned]) -> None:
    a, b, c = devices
    with ExitStack() as stack:
        load = Load(c, "before")
        stack.callback(load.close)
        assert not load.ask("sources", name_of(c)).startswith(str(ROOT))
        upgrade(a, load)
        upgrade(b, load)
        # A program ends with the node of its device: the one on the last device hands over to one of the new version.
        after = Load(a, "after")
        stack.callback(after.close)
        after.goes_on()
        check(load.ends(), "before")
        c.port = "0"  # programs that are running find it at its new door
        upgrade(c, after)
        check(after.ends(), "after")
