"""Two users on one machine: neither reaches what the other runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import pytest

import actors
from actors.cluster import current

NOBODY = 65534
AS_OTHER: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can try things as another user"
)

INTRUDER = """
import json, os, socket, sys
user, folder, arena, *sockets = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
def tried(work, *arguments):
    try:
        return repr(work(*arguments))
    except OSError as error:
        return type(error).__name__
def connected(path):
    with socket.socket(socket.AF_UNIX) as mine:
        mine.connect(path)
        return "connected"
print(json.dumps([tried(os.listdir, folder), tried(os.listdir, arena), *(tried(connected, path) for path in sockets)]))
"""

PROGRAM = """
import json, actors
@actors.remote
class Echo:
    def echo(self, value):
        return value
with actors.init(local_nodes=1):
    print(json.dumps([len(actors.nodes()), actors.get(Echo.remote().echo.remote(5))]))
"""


def last_line(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def cluster() -> Any:
    with actors.init(local_nodes=1) as cluster:
        yield cluster


def test_another_user_reaches_no_socket_and_no_memory(cluster: actors.Cluster) -> None:
    process = current()
    folder = process.folder
    sockets = sorted(map(str, folder.glob("*.sock")))
    assert len(sockets) >= 2  # the driver's and the node's
    assert process.arena is not None
    places = [str(folder), str(process.arena.folder)]
    argv = [sys.executable, "-c", INTRUDER]
    mine = last_line(
        subprocess.run([*argv, "0", *places, *sockets], capture_output=True, text=True, timeout=30, check=False)
    )
    assert "PermissionError" not in mine  # the owner gets in, by the same words
    assert mine[-1] == "'connected'"
    theirs = last_line(
        subprocess.run([*argv, str(NOBODY), *places, *sockets], capture_output=True, text=True, timeout=30, check=False)
    )
    assert theirs == ["PermissionError"] * len(theirs)


def interpreter_of_others(environment: dict[str, str]) -> str:
    """One that another user can run, with the packages of this one."""
    problem = "none"
    for python in (sys.executable, "/usr/bin/python{}.{}".format(*sys.version_info[:2])):
        try:
            subprocess.run(
                [python, "-c", "import actors"], check=True, timeout=30, capture_output=True, cwd="/", env=environment,
                **AS_OTHER,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            problem = str(error)
        else:
            return python
    pytest.skip(f"another user can run no interpreter here: {problem}")


@pytest.mark.slow
def test_another_user_has_a_cluster_of_its_own_beside(cluster: actors.Cluster) -> None:
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, NOBODY, NOBODY)
        environment = {
            **os.environ, "HOME": home, "ACTORS_HOME": f"{home}/actors", "PYTHONPATH": os.pathsep.join(sys.path[1:])
        }  # fmt: skip
        done = subprocess.run(
            [interpreter_of_others(environment), "-c", PROGRAM], capture_output=True, text=True, timeout=90,
            check=False, cwd="/", env=environment, **AS_OTHER,
        )  # fmt: skip
        assert last_line(done) == [1, 5]
        assert os.stat(f"{home}/actors").st_uid == NOBODY
    assert len(actors.nodes()) == 1
