"""The holder of a replicated actor is cut off and comes back: an heir takes over, one remains, nothing is lost."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psutil
import pytest
from house import House, eventually
from netlab import netlab, unavailable

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.netlab,
    pytest.mark.slow,
    pytest.mark.skipif(unavailable() is not None, reason=unavailable() or ""),
    pytest.mark.timeout(400),
]
HOSTS = 3

# Host 1 writes all the time; the actor lives on host 3, whose cable is pulled.
DRIVER = """
import json, os, sys, threading
import actors
from actors.strategy import NodeAffinitySchedulingStrategy

@actors.remote
class Ledger:
    def __init__(self, folder):
        self.entries = []
        open(os.path.join(folder, str(os.getpid())), "w").close()
    def enter(self, entry):
        self.entries.append(entry)
        return actors.get_runtime_context().node_name
    def read(self): return self.entries, actors.get_runtime_context().node_name
    def __actor_save__(self): return self.entries
    def __actor_load__(self, entries): self.entries = entries

actors.init(expect_nodes=3, timeout=60)
third = next(node.id for node in actors.nodes() if node.name == "host3")
ledger = Ledger.options(
    name="ledger", lifetime="detached", max_restarts=-1, checkpoint="call", replicas=1,
    scheduling_strategy=NodeAffinitySchedulingStrategy(third, soft=True),
).remote(sys.argv[1])
acknowledged, places, over = [], [], threading.Event()
def write():
    number = 0
    while not over.wait(0.05):
        number += 1
        try:
            places.append(actors.get(ledger.enter.remote(number), timeout=90))
        except Exception as error:
            places.append(type(error).__name__)
        else:
            acknowledged.append(number)
writer = threading.Thread(target=write)
writer.start()
def read():
    return actors.get(actors.get_actor("ledger").read.options(max_task_retries=-1).remote(), timeout=60)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    try:
        print(json.dumps(eval(line)), flush=True)
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}), flush=True)
over.set()
writer.join()
"""


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with netlab(HOSTS) as lab:
        house = House(lab, tmp_path_factory.mktemp("house"))
        house.pair(HOSTS)
        try:
            yield house
        finally:
            house.stop(HOSTS)


def asked(program: subprocess.Popen[str], source: str | None = None) -> object:
    assert program.stdin is not None
    assert program.stdout is not None
    if source is not None:
        program.stdin.write(source + "\n")
        program.stdin.flush()
    return json.loads(program.stdout.readline())


def alive(folder: Path) -> int:
    """How many of the ledgers' processes live; each has left its number."""
    pids = [int(file.name) for file in folder.iterdir()]
    told = [(pid, psutil.Process(pid).status() if psutil.pid_exists(pid) else "gone") for pid in pids]
    return sum(state not in ("gone", psutil.STATUS_ZOMBIE) for _, state in told)


def test_the_heir_takes_over_and_one_remains_when_the_cut_heals(house: House, tmp_path: Path) -> None:
    program = house.start(1, "-u", "-c", DRIVER, str(tmp_path))
    assert asked(program) == "ready"
    eventually(lambda: int(asked(program, "len(acknowledged)")) > 20, 60)
    assert set(asked(program, "places[:20]")) == {"host3"}
    house.lab.cut(3)
    eventually(lambda: asked(program, "places[-1]") in ("host1", "host2"), 90)
    assert alive(tmp_path) == 2  # neither half can know of the other
    house.lab.heal(3)
    eventually(lambda: asked(program, "sum(node.alive for node in actors.nodes())") == HOSTS, 60)
    before = int(asked(program, "len(acknowledged)"))
    eventually(lambda: int(asked(program, "len(acknowledged)")) > before + 20, 60)
    eventually(lambda: alive(tmp_path) == 1, 60)
    asked(program, "over.set()")
    asked(program, "writer.join()")
    entries, place = asked(program, "read()")
    assert place in ("host1", "host2")
    assert entries == sorted(set(entries))  # none twice, and in order
    assert set(asked(program, "acknowledged")) <= set(entries)
    assert program.stdin is not None
    program.stdin.close()
    assert program.wait(60) == 0
