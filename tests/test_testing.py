"""The pytest plugin, as a project of the user's own meets it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = "actors.testing.plugin"
INSTALLED = any(entry.value == PLUGIN for entry in entry_points(group="pytest11"))  # an older install may not have it
COUNTER = """
    import os
    import actors
    import pytest

    @actors.remote
    class Counter:
        def __init__(self):
            self.count = 0
        def add(self, amount=1):
            self.count += amount
            return self.count
"""


def run(folder: Path, code: str, *, ini: str = "", fails: bool = False) -> str:
    """Runs pytest over a test file of a project; returns what it says."""
    (folder / "test_own.py").write_text(textwrap.dedent(COUNTER) + textwrap.dedent(code))
    (folder / "pytest.ini").write_text(f"[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n{ini}\n")
    command = [sys.executable, "-m", "pytest", "-v", *([] if INSTALLED else ["-p", PLUGIN])]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_tests_of_a_module_share_a_cluster_of_two_nodes(tmp_path: Path) -> None:
    code = """
        seen = set()
        home = os.environ.get("ACTORS_HOME")

        @pytest.fixture(scope="module")
        def counter(actors_cluster):
            return Counter.remote()

        def test_it_counts(actors_cluster, counter):
            seen.add(id(actors_cluster))
            assert actors.get(counter.add.remote(2)) == 2
            assert len(actors.nodes()) == 2
            assert os.environ["ACTORS_HOME"] != home

        def test_it_counts_on(actors_cluster, counter):
            assert id(actors_cluster) in seen
            assert actors.get(counter.add.remote(2)) == 4
    """
    assert "2 passed" in run(tmp_path, code)


@pytest.mark.slow
def test_a_mark_gives_it_the_arguments_of_init(tmp_path: Path) -> None:
    code = """
        pytestmark = pytest.mark.actors_cluster(local_nodes=1, resources={"camera": 1})

        def test_it_has_a_camera(actors_cluster):
            assert actors.cluster_resources()["camera"] == 1
            assert len(actors.nodes()) == 1
    """
    assert "1 passed" in run(tmp_path, code)


@pytest.mark.slow
def test_each_test_may_have_its_own(tmp_path: Path) -> None:
    code = """
        @pytest.mark.actors_cluster(local_nodes=1)
        def test_one(actors_cluster):
            Counter.options(name="kept", lifetime="detached").remote()
            assert len(actors.nodes()) == 1

        def test_two(actors_cluster):
            assert actors.list_named_actors() == []
            assert len(actors.nodes()) == 2

        def test_none():
            assert not actors.is_initialized()
    """
    assert "3 passed" in run(tmp_path, code, ini="actors_cluster_scope = function")


@pytest.mark.slow
def test_what_would_not_be_heeded_is_refused(tmp_path: Path) -> None:
    code = """
        @pytest.mark.actors_cluster(local_nodes=1)
        def test_one(actors_cluster):
            pass
    """
    assert "shares its cluster with a whole module" in run(tmp_path, code, fails=True)
    assert "actors_cluster_scope must be one of" in run(tmp_path, code, ini="actors_cluster_scope = ever", fails=True)
    code = """
        pytestmark = pytest.mark.actors_cluster(3)

        def test_one(actors_cluster):
            pass
    """
    assert "by name, not (3,)" in run(tmp_path, code, fails=True)
