"""What this version sends can be read by the one before, and the other way round: see the rules in ``docs/wire.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from upgrading import ROOT, older_sources

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SINCE = "4d19e72"  # handles have been pickled in another way since; no version with a tag has it in the way before

WRITE = """
import pickle, sys
import actors
from actors.serialize import dumps

@actors.remote(num_cpus=0)
class Counter:
    def add(self, by: int = 1, *more, keyword=None) -> int: return by
    @actors.method(num_returns=2)
    def both(self): return 1, 2

@actors.remote
def double(value): return 2 * value

with actors.init("local", num_cpus=4, log_to_driver=False):
    counter, group = Counter.remote(), Counter.group(2)
    actors.get([counter.add.remote(), *group.add.remote()])
    things = {
        "handle": counter, "method": counter.add, "group": group, "reference": actors.put([1, 2]), "class": Counter,
        "function": double, "nodes": actors.nodes(),
        "died": actors.exceptions.ActorDiedError("gone", actor="counter"),
        "placement": actors.exceptions.PlacementError("no room"),
    }
    written = {name: dumps(thing).pickle for name, thing in things.items()}
    written = {name: (pickled, repr(things[name])) for name, pickled in written.items() if pickled is not None}
sys.stdout.buffer.write(pickle.dumps(written))
"""

READ = """
import pickle, sys
import actors

with actors.init("local", num_cpus=1, log_to_driver=False):  # another cluster: what is written leads nowhere here
    for name, (pickled, was) in pickle.load(sys.stdin.buffer).items():
        found = pickle.loads(pickled)
        if name in ("handle", "group", "died", "placement"):
            assert repr(found) == was, (name, repr(found), was)
        print(name)
"""


def _run(sources: Path, program: str, home: Path, given: bytes = b"") -> bytes:
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], input=given, capture_output=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(sources), "ACTORS_HOME": str(home)},
    )  # fmt: skip
    assert not done.returncode, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("writer", ["this version", "the one before"])
def test_what_travels_pickled_is_read_by_the_other_version(tmp_path: Path, writer: str) -> None:
    _, older = older_sources(tmp_path / "older", SINCE)
    sources = {"this version": ROOT, "the one before": older}
    written = _run(sources.pop(writer), WRITE, tmp_path / "home", b"")
    (reader,) = sources.values()
    names = _run(reader, READ, tmp_path / "home", written).split()
    assert {b"handle", b"group", b"reference", b"class", b"function", b"died", b"nodes"} <= set(names)
