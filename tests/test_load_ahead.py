"""A spare worker has loaded numpy where actors have needed it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from clusters import eventually

import actors

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="what a process has loaded is seen in /proc"
)


@actors.remote
class Adder:
    """Its class needs numpy."""

    def add(self, values: list[int]) -> int:
        return int(np.sum(values))

    def pid(self) -> int:
        return os.getpid()


def _plain() -> type:
    @actors.remote
    class Plain:
        """Does not, since it travels without this module."""

        def has_loaded(self, module: str) -> bool:
            return module in sys.modules

    return Plain


def test_an_actor_finds_numpy_loaded_where_others_have_needed_it() -> None:
    plain = _plain()
    with actors.init("local", num_cpus=4):
        first = plain.remote()
        assert not actors.get(first.has_loaded.remote("numpy"))
        adder = Adder.remote()
        assert actors.get(adder.add.remote([1, 2])) == 3
        node = psutil.Process(actors.nodes()[0].pid)
        known = set(node.children())

        def ahead() -> bool:
            """Whether a process of the node that is no actor has it; the spare from before may not."""
            new = [process for process in node.children() if process not in known]
            return any("_multiarray_umath" in Path(f"/proc/{process.pid}/maps").read_text() for process in new)

        third = plain.remote()  # takes the spare that was started before numpy was needed
        actors.get(third.has_loaded.remote("numpy"))
        eventually(ahead)
        assert actors.get(plain.remote().has_loaded.remote("numpy"))
        changed = plain.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": "3"}}).remote()
        assert not actors.get(changed.has_loaded.remote("numpy"))  # which reads them as it is loaded
